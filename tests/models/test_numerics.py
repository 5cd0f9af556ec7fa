"""Finite over the whole range of plausible inputs, right against float64, and the same compiled and eager."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from vae_jax.codecs.lossy import decoder_metric
from vae_jax.config import Settings
from vae_jax.data.dataset import Split
from vae_jax.errors import RunError
from vae_jax.measures.latent_space import decoder_gain
from vae_jax.models.autoencoders import build_model
from vae_jax.models.distributions import DiagonalGaussian
from vae_jax.models.objectives import importance_weighted_bound, keep_largest, kl_penalty, l1_penalty
from vae_jax.registry import LIKELIHOODS
from vae_jax.training.fit import fit

MODELS = [("vae", name) for name in LIKELIHOODS if name != "squared_error"] + [("ae", name) for name in LIKELIHOODS]
EXTREMES = np.float32([-1e4, -1e3, -88.8, -1.0, -0.5, -1e-4, 0.0, 1e-30, 0.3, 0.51, 16.7, 103.9, 1e3, 1e4])
PIXELS = np.float32([0, 1 / 255, 0.5, 1])


QUICK = ("bernoulli", "learned_gaussian", "logistic_mixture")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.optimised if name in QUICK else ()) for name in LIKELIHOODS]
)
def test_the_loss_of_any_output_and_pixel_is_right_and_its_gradient_finite(name):
    likelihood = LIKELIHOODS.make(name, Settings(), (1, 1, 1))
    number = likelihood.complete(jnp.zeros((1, 1, 1, likelihood.parameters)), likelihood.init()).shape[-1]
    pixels = np.float32(np.rint(255 * PIXELS) / 255) if likelihood.levels else PIXELS
    if number <= 2:
        *parameters, x = np.meshgrid(*[EXTREMES] * number, pixels, indexing="ij")
    else:  # some of the many combinations
        rng = np.random.default_rng(0)
        *parameters, x = *rng.choice(EXTREMES, (number, 2000)), rng.choice(pixels, 2000)
    parameters, x = np.stack(parameters, axis=-1).reshape(-1, 1, 1, number), x.reshape(-1, 1, 1, 1)

    def total(parameters):
        each = likelihood.reconstruction_loss(parameters, jnp.asarray(x))
        return jnp.sum(each), each

    (_, each), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(parameters)
    expected = oracles.reconstruction_loss(name, parameters, x)[:, 0, 0, 0]
    # Where a large part is taken from another, what is left has their rounding.
    np.testing.assert_allclose(each, expected, rtol=2e-5, atol=1e-4)
    assert np.isfinite(gradient).all()
    mean = np.asarray(likelihood.mean(jnp.asarray(parameters)))
    assert np.isfinite(mean).all()
    if likelihood.levels:
        assert ((mean >= 0) & (mean <= 1)).all()
    if "bernoulli" in name:
        assert ((mean >= 0) & (mean <= 1)).all()
        # The score of an exponential family: x - mean.
        np.testing.assert_allclose(-gradient, x - mean, atol=2e-4)


@pytest.mark.parametrize("raw", [-1e30, -16.0, 0.0, 1e-20, 16.0, 1e30])
@pytest.mark.parametrize("mean", [-1e4, -1e-20, 0.0, 5.0, 1e4])
def test_a_posterior_of_any_features_has_finite_values_and_gradients(mean, raw):
    def terms(features):
        q = DiagonalGaussian.from_features(features)
        z = q.sample(jax.random.key(0))
        return q.kl()[0], q.log_prob(z)[0], z[0, 0]

    features = jnp.float32([[mean, raw]])
    for value, gradient in zip(terms(features), jax.jacrev(terms)(features), strict=True):
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()
    logvar = 15 * np.tanh(raw / 15)
    assert terms(features)[0] >= 0
    expected = 0.5 * (mean**2 + np.expm1(logvar) - logvar)
    np.testing.assert_allclose(terms(features)[0], expected, rtol=2e-5, atol=1e-7)


def make(kind, likelihood, latent_dim):
    settings = Settings(
        model=kind, likelihood=likelihood, latent_dim=latent_dim, hidden_sizes=(8,), epochs=2, batch_size=3
    )
    return settings, build_model(settings, (4, 4, 1))


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
    settings, model = make(kind, likelihood, 1)
    assert not any(finite_training(settings, model, np.full((6, 4, 4, 1), v, np.uint8)) for v in (0, 255))


@pytest.mark.parametrize(("kind", "likelihood"), [*SOME, *rest])
def test_an_absurd_learning_rate_ends_in_a_line_or_in_numbers(kind, likelihood):
    images = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 1), dtype=np.uint8)
    settings, model = make(kind, likelihood, 2)
    for rate in (1e3, 1e30):
        absurd = dataclasses.replace(settings, learning_rate=rate, gradient_clip=0.0, epochs=5)
        assert finite_training(absurd, model, images) or rate < 1e30


def random(*shape, seed=0):
    return jnp.float32(np.random.default_rng(seed).normal(size=shape))


def kl(h):
    return DiagonalGaussian.from_features(jnp.concatenate([h, h], -1)).kl_per_dimension()


HALF = jnp.float32(0.5)
PENALTIES = {
    "kl": lambda h: jnp.sum(kl(h)),
    "free bits": lambda h: jnp.sum(jnp.maximum(0.5, jnp.mean(kl(h), axis=0))),
    "IWAE bound": lambda h: jnp.sum(importance_weighted_bound(h)),
    "l1": lambda h: jnp.sum(l1_penalty(h)),
    "kl penalty": lambda h: kl_penalty(jnp.mean(jax.nn.sigmoid(h), axis=0), 0.05),
    "top k": lambda h: jnp.sum(keep_largest(h, 0.3) ** 2),
}


@pytest.mark.optimised
@pytest.mark.parametrize("name", PENALTIES)
def test_compiled_penalties_behind_a_product_are_the_eager_ones(name):
    # XLA's CPU compiler has mistaken a constant cotangent that is multiplied and reduced: a product of matrices
    # before, the constant after.
    function = jax.value_and_grad(lambda weight, x: PENALTIES[name](x @ weight * HALF))
    arguments = random(32, 16, seed=1), random(65, 32)
    with jax.disable_jit():
        expected = function(*arguments)
    for ours, theirs in zip(jax.tree.leaves(jax.jit(function)(*arguments)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-5 * max(1.0, float(np.abs(theirs).max())))


@pytest.mark.parametrize(
    "likelihood",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in LIKELIHOODS
        if name != "squared_error"
    ],
)
def test_the_decoders_jacobian_is_that_of_finite_differences(likelihood):
    _, model = make("vae", likelihood, 2)
    params, z = model.init(jax.random.key(0)), np.asarray(random(101, 2))
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
