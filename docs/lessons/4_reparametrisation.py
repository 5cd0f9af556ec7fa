# %% [markdown]
# # 4 Reparametrisation
#
# The loss of lesson 3 holds a random draw: $z \sim \mathcal{N}(\mu, \sigma^2)$, where $\mu$ and $\sigma$ come from
# the encoder. To train the encoder we need the gradient of the loss in $\mu$ and $\sigma$. But how does one
# differentiate a dice roll? In this lesson the gradient first does not come, and then it comes.

# %%
import os

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import vae_jax
from vae_jax.models.objectives import ELBO, Terms

QUICK = "VAE_JAX_QUICK" in os.environ  # a short form, by which the lesson is tested
data = vae_jax.load_dataset(os.environ.get("VAE_JAX_LESSON_DATA", "digits"))

# %% [markdown]
# ## The smallest example
#
# Forget images. Let $z \sim \mathcal{N}(\mu, \sigma^2)$ be one number, and let the loss be its squared distance from
# 3. Its expectation is
#
# $$L(\mu, \sigma) = \mathbb{E}\left[(z - 3)^2\right] = (\mu - 3)^2 + \sigma^2,
# \qquad \frac{\partial L}{\partial \mu} = 2 (\mu - 3), \qquad \frac{\partial L}{\partial \sigma} = 2 \sigma .$$
#
# So here we know the truth. At $\mu = 1$, $\sigma = 0.5$ it is $-4$ and $1$. A network has no such formula: it sees a
# draw, and the loss of that draw. Let us see what that tells us.

# %%
MU, SIGMA = 1.0, 0.5
TRUTH = np.array([2 * (MU - 3), 2 * SIGMA])


def f(z):
    return (z - 3) ** 2


def drawn_elsewhere(mu, sigma):
    return f(np.random.default_rng(0).normal(mu, sigma))


try:
    jax.grad(drawn_elsewhere)(MU, SIGMA)
    refused = False
except jax.errors.TracerArrayConversionError as error:
    refused = True
    print("JAX refuses:", str(error).split("\n")[0])
assert refused

# %% [markdown]
# NumPy's generator wants numbers, and gives a number back. How that number would have changed with $\mu$ it does not
# say. JAX notices. Where a draw is simply taken as a constant, nothing complains, and this comes out:


# %%
def drawn_as_constant(mu, sigma, key):
    z = jax.lax.stop_gradient(mu + sigma * jax.random.normal(key))
    return f(z)


keys = jax.random.split(jax.random.key(0), 5000)


def gradients(loss):
    return np.stack(jax.vmap(lambda key: jnp.stack(jax.grad(loss, (0, 1))(MU, SIGMA, key)))(keys))


none = gradients(drawn_as_constant)
print("mean gradient:", none.mean(axis=0), " truth:", TRUTH)
assert np.all(none == 0)

# %% [markdown]
# Zero: not small, but zero. The loss depends on $z$, but on the way from $\mu$ to $z$ there is nothing to
# differentiate. This is **the gradient that does not come**.
#
# ## Move the dice out of the way
#
# A draw from $\mathcal{N}(\mu, \sigma^2)$ can be made in two steps: draw noise that has nothing to do with the
# parameters, then compute.
#
# $$\zeta \sim \mathcal{N}(0, 1), \qquad z = \mu + \sigma \zeta$$
#
# It has the same distribution. But now $z$ is a *function* of $\mu$ and $\sigma$, with $\partial z / \partial \mu =
# 1$ and $\partial z / \partial \sigma = \zeta$; the noise is only an input. This is the **reparametrisation** (Kingma
# & Welling 2014; Rezende et al. 2014). The code differs by one call.


# %%
def reparametrised(mu, sigma, key):
    z = mu + sigma * jax.random.normal(key)
    return f(z)


def standard_errors(samples):
    return samples.std(axis=0) / np.sqrt(len(samples))


through = gradients(reparametrised)
print("mean gradient:", through.mean(axis=0).round(2), " truth:", TRUTH)
assert np.all(np.abs(through.mean(axis=0) - TRUTH) < 5 * standard_errors(through))

# %% [markdown]
# **It comes**, and on average it is right.
#
# ## The other way, and why it is not used
#
# There is a way without a path through $z$: $\nabla \mathbb{E}[f(z)] = \mathbb{E}[f(z) \, \nabla \log q(z)]$, the
# **score function** (Williams 1992). It asks only for the value of the loss, which is why reinforcement learning uses
# it. It is right on average, too. But look at how the single gradients scatter.


# %%
def score_function(mu, sigma, key):
    z = jax.lax.stop_gradient(mu + sigma * jax.random.normal(key))
    log_q = -0.5 * ((z - mu) / sigma) ** 2 - jnp.log(sigma)
    return f(z) * log_q  # its gradient is f(z) times that of log q, as z is held


scores = gradients(score_function)
ratio = scores.var(axis=0) / through.var(axis=0)
print("mean gradient:", scores.mean(axis=0).round(2), " truth:", TRUTH)
print(f"for the same precision it needs {ratio[0]:.0f} times the draws for the mean, {ratio[1]:.0f} times for sigma")
assert np.all(np.abs(scores.mean(axis=0) - TRUTH) < 5 * standard_errors(scores))
assert ratio.min() > 5

