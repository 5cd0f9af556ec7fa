# %% [markdown]
# # 5 The latent space
#
# A trained VAE gives each image a place in a space of codes. This lesson walks through that space: is it continuous,
# is it complete, where do the digits lie, and what does the weight $\beta$ do to it?

# %%
import os

import jax
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import norm

import vae_jax
from vae_jax import plots
from vae_jax.measures.dimensionality import knn_accuracy
from vae_jax.measures.latent_space import decoder_gain, distance_from_prior, robust_spread
from vae_jax.measures.traversal import linear_interpolation
from vae_jax.models.codes import Codes
from vae_jax.training.many import fit_many

QUICK = "VAE_JAX_QUICK" in os.environ  # a short form, by which the lesson is tested
data = vae_jax.load_dataset(os.environ.get("VAE_JAX_LESSON_DATA", "digits"))
test, labels = data.test.images, data.test.labels
key = jax.random.key(0)

# %% [markdown]
# We train four models with two numbers in the code: an autoencoder, and VAEs with three weights of the KL term,
#
# $$\text{loss} = \text{reconstruction} + \beta \cdot \text{KL} .$$
#
# $\beta = 1$ is the bound of lesson 3. Models that differ in such a number only are trained together, in one program.

# %%
common = {
    "latent_dim": 2,
    "hidden_sizes": (64,) if QUICK else (256, 128),
    "steps": 800 if QUICK else 2000,
    "batch_size": 64 if QUICK else 128,
    "learning_rate": 1e-2 if QUICK else 3e-3,
}
BETAS = [0.1, 1.0, 2.0]
members = [vae_jax.Settings(**common, beta=beta) for beta in BETAS]
vae = vae_jax.build_model(members[0], data.image_shape)
trained = [result.params for result in fit_many(vae, data.train, data.validation, members)]
params = trained[1]

as_ae = vae_jax.Settings(**common, model="ae")
ae = vae_jax.build_model(as_ae, data.image_shape)
ae_params = vae_jax.fit(ae, data.train, data.validation, as_ae).params

means, logvars = vae_jax.encode_images(vae, params, test, key)
ae_codes, _ = vae_jax.encode_images(ae, ae_params, test, key)

# %% [markdown]
# ## A place, and how sure of it
#
# The encoder of a VAE gives a mean and a standard deviation. Points are the means of the test images; the circles are
# the posteriors of some of them, at two standard deviations. Inside its circle, an image's code is drawn anew each
# time.

# %%
some = np.arange(0, 300, 20)
circles = means[some], np.stack([np.diag(variances) for variances in np.exp(logvars[some])])
plots.latent_means(means, labels, "Latent means of the test images, by digit, and some posteriors", ellipses=circles)

# %% [markdown]
# ## Means by digit
#
# No label was used, but each digit has its region. Average the means of each digit, and decode these ten points: each
# is a typical image.

# %%
centres = np.stack([means[labels == digit].mean(axis=0) for digit in range(10)])
typical = np.asarray(vae.decode_mean(params, centres))
train_means, _ = vae_jax.encode_images(vae, params, data.train.images[:5000], key)
accuracy = knn_accuracy(train_means, data.train.labels[:5000], means, labels, neighbours=5)
print(f"the five nearest means name the digit of {accuracy:.0%} of the test images; guessing names 10%")
assert accuracy > 0.3
plots.conditions(typical[None], [""], "What the mean of each digit decodes to, 0 to 9")

# %% [markdown]
# ## Complete: the grid
#
# The prior $\mathcal{N}(0, I)$ says where codes are to be expected. A latent space is **complete** if what is drawn
# from there decodes to an image. Look everywhere: let the grid's columns and rows stand at equal steps of
# probability, from 2% to 98% of the prior, and decode each point.

# %%
side = 12 if not QUICK else 5
places = norm.ppf(np.linspace(0.02, 0.98, side)).astype(np.float32)
grid = np.stack(np.meshgrid(places, places), axis=-1).reshape(-1, 2)
decoded = np.asarray(vae.decode_mean(params, grid)).reshape(side, side, *data.image_shape)
plots.latent_grid(decoded, places, places, "The VAE's plane, decoded")

# %% [markdown]
# And do the codes of real images fill that region? Measure the distance between their distribution and the prior, in
# standard deviations of the prior (the sliced Wasserstein distance). The autoencoder never heard of a prior.

# %%
draws = means + np.exp(0.5 * logvars) * np.random.default_rng(0).normal(size=means.shape)
distances = {"AE": distance_from_prior(ae_codes), "VAE": distance_from_prior(draws)}
for name, distance in distances.items():
    print(f"{name:4} codes are {distance:.2f} standard deviations from N(0, I)")
