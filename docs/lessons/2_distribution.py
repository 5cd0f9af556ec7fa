# %% [markdown]
# # 2 From a code to a distribution
#
# An autoencoder can write an image down and draw it again. Can it draw a *new* image? We would have to give its
# decoder a code that belongs to no image yet. In this lesson that fails; we count how often, and then change one
# thing.

# %%
import os

import jax
import numpy as np

import vae_jax
from vae_jax import plots
from vae_jax.measures.latent_space import nearest_distance
from vae_jax.models.codes import Codes

QUICK = "VAE_JAX_QUICK" in os.environ  # a short form, by which the lesson is tested
data = vae_jax.load_dataset(os.environ.get("VAE_JAX_LESSON_DATA", "digits"))
key = jax.random.key(0)
common = {
    "hidden_sizes": (64,) if QUICK else (256, 128),
    "steps": 700 if QUICK else 2000,
    "batch_size": 32 if QUICK else 128,
    "learning_rate": 1e-2 if QUICK else 3e-3,
}


def train(**changes):
    settings = vae_jax.Settings(**common, **changes)
    model = vae_jax.build_model(settings, data.image_shape)
    return model, vae_jax.fit(model, data.train, data.validation, settings).params


def codes_of(model, params, split):
    images = split.images[:5000]
    return Codes.of(*vae_jax.encode_images(model, params, images, key))


# %% [markdown]
# ## The plane of an autoencoder
#
# With two numbers in the code we can look everywhere. Here are the codes of training images, and what the decoder
# draws at places all over the region in which they lie.

# %%
ae, ae_params = train(model="ae", latent_dim=2)
codes = codes_of(ae, ae_params, data.train).means
plots.latent_means(codes[:2000], data.train.labels[:2000], "Codes of training images, by digit")

# %%
side = 5 if QUICK else 14
columns, rows = (np.linspace(*np.percentile(codes[:, i], [0.5, 99.5]), side, dtype=np.float32) for i in (0, 1))
places = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
decoded = np.asarray(ae.decode_mean(ae_params, places)).reshape(side, side, *data.image_shape)
plots.latent_grid(decoded, columns, rows, "The autoencoder's plane, decoded")

# %% [markdown]
# Where codes are dense, there are digits. Between the heaps and outside of them there are blots, half of one digit
# and half of another. The loss compared images with their reconstructions, at the codes of these images. In the
# **gaps** it asked for nothing, so anything may be there.
#
# ## Count the nonsense
#
# "Looks like nonsense" can be made a number. Measure how far a drawn image is from the *nearest* training image. Real
# test images have such distances, too; 95% of them lie below some limit. We call a drawn image **nonsense** if it is
# beyond: further from all training images than nearly every real one.

# %%
train_pixels = data.train.images[:5000].reshape(-1, int(np.prod(data.image_shape))) / 255
test_pixels = data.test.images[:1000].reshape(-1, train_pixels.shape[1]) / 255
LIMIT = np.quantile(nearest_distance(test_pixels, train_pixels), 0.95)


def nonsense(images):
    return nearest_distance(np.asarray(images).reshape(len(images), -1), train_pixels) > LIMIT


# %% [markdown]
# Two numbers are few; the plane is crowded, and its gaps are small. With eight numbers the room grows, and the images
# don't get more. Where shall we draw codes? Nothing in the autoencoder says. Try two places: the simplest, eight
# numbers from $\mathcal{N}(0, 1)$; and around its own codes, each number from a Gaussian with the mean and the spread
# that it has over the training images.

# %%
DIM = 8
ae, ae_params = train(model="ae", latent_dim=DIM)
codes = codes_of(ae, ae_params, data.train).means
noise = np.random.default_rng(0).normal(size=(500, DIM)).astype(np.float32)
from_ae = np.asarray(ae.decode_mean(ae_params, noise))
around = np.asarray(ae.decode_mean(ae_params, codes.mean(axis=0) + codes.std(axis=0) * noise))
rebuilt = np.asarray(ae.decode_mean(ae_params, codes_of(ae, ae_params, data.test).means[:1000]))

drawn = {"AE, test images rebuilt": rebuilt, "AE, from N(0, I)": from_ae, "AE, around its codes": around}
shares = {name: nonsense(images).mean() for name, images in drawn.items()}
for name, share in shares.items():
    print(f"{name:24} {share:.0%} nonsense")
