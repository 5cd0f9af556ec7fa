# %% [markdown]
# # 3 The loss, term by term
#
# The loss of a VAE has two terms. Here is where they come from, what each of them does, and what happens when they
# are weighed wrongly, which is the most frequent mistake with VAEs.

# %%
import os

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import vae_jax
from vae_jax.models.evaluation import image_losses
from vae_jax.models.inputs import Inputs
from vae_jax.models.likelihoods import Gaussian
from vae_jax.training.many import fit_many

QUICK = "VAE_JAX_QUICK" in os.environ  # a short form, by which the lesson is tested
data = vae_jax.load_dataset(os.environ.get("VAE_JAX_LESSON_DATA", "digits"))
pixels = int(np.prod(data.image_shape))

# %% [markdown]
# ## What we want, and what we can have
#
# A VAE tells a story of how an image comes about: draw a code from the **prior** $p(z) = \mathcal{N}(0, I)$, then
# draw the image from $p(x \mid z)$, which the decoder describes. A good model gives the images that we have a high
# probability,
#
# $$\log p(x) = \log \int p(x \mid z) \, p(z) \, dz .$$
#
# We can't compute this integral: it runs over all codes, and hardly any of them draws this $x$. So the encoder helps.
# It names the codes that could have drawn $x$, as a distribution $q(z \mid x) = \mathcal{N}(\mu, \sigma^2)$. Multiply
# and divide by it, and use that the logarithm is concave (Jensen's inequality):
#
# $$\log p(x) = \log \mathbb{E}_{q} \left[ \frac{p(x \mid z) \, p(z)}{q(z \mid x)} \right]
# \;\geq\; \mathbb{E}_{q} \left[ \log \frac{p(x \mid z) \, p(z)}{q(z \mid x)} \right]
# = \underbrace{\mathbb{E}_{q} \left[ \log p(x \mid z) \right]}_{-\text{reconstruction}}
# - \underbrace{\mathrm{KL}\left[ q(z \mid x), p(z) \right]}_{\text{KL}} .$$
#
# This is the **evidence lower bound** (ELBO). Training makes it as large as it can, so the loss is
#
# $$\text{loss} = \text{reconstruction} + \text{KL} .$$
#
# Let us train one, and compute each term by hand. Its pixels are black or white (`binarize="threshold"`), so that a
# probability of an image is just that. A second one is trained beside it; we come to it at the end.

# %%
settings = vae_jax.Settings(
    latent_dim=2,
    hidden_sizes=(64,) if QUICK else (256, 128),
    binarize="threshold",
    steps=800 if QUICK else 2000,
    batch_size=64 if QUICK else 128,
    learning_rate=1e-2 if QUICK else 3e-3,
)
by_mean = vae_jax.Settings(**{**vars(settings), "beta": float(pixels)})
model = vae_jax.build_model(settings, data.image_shape)
trained = fit_many(model, data.train, data.validation, [settings, by_mean])
params = trained[0].params
inputs = Inputs(binarize="threshold")

# %% [markdown]
# ## The reconstruction term
#
# The decoder gives a number $l$ for each pixel, and the pixel is white with the probability $p = 1 / (1 + e^{-l})$.
# The probability of an image is the product over its pixels, so its negative logarithm is a sum:
#
# $$-\log p(x \mid z) = -\sum_{j} \left[ x_j \log p_j + (1 - x_j) \log (1 - p_j) \right]
# = \sum_j \left[ \log(1 + e^{l_j}) - x_j l_j \right] .$$
#
# You may know it as binary cross-entropy. The right form never takes the logarithm of a $p$ that was rounded to 0.
# Logarithms are natural, so the unit is the **nat**: 1 nat = 1.44 bits.

# %%
x = jnp.asarray(data.test.images[:200] >= 128, jnp.float32)
posterior = model.encode(params, x)
z = posterior.sample(jax.random.key(0))
logits = model.decode(params, z)
by_hand = jnp.sum(jnp.logaddexp(logits, 0.0) - x * logits, axis=(1, 2, 3))
print(f"reconstruction of the first image: {by_hand[0]:.2f} nats")
assert np.allclose(by_hand, model.likelihood.reconstruction_loss(logits, x), rtol=1e-4)