assert distances["VAE"] < 0.5 * distances["AE"]

# %% [markdown]
# ## Continuous: small steps
#
# A latent space is **continuous** if a small step changes the image a little. The decoder is a continuous function,
# so it always is, in a way. What counts is how *fast* the image changes. The **gain** of the decoder is the largest
# singular value of its Jacobian, $\lVert \partial d / \partial z \rVert$: how far the image moves for a step of the
# code. For a fair comparison a step is as long as the codes are spread.

# %%
chosen = slice(0, 200)
gains = {
    "AE": decoder_gain(ae, ae_params, ae_codes[chosen], robust_spread(ae_codes)),
    "VAE": decoder_gain(vae, params, means[chosen], robust_spread(means)),
}
for name, gain in gains.items():
    print(f"{name:4} gain: median {np.median(gain):.1f}, largest {gain.max():.1f}")
assert np.median(gains["AE"]) > np.median(gains["VAE"])

# %% [markdown]
# The AE's image changes faster. The VAE has to be slower: a code is drawn anew at each step of training, and its
# neighbours had to decode to the same image. Now walk from one test image to another, in a straight line.

# %%
pairs = [np.flatnonzero(labels == digit)[0] for digit in (0, 1, 4, 7)]
ends = np.array(pairs).reshape(2, 2)
ways = []
for model, its_params, codes in ((ae, ae_params, ae_codes), (vae, params, means)):
    way = linear_interpolation(codes[ends[:, 0]], codes[ends[:, 1]], 9)
    ways.append(np.asarray(model.decode_mean(its_params, way.reshape(-1, 2))).reshape(2, 9, *data.image_shape))
names = [f"{labels[a]} to {labels[b]}" for a, b in ends]
plots.interpolations(
    test[ends] / 255, np.stack(ways, axis=1), names, ["AE", "VAE"], "The way from one image to another"
)

# %% [markdown]
# ## The weight of the KL term
#
# Now the three weights. A small $\beta$ lets the encoder be precise: it rebuilds better, and uses more nats to say
# which image it saw. A large one makes it vague.

# %%
rows = []
for beta, each in zip(BETAS, trained, strict=True):
    scores = vae_jax.evaluate(vae, each, test, key)
    codes = Codes.of(*vae_jax.encode_images(vae, each, test, key))
    rows.append((scores["reconstruction"], scores["kl"], codes.relative_sigma(), codes.means))
    print("beta {:3g}: reconstruction {:6.2f}, KL {:5.2f}, sigma {:.1%} of the spread".format(beta, *rows[-1]))
reconstructions, kls, sigmas, _ = zip(*rows, strict=True)
assert kls[0] > kls[1] > kls[2], "a larger weight buys less KL"
assert reconstructions[0] < reconstructions[2], "and costs reconstruction"
assert sigmas[0] < sigmas[1] < sigmas[2], "the circles grow until they touch"

figure = Figure((9, 3.2), layout="constrained")
figure.suptitle("Latent means of the test images, by digit", fontsize=11)
for axes, beta, row in zip(figure.subplots(1, 3, sharex=True, sharey=True), BETAS, rows, strict=True):
    axes.scatter(*row[3].T, s=3, c=labels, cmap="tab10")
    axes.set(title=rf"$\beta$ = {beta:g}: KL {row[1]:.1f} nats", aspect="equal", xlim=(-4, 4), ylim=(-4, 4))
figure

# %% [markdown]
# None of them is best. $\beta = 1$ alone is a bound of the likelihood; a smaller one gives sharper reconstructions
# and a space with holes, as an AE's; a larger one a smooth space with blurred images. With more than two dimensions,
# a large $\beta$ switches some of them off: their posteriors are the prior.
#
# ## Exercises
#
# 1. The grid's columns stand at equal steps of *probability*. What would the outer columns show at equal steps of $z$
#    from −4 to 4?
# 2. Why do neighbouring regions in the plane often hold digits that look alike, such as 4, 7 and 9?
# 3. Train with `beta=0`. What is $\sigma$, and which model of lesson 1 have you built?
#
# <details markdown="1"><summary>Answers</summary>
#
# 1. Places that the prior hardly ever draws and where hardly any training image lies: distorted digits, as nothing
#    was asked of the decoder there.
# 2. Where circles overlap, the decoder can't know which of the images it was, and draws between them. That costs
#    least if the images are alike.
# 3. It shrinks towards zero, as noise only harms the reconstruction. With $\sigma = 0$ the draw is the mean: an
#    autoencoder.
#
# </details>
