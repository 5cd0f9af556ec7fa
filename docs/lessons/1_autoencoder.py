# %% [markdown]
# # 1 The autoencoder
#
# An autoencoder learns to say much with little: it writes an image down as a few numbers, and draws the image again
# from them. Nobody tells it what the numbers should mean.
#
# This lesson builds one, trains it, and looks at what it learned. You need Python and the idea of a gradient, and
# about ten minutes. Each lesson runs in less than a minute on the digits that come with scikit-learn; set the
# environment variable `VAE_JAX_LESSON_DATA=mnist` to run it on MNIST. Claims are checked: where you see `assert`, the
# lesson stops if it is wrong.

# %%
import os

import jax
import jax.numpy as jnp
import numpy as np

import vae_jax
from vae_jax import plots

QUICK = "VAE_JAX_QUICK" in os.environ  # a short form, by which the lesson is tested
data = vae_jax.load_dataset(os.environ.get("VAE_JAX_LESSON_DATA", "digits"))
print(
    f"{data.name}: {len(data.train):,} images to learn from, {len(data.test):,} to test with, each {data.image_shape}"
)
plots.samples(data.train.images[:36] / 255, "Images to learn from")

# %% [markdown]
# ## Two functions
#
# An image with $D$ pixels is a point $x$ in $\mathbb{R}^D$. An autoencoder is two neural networks:
#
# - the **encoder** $e: \mathbb{R}^D \to \mathbb{R}^k$ gives the **code** $z = e(x)$;
# - the **decoder** $d: \mathbb{R}^k \to \mathbb{R}^D$ gives the **reconstruction** $x' = d(z)$.
#
# We want $x' \approx x$. If $k$ were as large as $D$ this would be easy and useless: copy the pixels. So the code is
# narrow, a **bottleneck**. Here it has two numbers, which we can draw in a plane.

# %%
settings = vae_jax.Settings(
    model="ae",
    latent_dim=2,
    hidden_sizes=(64,) if QUICK else (256, 128),
    likelihood="squared_error",
    steps=700 if QUICK else 2000,
    batch_size=32 if QUICK else 128,
    learning_rate=1e-2 if QUICK else 3e-3,
)
model = vae_jax.build_model(settings, data.image_shape)
params = model.init(jax.random.key(0))
for name in ("encoder", "decoder"):
    number = sum(leaf.size for leaf in jax.tree.leaves(params[name]))
    print(f"{name}: {number:,} parameters in {', '.join(params[name])}")

# %% [markdown]
# A model of this library is a pure function: it holds no parameters. You pass them to it. That makes the next step
# short.
#
# ## The loss, and its gradient
#
# How wrong is a reconstruction? The oldest answer is the **squared error**, summed over the pixels of an image and
# averaged over the images:
#
# $$L = \frac{1}{n} \sum_{i=1}^{n} \lVert x_i - d(e(x_i)) \rVert^2$$


# %%
def loss(params, x):
    z = model.encode(params, x).mean
    return jnp.mean(jnp.sum((x - model.decode(params, z)) ** 2, axis=(1, 2, 3)))


x = jnp.asarray(data.test.images[:500], jnp.float32) / 255
gradient = jax.grad(loss)(params, x)
downhill = jax.tree.map(lambda p, g: p - 0.001 * g, params, gradient)
print(f"before a step down the gradient {loss(params, x):.3f}, after it {loss(downhill, x):.3f}")
assert loss(downhill, x) < loss(params, x)

# %% [markdown]
# That is all there is to learning: many such steps, each on another batch of images. `vae_jax.fit` does them, with
# Adam in place of the plain step, all of them in one compiled program.

# %%
result = vae_jax.fit(model, data.train, data.validation, settings)
params = result.params
plots.training_curves(result.history, "The loss falls, on images that it learns from and on others", "squared error")

# %% [markdown]
# Training never saw the test images. Is our loss what the library measures on them?

# %%
key = jax.random.key(1)
measured = vae_jax.evaluate(model, params, data.test.images[:500], key)["loss"]
print(f"by hand {loss(params, x):.4f}, by the library {measured:.4f}")
assert abs(loss(params, x) - measured) < 1e-3 * measured

codes, _ = vae_jax.encode_images(model, params, data.test.images, key)
rebuilt = model.decode_mean(params, codes)
plots.reconstructions(data.test.images[:10] / 255, np.asarray(rebuilt[:10]), "Ten test images, each from two numbers")

