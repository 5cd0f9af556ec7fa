// A run's model from its record: images to posteriors, latents to images, and what both cost.

const SAMPLES = 16; // of the latent, for a loss

function modelOf(record, weights) {
  const [height, width, channels] = record.shape, size = height * width * channels;
  const likelihood = likelihoodOf(record.likelihood, channels), condition = record.condition;

  // Beside the image the picture of its class, beside the latent, at each place of a map, the numbers of its class.
  function besideImage(x, label) {
    if (!condition) return x;
    const y = new Float32Array(height * width * (channels + 1));
    for (let pixel = 0; pixel < height * width; pixel++) {
      y.set(x.subarray(pixel * channels, (pixel + 1) * channels), pixel * (channels + 1));
      y[pixel * (channels + 1) + channels] = weights[condition.pictures + label * height * width + pixel];
    }
    return y;
  }
  function besideLatent(z, label) {
    if (!condition) return Float32Array.from(z);
    const { places, numbers, each } = condition, part = z.length / places, y = new Float32Array(z.length + places * each);
    for (let place = 0; place < places; place++) {
      y.set(z.slice(place * part, (place + 1) * part), place * (part + each));
      const own = numbers + label * each;
      y.set(weights.subarray(own, own + each), place * (part + each) + part);
    }
    return y;
  }

  function keepLargest(code) {
    const least = Array.from(code, Math.abs).sort((a, b) => b - a)[record.code.kept - 1];
    return code.map((value) => (Math.abs(value) >= least ? value : 0));
  }

  // What the model sees of an image: its pixels, or binarised.
  function seen(image) {
    if (record.binarize === "threshold") return image.map((value) => (value >= 0.5 ? 1 : 0));
    if (record.binarize !== "dynamic") return image;
    const uniform = uniforms(1);
    return image.map((value) => (uniform() < value ? 1 : 0));
  }

  function encode(image, label = 0) {
    const features = run(record.encoder, weights, besideImage(seen(image), label));
    if (record.stochastic) {
      const mean = features.slice(0, record.latent);
      return { mean, logvar: features.slice(record.latent).map((raw) => smoothBound(raw, 15)) };
    }
    const code = features.map(ACTIVATIONS[record.code.activation]);
    return { mean: record.code.kept ? keepLargest(code) : code, logvar: null };
  }

  const decoded = (z, label = 0) => run(record.decoder, weights, besideLatent(z, label));
  const decode = (z, label = 0) => likelihood.mean(decoded(z, label));

  // In the unit of the loss: the reconstruction of latent samples, and the divergence from the prior N(0, I).
  function losses(image, { mean, logvar }, label = 0) {
    const x = seen(image);
    if (!logvar) return { reconstruction: likelihood.loss(decoded(mean, label), x), kl: 0 };
    const normal = normals(1), kl = mean.reduce((sum, m, i) => sum + 0.5 * (m * m + Math.expm1(logvar[i]) - logvar[i]), 0);
    let reconstruction = 0;
    for (let sample = 0; sample < SAMPLES; sample++) {
      const z = mean.map((m, i) => m + Math.exp(0.5 * logvar[i]) * normal());
      reconstruction += likelihood.loss(decoded(z, label), x) / SAMPLES;
    }
    return { reconstruction, kl };
  }

  // How badly an image is rebuilt, as `vae-jax score` has it.
  function score(image, rebuilt) {
    const x = record.binarize === "threshold" ? seen(image) : image;
    const error = x.reduce((sum, value, i) => sum + (value - rebuilt[i]) ** 2, 0);
    const norm = Math.max(Math.sqrt(x.reduce((sum, value) => sum + value * value, 0)), 1 / 255);
    return { squared_error: error, scaled_error: error / norm, relative_error: error / norm ** 2 }[record.score.name];
  }

  return { record, size, seen, encode, decode, losses, score };
}
