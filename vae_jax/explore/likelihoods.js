// What a decoder's output says of the pixels: the expected image, and the loss of an image in nats (of squared_error in
// squared intensity). A likelihood is {name, ...} as Python describes it; JavaScript computes with 64 bits.

const softplus = (t) => (t > 0 ? t : 0) + Math.log1p(Math.exp(-Math.abs(t)));
const HALF_LOG_2PI = 0.5 * Math.log(2 * Math.PI);

// Of independent values with one number each: [mean, loss of value x].
const OF_VALUES = {
  bernoulli: () => [ACTIVATIONS.sigmoid, (l, x) => softplus(l) - x * l],
  continuous_bernoulli: () => [
    (l) => (Math.abs(l) < 0.01 ? 0.5 + l / 12 : 1 / -Math.expm1(-l) - 1 / l),
    (l, x) => softplus(l) - x * l - (Math.abs(l) < 0.01 ? Math.LN2 + l * l / 12 : Math.log(l / Math.tanh(l / 2))),
  ],
  gaussian: ({ sigma }) => [(m) => m, (m, x) => 0.5 * ((x - m) / sigma) ** 2 + Math.log(sigma) + HALF_LOG_2PI],
  squared_error: () => [(m) => m, (m, x) => (x - m) ** 2],
};

// Of bytes: [mean, loss of value x], from the numbers that the decoder gives for a value, counted from offsets in gains.
const OF_BYTES = {
  logistic: {
    excess: (t) => Math.log1p(Math.exp(-t)),
    logMass(m, logScale, x) {
      const inverse = Math.exp(-logScale), half = 0.5 / 255, black = x < half, white = x > 1 - half;
      const between = black || white ? 0 : Math.log(-Math.expm1(-2 * half * inverse));
      const above = white ? 0 : softplus((m - x - half) * inverse);
      return between - above - (black ? 0 : softplus((x - m - half) * inverse));
    },
  },
  normal: {
    excess: (t) => Math.exp(-0.5 * t * t - HALF_LOG_2PI) - t * normalTail(t),
    logMass(m, logScale, x) {
      const inverse = Math.exp(-logScale), half = 0.5 / 255, z = Math.abs(x - m) * inverse, w = half * inverse;
      if (x < half) return logNormal((x - m) * inverse + w);
      if (x > 1 - half) return logNormal((m - x) * inverse + w);
      // Of both edges in one tail; where the density is flat between them, by its value in the middle.
      if (w < 0.01 && z * w < 0.01) return Math.log(2 * w) - 0.5 * z * z - HALF_LOG_2PI + w * w * (z * z - 1) / 6;
      const upper = logNormal(w - z);
      return upper + Math.log(-Math.expm1(Math.min(logNormal(-w - z) - upper, -1e-300)));
    },
  },
};

// erfc to 1e-7 of itself (Press et al., Numerical Recipes, section 6.2), as the tail beyond t of N(0, 1), and its log.
function logTail(t) {
  const s = Math.abs(t) / Math.SQRT2, u = 1 / (1 + 0.5 * s);
  const terms = [
    -1.26551223, 1.00002368, 0.37409196, 0.09678418, -0.18628806, 0.27886807, -1.13520398, 1.48851587, -0.82215223,
    0.17087277,
  ];
  const log = Math.log(0.5 * u) - s * s + terms.reduceRight((sum, term) => sum * u + term, 0);
  return t >= 0 ? log : Math.log1p(-Math.exp(log));
}
const normalTail = (t) => Math.exp(logTail(t)), logNormal = (t) => logTail(-t);

// log of gamma(z + k) / gamma(z), by Stirling's series.
const logRising = (z, k) => logGamma(z + k) - logGamma(z);
function logGamma(z) {
  let shift = 0;
  for (; z < 16; z++) shift += Math.log(z);
  const s = 1 / (z * z);
  return (z - 0.5) * Math.log(z) - z + HALF_LOG_2PI + (1 / 12 - s * (1 / 360 - s / 1260)) / z - shift;
}