figure = Figure((7.5, 2.8), layout="constrained")
figure.suptitle("Gradients from single draws: both are right on average", fontsize=11)
for axes, i, name in zip(figure.subplots(1, 2), (0, 1), (r"$\mu$", r"$\sigma$"), strict=True):
    edges = np.linspace(*np.percentile(scores[:, i], [1, 99]), 60)
    axes.hist(scores[:, i], edges, density=True, alpha=0.6, label="score function")
    axes.hist(through[:, i], edges, density=True, alpha=0.6, label="reparametrised")
    axes.axvline(TRUTH[i], color="black", label="truth")
    axes.set(xlabel=f"derivative in {name}", yticks=[])
figure.axes[0].legend(fontsize=8)
figure

# %% [markdown]
# With one dimension it is tens of times as noisy; with the hundreds of pixels of an image it is thousands of times
# (`python -m experiments.reparametrisation` measures it). A step of training sees one draw for each image. So noise
# matters.
#
# ## In the autoencoder
#
# The same for a VAE. How much of the reconstruction loss reaches the encoder?

# %%
settings = vae_jax.Settings(
    latent_dim=2,
    hidden_sizes=(64,) if QUICK else (256, 128),
    steps=700 if QUICK else 2000,
    batch_size=32 if QUICK else 128,
    learning_rate=1e-2 if QUICK else 3e-3,
)
model = vae_jax.build_model(settings, data.image_shape)
params = model.init(jax.random.key(1))
x = jnp.asarray(data.train.images[:64], jnp.float32) / 255


def reconstruction(params, held):
    z = model.encode(params, x).sample(jax.random.key(2))
    z = jax.lax.stop_gradient(z) if held else z
    return jnp.mean(model.likelihood.reconstruction_loss(model.decode(params, z), x))


def size(gradient):
    return float(jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient))))


for held, name in ((True, "draw taken as a constant"), (False, "reparametrised")):
    gradient = jax.grad(reconstruction)(params, held)
    print(f"{name:26} encoder {size(gradient['encoder']):.4f}, decoder {size(gradient['decoder']):.4f}")
    assert (size(gradient["encoder"]) == 0) == held
    assert size(gradient["decoder"]) > 0

# %% [markdown]
# ## What becomes of a VAE without it
#
# We can train one. An objective of your own is a class with one method; this one is the library's, with the path cut.


# %%
class WithoutPath(ELBO):
    def __call__(self, model, params, batch, step, statistics=None):
        posterior = model.encode(params, batch.inputs)
        z = jax.lax.stop_gradient(posterior.sample(batch.keys))
        reconstruction = model.likelihood.reconstruction_loss(model.decode(params, z), batch.x)
        return Terms(reconstruction + posterior.kl(), reconstruction, posterior.kl())


results, planes = {}, {}
for name, objective in (("with the path", None), ("without the path", WithoutPath())):
    params = vae_jax.fit(model, data.train, data.validation, settings, objective=objective).params
    results[name] = vae_jax.evaluate(model, params, data.test.images, jax.random.key(3))
    planes[name], _ = vae_jax.encode_images(model, params, data.test.images, jax.random.key(3))
    print(f"{name:17}", ", ".join(f"{term} {value:.2f}" for term, value in results[name].items()))

assert results["without the path"]["kl"] < 0.1 < results["with the path"]["kl"]
assert results["without the path"]["loss"] > results["with the path"]["loss"]

# %% [markdown]
# Without the path the encoder hears of one term only, the KL. It does what that asks: $\mu = 0$, $\sigma = 1$, for
# every image. Then $z$ says nothing of the image, and the decoder draws the same mean image for all. With the path
# the images spread out.

# %%
figure = Figure((8, 3.6), layout="constrained")
figure.suptitle("Latent means of the test images, by digit", fontsize=11)
for axes, (name, means) in zip(figure.subplots(1, 2, sharex=True, sharey=True), planes.items(), strict=True):
    axes.scatter(*means.T, s=4, c=data.test.labels, cmap="tab10")
    axes.set(title=name, xlabel="$z_1$", ylabel="$z_2$", aspect="equal")
figure

# %% [markdown]
# In the library the draw is `DiagonalGaussian.sample`; it is the one line `mean + exp(0.5 * logvar) * noise`. The
# network gives $\log \sigma^2$ rather than $\sigma$, so that any number it says is allowed.
#
# ## Exercises
#
# 1. Where in `reparametrised` would the gradient get lost if you rounded $z$ to an integer?
# 2. Subtract a constant $b$ from the loss in `score_function`: $(f(z) - b)\,\nabla \log q(z)$. Why is it still right
#    on average? Which $b$ makes it less noisy?
# 3. A latent that is a *category* (one of ten) can't be written as $\mu + \sigma \zeta$. What could be done?
#
# <details markdown="1"><summary>Answers</summary>
#
# 1. The derivative of rounding is zero nearly everywhere, so nothing passes. Codes on a grid need a trick of their
#    own, such as pretending that rounding has the derivative 1 (van den Oord et al. 2017).
# 2. $\mathbb{E}[\nabla \log q(z)] = \nabla \int q(z) \, dz = \nabla 1 = 0$. A good $b$ is near the mean of $f(z)$:
#    then the factor is positive for good draws, negative for bad ones.
#    `vae_jax.measures.gradients.score_function_gradient` takes one.
# 3. Sum over all ten, each with its probability, where that is affordable; use the score function; or draw a soft
#    version of the category that is differentiable (Jang et al. 2017; Maddison et al. 2017).
#
# </details>
