# %% [markdown]
# # 6 What to use it for
#
# Five uses, each in a few lines: fewer dimensions, denoising, compression, anomalies, new images. Each has a command
# or a study that does it properly; the guides say which.

# %%
import os

import jax
import numpy as np

import vae_jax
from vae_jax import plots
from vae_jax.measures.anomaly import detection, model_scores
from vae_jax.measures.denoising import corrupt_images, mean_quality
from vae_jax.measures.dimensionality import knn_accuracy
from vae_jax.measures.threshold import calibrate

QUICK = "VAE_JAX_QUICK" in os.environ  # a short form, by which the lesson is tested
data = vae_jax.load_dataset(os.environ.get("VAE_JAX_LESSON_DATA", "digits"))
test = data.test.images / np.float32(255)
key = jax.random.key(0)


def train(dataset=data, **changes):
    settings = vae_jax.Settings(
        hidden_sizes=(64,) if QUICK else (256, 128),
        steps=800 if QUICK else 2000,
        batch_size=64,
        learning_rate=1e-2 if QUICK else 3e-3,
        **changes,
    )
    classes = 10 if settings.condition == "labels" else None
    model = vae_jax.build_model(settings, dataset.image_shape, classes)
    return model, vae_jax.fit(model, dataset.train, dataset.validation, settings).params


# %% [markdown]
# ## Denoising
#
# Give the encoder a noisy image, and ask the decoder for the clean one. The network has to know what a digit looks
# like to tell it from noise. The measure is the PSNR in decibels: 10 dB more are a tenth of the squared error.

# %%
NOISE = 0.5
denoiser, params = train(model="ae", latent_dim=16, corruption="gaussian", corruption_level=NOISE)
noisy = corrupt_images(data.test.images, "gaussian", NOISE, key)
clean = np.asarray(denoiser.decode_mean(params, denoiser.latents(params, noisy)))
before, after = mean_quality(test, noisy)["psnr"], mean_quality(test, clean)["psnr"]
print(f"PSNR {before:.1f} dB with the noise, {after:.1f} dB without")
assert after > before + 3
shown = np.stack([test[:10], noisy[:10], clean[:10]])
plots.conditions(np.clip(shown, 0, 1), ["image", "noisy", "denoised"], "Noise taken out of test images")

# %% [markdown]
# ## Fewer dimensions
#
# The same model's codes: 16 numbers in place of all pixels. Nearest neighbours find the digit by them nearly as well,
# and look at fewer numbers for it.


# %%
def codes_of(split):
    return np.asarray(denoiser.latents(params, split.images))


train_split = vae_jax.Split(data.train.images[:5000], data.train.labels[:5000])
flat = [split.images.reshape(len(split), -1) / np.float32(255) for split in (train_split, data.test)]
by_pixels = knn_accuracy(flat[0], train_split.labels, flat[1], data.test.labels, 5)
by_codes = knn_accuracy(codes_of(train_split), train_split.labels, codes_of(data.test), data.test.labels, 5)
print(f"5 nearest neighbours: {by_pixels:.1%} by {flat[0].shape[1]} pixels, {by_codes:.1%} by 16 numbers")
assert by_codes > by_pixels - 0.15

# %% [markdown]
# ## Compression
#
# Store the code, not the image. A code of 16 numbers, each rounded to one of 256 steps, takes 16 bytes. What does the
# rounding cost?

# %%
codes = codes_of(data.test)
low, high = codes.min(axis=0), codes.max(axis=0)
stored = np.rint((codes - low) / (high - low) * 255).astype(np.uint8)
restored = stored / np.float32(255) * (high - low) + low
exact = mean_quality(test, np.asarray(denoiser.decode_mean(params, codes)))["psnr"]
rounded = mean_quality(test, np.asarray(denoiser.decode_mean(params, restored)))["psnr"]
print(f"{test[0].size} bytes an image become {stored[0].nbytes}: PSNR {exact:.2f} dB, {rounded:.2f} dB after rounding")
assert exact - rounded < 0.5

# %% [markdown]
# Almost nothing. `vae-jax compress` does better still, as it knows how often each step occurs; and `--lossless` keeps
# every byte.
#
# ## Anomalies
#
# Train on what is normal, here the digit 0 only. What such a model rebuilds badly is unlike what it knows. To call it
# an **alarm** we need a threshold. Take it from normal images that the model was not trained on, so that one in ten
# new normal images at most is a false alarm.

# %%
normal = data.of_classes((0,))
expert, expert_params = train(normal, model="ae", latent_dim=4)


def scores_of(images):
    return model_scores(expert, expert_params, images, key, samples=1, binarize="none")["scaled_error"]


threshold = calibrate(scores_of(normal.validation.images), 0.1)
scores, anomalous = scores_of(data.test.images), data.test.labels != 0
quality = detection(scores, anomalous)
print(f"AUROC {quality.auroc:.3f}: so often an anomaly scores higher than a normal image")
alarms = [np.mean(scores[part] > threshold) for part in (anomalous, ~anomalous)]
print(f"alarms: {alarms[0]:.0%} of the other digits, {alarms[1]:.0%} of the zeros")
assert quality.auroc > 0.9
order = np.argsort(scores)
extremes = np.stack([test[order[:10]], test[order[-10:]]])
plots.conditions(extremes, ["most normal", "most anomalous"], "Test images by their score")

# %% [markdown]
# A score like this says "unlike the training images", no more. Another dataset may have a simpler reason for that,
# such as more ink.
#
# ## New images
#
# Draw a code from the prior, decode it. To choose *which* digit, tell encoder and decoder the class as well
# (`condition="labels"`): then the code need not say it, and is free for the style.

# %%
maker, maker_params = train(latent_dim=4, condition="labels")
style = jax.random.normal(jax.random.key(1), (8, 4))
every = np.stack([maker.decode_mean(maker_params, style, np.full(8, digit)) for digit in range(10)])
names = [str(digit) for digit in range(10)]
plots.conditions(every, names, "New images: a digit a row, a style a column")

# %% [markdown]
# Are they the digits that we asked for? Ask their nearest training images.

# %%
wanted = np.repeat(np.arange(10), 8)
right = knn_accuracy(flat[0], train_split.labels, every.reshape(80, -1), wanted, 5)
print(f"{right:.0%} of the new images are taken for the digit that was asked for")
assert right > 0.7

# %% [markdown]
# ## Where to go from here
#
# - Your own images: `vae-jax train photos/ --run-dir runs/photos --minutes 10`.
# - A run that others can touch: `vae-jax explore runs/photos -o page.html`.
# - The same in scikit-learn's form: `from vae_jax.sklearn import VAE`.
#
# The guides have each of them step by step.
#
# ## Exercises
#
# 1. Denoise images with *twice* the noise of the training. What do you expect, and what do you get?
# 2. In the anomaly example, which digit is missed most often? Why?
# 3. A conditional model is told the digit. Do its codes still cluster by digit?
#
# <details markdown="1"><summary>Answers</summary>
#
# 1. It still helps, but less: the encoder never saw such images, and takes some of the noise for strokes.
# 2. Look at `data.test.labels[anomalous & (scores < threshold)]`. It is usually one that consists of parts of a 0,
#    such as round strokes.
# 3. Hardly. What encoder and decoder are told anyway costs KL to say again in the code, so training removes it.
#
# </details>