function mixtureOfBytes({ components, conditioned, family }) {
  const { excess, logMass } = OF_BYTES[family];
  // [components] of each: location, log scale, coefficients where conditioned, logits where there are several.
  function component(numbers, channel, before, i) {
    const [location, raw, ...more] = [0, 1, 2, 3].map((block) => numbers(block * components + i, channel));
    const slope = (c) => numbers(2 * components + i, c);
    let moved = location;
    if (conditioned && channel === 1) moved += slope(0) * (before[0] - 0.5);
    if (conditioned && channel === 2) moved += slope(1) * (before[0] - 0.5) + slope(2) * (before[1] - 0.5);
    return [moved, smoothBound(raw, 8), smoothBound(more[conditioned ? 1 : 0] || 0, 16)];
  }
  function mixed(numbers, channel, before, value) {
    const parts = [], logits = [];
    for (let i = 0; i < components; i++) {
      const [location, logScale, logit] = component(numbers, channel, before, i);
      parts.push(value(location, logScale));
      logits.push(logit);
    }
    const top = Math.max(...logits), weights = logits.map((l) => Math.exp(l - top));
    return [parts, weights.map((w) => w / weights.reduce((a, b) => a + b))];
  }
  const clip = (v) => Math.min(Math.max(v, 0), 1);
  function clippedMean(location, logScale) {
    const scale = Math.exp(logScale), [near, far] = [Math.abs(location), Math.abs(location - 1)];
    return clip(clip(location) + scale * (excess(near / scale) - excess(far / scale)));
  }
  return [
    (numbers, channel, before) => {
      const [parts, weights] = mixed(numbers, channel, before, clippedMean);
      return parts.reduce((sum, part, i) => sum + weights[i] * part, 0);
    },
    (numbers, channel, before, x) => {
      const [parts, weights] = mixed(numbers, channel, before, (m, s) => logMass(m, s, x));
      const top = Math.max(...parts);
      return -top - Math.log(parts.reduce((sum, part, i) => sum + weights[i] * Math.exp(part - top), 0));
    },
  ];
}

function betaBinomial() {
  const logit = (numbers, channel) => smoothBound(numbers(0, channel), 16);
  return [
    (numbers, channel) => ACTIVATIONS.sigmoid(logit(numbers, channel)),
    (numbers, channel, _, x) => {
      const concentration = Math.exp(smoothBound(numbers(1, channel), 7)), k = Math.round(255 * x);
      const a = concentration * ACTIVATIONS.sigmoid(logit(numbers, channel)), b = concentration - a;
      const choices = logGamma(256) - logGamma(k + 1) - logGamma(256 - k);
      return logRising(a + b, 255) - logRising(a, k) - logRising(b, 255 - k) - choices;
    },
  ];
}

// {mean(decoded), loss(decoded, x)} of a likelihood, for images of so many channels.
function likelihoodOf(given, channels) {
  if (given.name in OF_VALUES) {
    const [mean, loss] = OF_VALUES[given.name](given);
    return {
      mean: (decoded) => decoded.map(mean),
      loss: (decoded, x) => x.reduce((sum, value, i) => sum + loss(decoded[i], value), 0),
    };
  }
  const [mean, loss] = given.name === "beta_binomial" ? betaBinomial() : mixtureOfBytes(given);
  const { offsets, gains } = given, numbers = offsets.length;
  function each(decoded, visit) {
    for (let pixel = 0; pixel * numbers < decoded.length; pixel++) {
      const at = (block, channel) => {
        const i = block * channels + channel;
        return i < numbers ? offsets[i] + gains[i] * decoded[pixel * numbers + i] : 0;
      };
      for (let channel = 0; channel < channels; channel++) visit(at, channel, pixel * channels);
    }
  }
  return {
    mean(decoded) {
      const image = new Float32Array(decoded.length / numbers * channels);
      each(decoded, (at, c, first) => { image[first + c] = mean(at, c, image.subarray(first, first + c)); });
      return image;
    },
    loss(decoded, x) {
      let sum = 0;
      each(decoded, (at, c, first) => { sum += loss(at, c, x.subarray(first, first + c), x[first + c]); });
      return sum;
    },
  };
}