assert shares["AE, from N(0, I)"] > 0.1 + 2 * shares["AE, test images rebuilt"]
plots.samples(from_ae[:36], "Drawn by the autoencoder, from N(0, I)")

# %% [markdown]
# The same decoder that rebuilds test images well draws nonsense where no code lies.
#
# ## Say where, and how sure
#
# The idea of the **variational** autoencoder: let the encoder name not a point but a region. For an image $x$ it
# gives a mean $\mu$ and a standard deviation $\sigma$ for each number of the code, and the decoder gets a *draw* from
# that Gaussian:
#
# $$z \sim q(z \mid x) = \mathcal{N}(\mu, \sigma^2), \qquad (\mu, \sigma) = e(x), \qquad x' = d(z) .$$
#
# Each time another point of the region is drawn, and each has to decode to $x$. So the gap around a code closes.
#
# Is that enough? No. The encoder can cheat: draws disturb the reconstruction, so it makes $\sigma$ tiny, and is back
# at points. It needs a reason to stay vague. We give it a price for being far from a fixed distribution, the
# **prior** $\mathcal{N}(0, I)$: the **KL term**, which lesson 3 works out. We train both together: with the price
# ($\beta = 1$) and without ($\beta = 0$).

# %%
(vae, free), (_, priced) = (train(latent_dim=DIM, beta=beta) for beta in (0.0, 1.0))
encoded = [codes_of(vae, params, data.test) for params in (free, priced)]
sigmas = [np.median(np.exp(0.5 * each.logvars)) / each.means.std() for each in encoded]
for name, sigma in zip(("without the price", "with the price"), sigmas, strict=True):
    print(f"{name:18} a typical sigma is {sigma:.1%} of the spread of the means")
assert sigmas[0] < 0.3 * sigmas[1]

# %% [markdown]
# The second thing that the prior gives: it says **where to draw**. All regions together have to look like
# $\mathcal{N}(0, I)$, so a draw from $\mathcal{N}(0, I)$ falls into some region.

# %%
from_vae = np.asarray(vae.decode_mean(priced, noise))
shares["VAE, from N(0, I)"] = nonsense(from_vae).mean()
for name, share in shares.items():
    print(f"{name:24} {share:.0%} nonsense")
assert shares["VAE, from N(0, I)"] < 0.5 * shares["AE, from N(0, I)"]
assert shares["VAE, from N(0, I)"] < shares["AE, around its codes"]
plots.samples(from_vae[:36], "Drawn by the VAE, from the prior")

# %% [markdown]
# ## What it costs
#
# Nothing is free. A decoder that draws the same grey blot always would never be "nonsense" by our count, so look at
# the price, too: how well do both rebuild the test images?

# %%
ae_error = vae_jax.evaluate(ae, ae_params, data.test.images, key)["reconstruction"]
vae_error = vae_jax.evaluate(vae, priced, data.test.images, key)["reconstruction"]
print(f"reconstruction loss in nats: AE {ae_error:.2f}, VAE {vae_error:.2f}")
assert vae_error > ae_error


def variety(images):
    return np.std(images, axis=0).mean()


print(f"spread of a pixel: test images {variety(data.test.images / 255):.2f}, drawn by the VAE {variety(from_vae):.2f}")
assert variety(from_vae) > 0.4 * variety(data.test.images / 255)

# %% [markdown]
# The VAE rebuilds less exactly: it gave up some precision, and got a space in which one can draw. What it draws is
# smoother than real images, so it varies less than they do; but it varies, and the low count is no trick.
#
# ## Exercises
#
# 1. Draw from the AE at `codes[0] + 0.1 * codes.std(axis=0) * noise` instead. Is that nonsense, too? What does it
#    tell you?
# 2. Draw from the VAE's prior at twice the spread (`2 * noise`). What do you expect?
# 3. With 32 numbers in the code, does the AE's share of nonsense rise or fall? Why?
#
# <details markdown="1"><summary>Answers</summary>
#
# 1. Hardly: close to a code the decoder is still near what it learned. The nonsense is in the gaps, not everywhere.
# 2. More nonsense. Twice the spread is where the prior hardly ever is, and nothing was learned there either.
# 3. It rises. The volume grows with each dimension while the images stay as many, so a draw is further from the
#    nearest code.
#
# </details>
