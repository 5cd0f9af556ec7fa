"""Finite over the whole range of plausible inputs, right against float64, and the same compiled and eager."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.codecs.lossy import decoder_metric
from vae_jax.config import Settings
from vae_jax.data.dataset import Split
from vae_jax.errors import RunError
from vae_jax.measures.latent_space import decoder_gain
from vae_jax.models.autoencoders import build_model
from vae_jax.models.distributions import DiagonalGaussian
from vae_jax.models.likelihoods import make_likelihood
from vae_jax.models.objectives import free_bits_kl, importance_weighted_bound, keep_largest, kl_penalty, l1_penalty
from vae_jax.training.fit import fit

pytestmark = pytest.mark.optimised

LIKELIHOODS = ["bernoulli", "continuous_bernoulli", "gaussian", "learned_gaussian", "squared_error"]
MODELS = [("vae", name) for name in LIKELIHOODS[:-1]] + [("ae", name) for name in LIKELIHOODS]
EXTREMES = np.float32([-1e4, -1e3, -88.8, -1.0, -1e-4, 0.0, 1e-30, 0.5, 16.7, 103.9, 1e3, 1e4])
PIXELS = np.float32([0, 1 / 255, 0.5, 1])


def grid(*axes):
    """Every combination of the values, each a batch of images of one pixel: [n, 1, 1, 1]."""
    return [values.reshape(-1, 1, 1, 1) for values in np.meshgrid(*axes, indexing="ij")]


def loss_in_float64(name, parameters, x):
    """Of one pixel: by the formulas, with the parameters of the decoder as they are."""
    p, x = parameters.astype(np.float64), x.astype(np.float64)
    mean = p[..., :1]
    bernoulli = np.logaddexp(0, mean) - x * mean
    if name == "bernoulli":
        return bernoulli
    if name == "continuous_bernoulli":
        a = np.abs(mean)
        with np.errstate(all="ignore"):
            log_normaliser = np.where(a < 1e-3, math.log(2) + a**2 / 12, np.log(a) - np.log(np.tanh(a / 2)))
        return bernoulli - log_normaliser
    if name == "squared_error":
        return (x - mean) ** 2
    log_sigma = np.log(np.float64(np.float32(0.1))) if name == "gaussian" else 6 * np.tanh(p[..., 1:] / 6)
    return 0.5 * ((x - mean) * np.exp(-log_sigma)) ** 2 + log_sigma + 0.5 * math.log(2 * math.pi)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_the_loss_of_any_output_and_pixel_is_right_and_its_gradient_finite(name):
    likelihood = make_likelihood(name, 0.1)
    if name == "learned_gaussian":
        mean, raw, x = grid(EXTREMES, EXTREMES, PIXELS)
        parameters = np.concatenate([mean, raw], axis=-1)
    else:
        parameters, x = grid(EXTREMES, PIXELS)

    def total(parameters):
        each = likelihood.reconstruction_loss(parameters, jnp.asarray(x))
        return jnp.sum(each), each

    (_, each), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(parameters)
    expected = loss_in_float64(name, parameters, x)[:, 0, 0, 0]
    # Where a large part is taken from another, what is left has their rounding.
    np.testing.assert_allclose(each, expected, rtol=2e-5, atol=1e-4)
    assert np.isfinite(gradient).all()
    mean = np.asarray(likelihood.mean(jnp.asarray(parameters)))
    assert np.isfinite(mean).all()
    if "bernoulli" in name:
        assert ((mean >= 0) & (mean <= 1)).all()


@pytest.mark.parametrize("raw", [-1e3, -16.0, 0.0, 1e-20, 16.0, 1e3])
@pytest.mark.parametrize("mean", [-1e4, -1e-20, 0.0, 5.0, 1e4])
def test_a_posterior_of_any_features_has_finite_values_and_gradients(mean, raw):
    def terms(features):
        q = DiagonalGaussian.from_features(features)
        z = q.sample(jax.random.key(0))
        return q.kl()[0], q.log_prob(z)[0], free_bits_kl(q.kl_per_dimension(), 0.5, jnp.ones(1))[0], z[0, 0]

    features = jnp.float32([[mean, raw]])
    for value, gradient in zip(terms(features), jax.jacrev(terms)(features), strict=True):
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()
    logvar = 15 * np.tanh(raw / 15)
    expected = 0.5 * (mean**2 + np.expm1(logvar) - logvar)
    np.testing.assert_allclose(terms(features)[0], expected, rtol=2e-5, atol=1e-7)


IMAGES = {
    "black": np.zeros((6, 4, 4, 1), np.uint8),
    "white": np.full((6, 4, 4, 1), 255, np.uint8),
    "grey": np.full((6, 4, 4, 1), 100, np.uint8),
}


def make(kind, likelihood, latent_dim, **changes):
    settings = Settings(
        model=kind, likelihood=likelihood, latent_dim=latent_dim, hidden_sizes=(8,), epochs=2, batch_size=3, **changes
    )
    model = build_model(settings, (4, 4, 1))
    return settings, model, model.init(jax.random.key(0))


@pytest.mark.parametrize(
    ("kind", "likelihood", "latent_dim"), [(*pair, dim) for i, pair in enumerate(MODELS) for dim in [(1, 512)[i % 2]]]
)
def test_every_model_has_finite_losses_and_gradients_on_constant_images(kind, likelihood, latent_dim):
    _, model, params = make(kind, likelihood, latent_dim)
    keys = jax.random.split(jax.random.key(1), 6)

    @jax.jit
    def value_and_gradient(params, x):
        return jax.value_and_grad(lambda params: jnp.sum(model.loss_terms(params, x, keys).objective))(params)

    far = jax.tree.map(lambda leaf: 30 * leaf, params)  # outputs of some thousands
    for name, images in IMAGES.items():
        x = jnp.float32(images) / 255
        for leaf in jax.tree.leaves([value_and_gradient(params, x), value_and_gradient(far, x)]):
            assert np.isfinite(leaf).all(), name


def finite_training(settings, model, images):
    """Train: whether it was refused as not finite; what it gives must be finite."""
    split = Split(images, None)
    try:
        result = fit(model, split, split, settings)
    except RunError as error:
        assert "is not finite at step" in str(error)  # noqa: PT017 (both ends are right)
        return True
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result.params))
    rows = [value for row in result.history for value in (*row["train"].values(), *row["validation"].values())]
    assert np.isfinite(rows).all()
    return False


SOME = [("vae", "learned_gaussian")]
rest = [pytest.param(*pair, marks=pytest.mark.slow) for pair in MODELS if pair not in SOME]


@pytest.mark.parametrize(("kind", "likelihood"), [*SOME, *rest])
def test_images_that_are_all_the_same_are_learned(kind, likelihood):
    settings, model, _ = make(kind, likelihood, 1)
    assert not any(finite_training(settings, model, images) for images in (IMAGES["black"], IMAGES["white"]))


@pytest.mark.parametrize(("kind", "likelihood"), [*SOME, *rest])
def test_an_absurd_learning_rate_ends_in_a_line_or_in_numbers(kind, likelihood):
    images = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 1), dtype=np.uint8)
    settings, model, _ = make(kind, likelihood, 2)
    for rate in (1e3, 1e30):
        absurd = dataclasses.replace(settings, learning_rate=rate, gradient_clip=0.0, epochs=5)
        assert finite_training(absurd, model, images) or rate < 1e30


# XLA's CPU compiler has mistaken a constant cotangent that is multiplied and reduced: compiled against eager.


def check_compiled(function, *arguments):
    with jax.disable_jit():
        expected = function(*arguments)
    for ours, theirs in zip(jax.tree.leaves(jax.jit(function)(*arguments)), jax.tree.leaves(expected), strict=True):
        scale = max(1.0, float(np.abs(theirs).max(initial=0)))
        assert np.isfinite(ours).all()
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-5 * scale)


def random(*shape, seed=0):
    return jnp.float32(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.parametrize(("kind", "likelihood"), [*MODELS[:4], ("ae", "squared_error")])
def test_compiled_objectives_are_the_eager_ones(kind, likelihood):
    _, model, params = make(kind, likelihood, 3)
    x = jax.nn.sigmoid(2 * random(33, 4, 4, 1))
    keys, weights = jax.random.split(jax.random.key(2), 33), (jnp.arange(33) < 30).astype(jnp.float32)

    def objective(params):
        terms = model.loss_terms(params, x, keys, 0.7, 0.3, weights)
        return jnp.sum(terms.objective * weights) / jnp.sum(weights), terms

    check_compiled(jax.value_and_grad(objective, has_aux=True), params)


def kl(mean, raw):
    return DiagonalGaussian.from_features(jnp.concatenate([mean, raw], -1)).kl_per_dimension()


HALF = jnp.float32(0.5)
OBJECTIVES = {
    "kl": lambda h: jnp.sum(kl(h, h)),
    "free bits": lambda h: jnp.mean(free_bits_kl(kl(h, h), 0.5, jnp.ones(len(h)))),
    "IWAE bound": lambda h: jnp.sum(importance_weighted_bound(h)),
    "l1": lambda h: jnp.sum(l1_penalty(h)),
    "kl penalty": lambda h: jnp.mean(kl_penalty(jax.nn.sigmoid(h), 0.05, jnp.ones(len(h)))),
    "top k": lambda h: jnp.sum(keep_largest(h, 0.3) ** 2),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_compiled_penalties_behind_a_product_are_the_eager_ones(name):
    # The shape of the fault: a product of matrices before, a constant cotangent after.
    def penalty(weight, x):
        return OBJECTIVES[name](x @ weight * HALF)

    check_compiled(jax.value_and_grad(penalty), random(32, 16, seed=1), random(65, 32))


@pytest.mark.parametrize("likelihood", LIKELIHOODS[:-1])
def test_the_decoders_jacobian_is_that_of_finite_differences(likelihood):
    _, model, params = make("vae", likelihood, 2)
    z = np.asarray(random(101, 2))
    gain, metric = decoder_gain(model, params, z), decoder_metric(model, params, z)
    jacobians = []
    with jax.disable_jit():
        for one in np.eye(2, dtype=np.float32) * 1e-2:
            ahead, behind = (np.asarray(model.decode_mean(params, z + sign * one), np.float64) for sign in (1, -1))
            jacobians.append((ahead - behind).reshape(101, -1) / 2e-2)
    jacobian = np.stack(jacobians, axis=-1)
    np.testing.assert_allclose(gain, np.linalg.norm(jacobian, 2, axis=(1, 2)), rtol=5e-3)
    expected = np.einsum("npi,npj->ij", jacobian, jacobian) / 101 / jacobian.shape[1]
    np.testing.assert_allclose(metric, expected, rtol=5e-3, atol=1e-5)