# %% [markdown]
# Blurred, and sometimes another digit, but each came from two numbers only. Compare that with two simpler ways:
#
# - say the **same image** for all. The best one under the squared error is the mean image;
# - the best **linear** encoder and decoder with two numbers: principal component analysis (PCA).

# %%
from sklearn.decomposition import PCA  # noqa: E402

flat = {name: split.images.reshape(len(split), -1) / 255 for name, split in data.splits.items()}


def mean_squared_error(rebuilt):
    return float(np.mean(np.sum((flat["test"] - np.asarray(rebuilt).reshape(len(rebuilt), -1)) ** 2, axis=1)))


pca = PCA(2).fit(flat["train"])
errors = {
    "mean image": mean_squared_error(np.tile(flat["train"].mean(0), (len(data.test), 1))),
    "PCA, 2 numbers": mean_squared_error(pca.inverse_transform(pca.transform(flat["test"]))),
    "autoencoder, 2 numbers": mean_squared_error(rebuilt),
}
for name, error in errors.items():
    print(f"{name:24} {error:.2f}")
assert errors["autoencoder, 2 numbers"] < errors["PCA, 2 numbers"] < errors["mean image"]

# %% [markdown]
# ## What the code looks like
#
# Each test image is a point in the plane of codes. The colours are the digits. The autoencoder did not see them: it
# put images that look alike close together, because the decoder, a continuous function, draws similar images from
# similar codes.

# %%
plots.latent_means(codes, data.test.labels, "Codes of the test images, by digit")

# %%
from sklearn.neighbors import KNeighborsClassifier  # noqa: E402

train_codes, _ = vae_jax.encode_images(model, params, data.train.images, key)
neighbours = KNeighborsClassifier(5).fit(train_codes, data.train.labels)
accuracy = neighbours.score(codes, data.test.labels)
print(f"the five nearest codes name the digit of {accuracy:.0%} of the test images; guessing names 10%")
assert accuracy > 0.3

# %% [markdown]
# Look at the axes, too. The codes lie wherever it was convenient, and between the heaps there is room in which no
# image lies. Nothing in the loss says what the decoder should draw there. Lesson 2 looks into these gaps.
#
# ## How narrow should it be?
#
# A wider bottleneck lets more through.

# %%
from matplotlib.figure import Figure  # noqa: E402


def train(latent_dim):
    wider = vae_jax.Settings(**{**vars(settings), "latent_dim": latent_dim})
    model = vae_jax.build_model(wider, data.image_shape)
    params = vae_jax.fit(model, data.train, data.validation, wider).params
    return vae_jax.evaluate(model, params, data.test.images, key)["loss"]


widths = [2, 8] if QUICK else [2, 4, 16]
losses = [errors["autoencoder, 2 numbers"], *map(train, widths[1:])]
assert losses[0] > losses[-1], "more numbers, a smaller error"

figure = Figure((6, 3.2), layout="constrained")
axes = figure.subplots()
axes.plot(widths, losses, "o-")
axes.set(xscale="log", xticks=widths, xticklabels=widths, ylim=(0, None))
axes.set(xlabel="numbers in the code", ylabel="squared error", title="Test error by the width of the bottleneck")
axes.minorticks_off()
figure

# %% [markdown]
# ## What it is good for
#
# - **Fewer dimensions.** Two numbers can be drawn; 16 are quicker to search, compare and classify than all the
#   pixels.
# - **Denoising.** Train it to rebuild the clean image from a noisy one.
# - **Anomalies.** It learned to rebuild what it saw. What it rebuilds badly is unlike that.
# - **Compression.** Store the code in place of the image.
#
# Lesson 6 does all of them. One thing is missing: it can't *make* images. We would need to know which codes to
# decode.
#
# ## Exercises
#
# 1. Why does the mean image have the smallest squared error of all images that are the same for everyone?
# 2. Take all hidden layers away (`hidden_sizes=()`). Which of the three errors above does the autoencoder come near?
# 3. Make the code as wide as the image has pixels. Can the error become zero? What does the code tell you then?
#
# <details markdown="1"><summary>Answers</summary>
#
# 1. $\frac{1}{n} \sum_i \lVert x_i - c \rVert^2$ has the gradient $2 (c - \frac{1}{n} \sum_i x_i)$ in $c$. It is zero
#    at the mean.
# 2. That of PCA. Two linear maps after one another are a linear map through two numbers, and PCA is the best of them
#    (Baldi & Hornik 1989). The code spans the same plane, with other axes.
# 3. Yes, in principle: copying the pixels has no error. The code then says nothing that the image did not. A
#    bottleneck, noise, or a price for the code is what forces the network to find structure.
#
# </details>