# %% [markdown]
# And the squared error of lesson 1? It is the same thing for a Gaussian pixel with the standard deviation $s$, up to
# a factor and a constant:
#
# $$-\log \mathcal{N}(x_j; m_j, s^2) = \frac{(x_j - m_j)^2}{2 s^2} + \log s + \tfrac{1}{2} \log 2 \pi .$$
#
# So "squared error + KL" has chosen an $s$, even if nobody wrote it down: $s^2 = \tfrac{1}{2}$, about as wide as the
# whole range from black to white.

# %%
means = jax.nn.sigmoid(logits)
squared_error = jnp.sum((x - means) ** 2, axis=(1, 2, 3))
for s in (0.1, 0.5**0.5):
    constant = pixels * (np.log(s) + 0.5 * np.log(2 * np.pi))
    expected = squared_error / (2 * s**2) + constant
    assert np.allclose(Gaussian(s).reconstruction_loss(means, x), expected, rtol=1e-3, atol=1e-2)
    print(f"s = {s:.2f}: squared error times {1 / (2 * s**2):.0f}")

# %% [markdown]
# ## The KL term
#
# The **Kullback-Leibler divergence** says how much it costs to be $q$ where $p$ was expected. It is zero if both are
# the same, and never negative. For one dimension of the code, against $\mathcal{N}(0, 1)$, the integral has a closed
# form:
#
# $$\mathrm{KL} = \int q(z) \log \frac{q(z)}{p(z)} \, dz
# = \frac{1}{2} \left( \mu^2 + \sigma^2 - 1 - \log \sigma^2 \right) .$$
#
# The integral can be checked by adding up many thin slices.

# %%
from scipy.stats import norm  # noqa: E402

CASES = [(0.0, 1.0), (1.5, 1.0), (0.0, 0.2), (1.5, 0.2)]
line = np.linspace(-6, 6, 20001)


def kl(mu, sigma):
    return 0.5 * (mu**2 + sigma**2 - 1 - np.log(sigma**2))


for mu, sigma in CASES:
    q, p = norm.logpdf(line, mu, sigma), norm.logpdf(line)
    slices = np.sum(np.exp(q) * (q - p)) * (line[1] - line[0])
    assert abs(slices - kl(mu, sigma)) < 1e-4
assert np.allclose(posterior.kl(), kl(posterior.mean, np.exp(0.5 * posterior.logvar)).sum(axis=1), atol=1e-3)

figure = Figure((8, 4.8), layout="constrained")
figure.suptitle("What the KL term costs", fontsize=11)
left, right = figure.subfigures(1, 2)
for axes, (mu, sigma) in zip(left.subplots(4, 1, sharex=True), CASES, strict=True):
    axes.fill_between(line, norm.pdf(line), alpha=0.3, label="prior $p$")
    axes.plot(line, norm.pdf(line, mu, sigma), color="C1", label="posterior $q$")
    axes.set(xlim=(-4, 4), yticks=[])
    axes.set_title(rf"$\mu$ = {mu:g}, $\sigma$ = {sigma:g}: {kl(mu, sigma):.2f} nats", fontsize=9)
left.axes[0].legend(fontsize=8)
grid_mu, grid_sigma = np.meshgrid(np.linspace(-3, 3, 121), np.geomspace(0.02, 3, 121))
axes = right.subplots()
contours = axes.contour(grid_mu, grid_sigma, kl(grid_mu, grid_sigma), [0.1, 0.5, 1, 2, 3, 4, 6, 8], cmap="viridis")
axes.clabel(contours, fontsize=8)
axes.plot(0, 1, "k*")
axes.set(yscale="log", xlabel=r"$\mu$", ylabel=r"$\sigma$")
axes.set_title("KL in nats; the star is the prior, for free", fontsize=9)
figure

# %% [markdown]
# To move the mean away costs $\mu^2 / 2$; to be precise costs $-\log \sigma$, so each factor of ten in precision
# costs 2.3 nats. Both are what the encoder must do to say which image it saw. The reconstruction term pays for it:
# the encoder is as precise as pays off.
#
# ## Both together
#
# On the test images, as the library measures them:

# %%
key = jax.random.key(1)
test = vae_jax.evaluate(model, params, data.test.images, key, binarize="threshold")
print(f"loss {test['loss']:.2f} = reconstruction {test['reconstruction']:.2f} + KL {test['kl']:.2f} nats per image")
assert abs(test["loss"] - test["reconstruction"] - test["kl"]) < 1e-3
assert test["kl"] > 0

# %% [markdown]
# It is a *bound*: the true $-\log p(x)$ is at most this. Averaging the ratio $p(x \mid z) p(z) / q(z \mid x)$ over
# $k$ draws *inside* the logarithm comes closer to it as $k$ grows (Burda et al. 2015).

# %%
images = data.test.images[:300]
bounds = {}
for k in (1, 10, 100):
    bounds[k] = -float(np.mean(image_losses(model, params, images, key, samples=k, inputs=inputs).bound))
    print(f"{k:4} draws: -log p(x) is at most {bounds[k]:.2f} nats")
assert bounds[1] > bounds[10] > bounds[100]

# %% [markdown]
# ## Sum, not mean
#
# Both terms are **sums**: one over the pixels, the other over the dimensions of the code. It is tempting to write
# `mean` for the pixels, since the number then does not depend on the size of the image. But that divides one of the
# two terms by the number of pixels, or, what is the same, multiplies the KL by it. The second model above was trained
# so.

# %%
collapsed = vae_jax.evaluate(model, trained[1].params, data.test.images, key, binarize="threshold")
for name, each in (("sum over pixels", test), ("mean over pixels", collapsed)):
    print(f"{name:16}  reconstruction {each['reconstruction']:6.2f}   KL {each['kl']:.4f}")
assert collapsed["kl"] < 0.05 * test["kl"]
assert collapsed["reconstruction"] > test["reconstruction"]

figure = Figure((8, 2), layout="constrained")
axes = figure.subplots()
for row, each in enumerate((collapsed, test)):
    axes.barh(row, each["reconstruction"], color="C0", label="reconstruction")
    axes.barh(row, each["kl"], left=each["reconstruction"], color="C1", label="KL")
axes.set_yticks([0, 1], ["mean over pixels", "sum over pixels"])
axes.set(xlabel="nats per image")
axes.set_title("The loss on test images, its KL term with its full weight", fontsize=10)
axes.legend(
    *(part[:2] for part in axes.get_legend_handles_labels()), fontsize=8, loc="upper left", bbox_to_anchor=(1, 1)
)
figure

# %% [markdown]
# Its KL is zero: every image has the same posterior, the prior. The code says nothing, and the decoder draws one
# image for all. This is **posterior collapse**. If your KL is near zero, look at the weights first.
#
# A weight on purpose has a name, $\beta$: loss = reconstruction + $\beta$ · KL. Lesson 5 turns it.
#
# ## Exercises
#
# 1. Which $\mu$ and $\sigma$ make the KL smallest? Show it by its gradient.
# 2. The loss of a grey image under the Bernoulli is not zero even if $p_j = x_j$ for every pixel. What is it, for a
#    pixel of 0.5?
# 3. A model reports a loss of −1,500 nats. Is that an error?
#
# <details markdown="1"><summary>Answers</summary>
#
# 1. $\partial / \partial \mu = \mu$ and $\partial / \partial \sigma = \sigma - 1 / \sigma$ are zero at $\mu = 0$,
#    $\sigma = 1$: the prior.
# 2. $-0.5 \log 0.5 - 0.5 \log 0.5 = 0.69$ nats. So grey pixels have a floor that has nothing to do with the model,
#    and such a loss compares with others like it only.
# 3. Not if the likelihood is a *density*, such as a Gaussian with a small $s$: a density can exceed 1, and its
#    logarithm 0. A Bernoulli on black and white pixels is a *mass*; there a negative loss would be an error.
#
# </details>
