"""Likelihoods of 8-bit pixels: masses that add up to 1, means and samples that are theirs, starts near the data."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from scipy import special, stats

from vae_jax.combinations import check_settings
from vae_jax.config import Settings
from vae_jax.errors import UsageError
from vae_jax.models.discretized import DiscretizedLogistic, log_ndtr, softplus
from vae_jax.registry import LIKELIHOODS

NAMES = ["discretized_logistic", "logistic_mixture", "discretized_gaussian", "beta_binomial"]
LEVELS = np.float32(np.arange(256) / 255)
RNG = np.random.default_rng(0)


def made(name, channels=1, **settings):
    return LIKELIHOODS.make(name, Settings(**settings), (4, 4, channels))


def parameters_of(likelihood, number):
    """From plain to narrow and far out, [number, 1, 1, parameters * channels]."""
    blocks = RNG.uniform(-12, 3, (number, likelihood.parameters, likelihood.channels))
    components = getattr(likelihood, "components", 1)
    blocks[:, :components] = RNG.uniform(-0.5, 1.5, blocks[:, :components].shape)
    if likelihood == made("beta_binomial"):
        blocks[:, 0] *= 8
    return np.float32(blocks.reshape(number, 1, 1, -1))


@pytest.mark.parametrize("name", NAMES)
def test_the_masses_of_all_levels_add_up_to_1_and_are_those_of_the_oracle(name):
    likelihood = made(name)
    # One image an image of parameters, whose row holds all levels.
    parameters = np.repeat(parameters_of(likelihood, 100), 256, axis=0)
    x = np.tile(LEVELS, 100).reshape(-1, 1, 1, 1)
    found = np.asarray(jax.jit(likelihood.log_prob)(parameters, x), np.float64)
    wanted = oracles.eight_bit_log_mass(name, np.float64(parameters), np.float64(x)).ravel()
    # At the least scale, a twelfth of a level, the rounding of pixels and means to float32 is what is left.
    np.testing.assert_allclose(np.exp(found).reshape(100, 256).sum(axis=1), 1, atol=1e-4)
    np.testing.assert_allclose(found, wanted, rtol=1e-4 if name == "beta_binomial" else 1e-5, atol=5e-4)


def test_the_masses_of_all_greens_and_blues_add_up_to_that_of_their_red():
    likelihood = made("discretized_logistic", 3)
    assert likelihood == DiscretizedLogistic(3, conditioned=True)
    parameters = np.float32([0.4, 0.5, 0.3, -4.5, -4.2, -4.4, 0.9, 0.5, -0.4])
    of_all = jnp.broadcast_to(parameters, (256, 256, 1, 9))
    green, blue = np.meshgrid(LEVELS, LEVELS, indexing="ij")
    mass = jax.jit(lambda x: jnp.sum(jnp.exp(likelihood.log_prob(of_all[:, :, None], x[:, :, None, None]))))
    for red in LEVELS[[0, 100, 255]]:
        given = jnp.asarray(parameters[[0, 3]].reshape(1, 1, 1, 2)), jnp.full((1, 1, 1, 1), red)
        alone = made("discretized_logistic").log_prob(*given)
        found = float(mass(np.stack([np.full_like(green, red), green, blue], axis=-1)))
        assert found == pytest.approx(float(jnp.exp(alone)[0]), rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_samples_of_colour_are_levels_with_the_mean_that_is_told(name):
    likelihood, number = made(name, 3), 10_000
    # Away from black and white, where green and blue are expected to lie on the line that they move along.
    one = 0.3 * RNG.normal(size=(1, 1, 1, 3 * likelihood.parameters))
    own = likelihood.fitted(0.5 + 0.05 * RNG.normal(size=(50, 4, 4, 3)))
    parameters = jnp.repeat(likelihood.complete(jnp.float32(one), own), number, axis=1)
    samples = np.asarray(jax.jit(likelihood.sample)(jax.random.key(0), parameters))[0, :, 0]
    np.testing.assert_allclose(255 * samples, np.rint(255 * samples), atol=1e-4)
    error = np.abs(samples.mean(axis=0) - np.asarray(likelihood.mean(parameters))[0, 0, 0])
    assert (error < 5 * samples.std(axis=0) / np.sqrt(number)).all()


def photographs(number):
    """Values of three channels that go together, [number, 8, 8, 3]."""
    grey = RNG.normal(0.45, 0.15, (number, 8, 8, 1))
    return np.rint(255 * np.clip(grey + RNG.normal(0, 0.03, (number, 8, 8, 3)), 0, 1)) / 255


@pytest.mark.parametrize("name", NAMES)
def test_fitted_parameters_are_nearly_the_best_and_those_of_one_colour_finite(name):
    likelihood, x = made(name, 3), jnp.float32(photographs(64))
    log_prob = jax.jit(lambda own: jnp.mean(likelihood.log_prob(likelihood.complete(zeros, own), x)) / 192)
    zeros = jnp.zeros((64, 8, 8, 3 * likelihood.parameters))
    fitted, neutral = likelihood.fitted(x), likelihood.init()
    assert jax.tree.map(jnp.shape, fitted) == jax.tree.map(jnp.shape, neutral)
    found = -float(log_prob(fitted))
    # The entropies of the normal distributions that the pixels were drawn from.
    sigmas = [0.153, 0.0416, 0.0364] if likelihood.parameters in (3, 12) else [0.153] * 3
    best = np.mean(np.log(255 * np.array(sigmas))) + 0.5 * np.log(2 * np.pi * np.e)
    assert best - 0.1 < found < best + 0.1
    assert found < -float(log_prob(neutral))
    for pixel in (0.0, 1.0):
        own = likelihood.fitted(jnp.full_like(x, pixel))
        assert np.isfinite(float(log_prob(own)))
        assert abs(float(likelihood.mean(likelihood.complete(zeros[:1], own))[0, 0, 0, 0]) - pixel) < 0.01


def test_conditioning_is_for_three_channels_and_a_mixture_of_one_is_the_logistic():
    assert made("logistic_mixture", 3).parameters == 12
    assert made("logistic_mixture", 3, mixture_components=5, channel_conditioning=False).parameters == 15
    assert {made("discretized_logistic", channels).parameters for channels in (1, 2, 4)} == {2}
    assert made("discretized_logistic", 3, channel_conditioning=False) == DiscretizedLogistic(3)
    assert made("logistic_mixture", 3, mixture_components=1) == made("discretized_logistic", 3)


@pytest.mark.parametrize(("name", "binarize"), [*itertools.product(NAMES, ["threshold", "dynamic"])])
def test_binarised_pixels_are_refused(name, binarize):
    with pytest.raises(UsageError, match=f"--binarize must be none for --likelihood {name}, .* got {binarize}"):
        check_settings(Settings(likelihood=name, binarize=binarize))


def test_softplus_and_the_normal_tail_have_the_right_values_and_gradients():
    t = np.float32([-1e4, -80, -1, 0, 1e-20, 1, 88.8, 1e4])
    value, gradient = jax.vmap(jax.value_and_grad(softplus))(t)
    np.testing.assert_allclose(value, np.logaddexp(0, np.float64(t)), rtol=1e-6)
    np.testing.assert_allclose(gradient, special.expit(np.float64(t)), rtol=1e-6)
    t = np.float32([-3e7, -1e3, -11, -10, -9.99, -3, -1e-3, 0, 1, 5, 40, 3e7])
    value, gradient = jax.vmap(jax.value_and_grad(log_ndtr))(t)
    np.testing.assert_allclose(value, stats.norm.logcdf(np.float64(t)), rtol=3e-6, atol=1e-12)
    z = np.float64(t)
    with np.errstate(all="ignore"):
        hazard = np.where(z < -100, -z - 1 / z, np.exp(stats.norm.logpdf(z) - stats.norm.logcdf(z)))
    np.testing.assert_allclose(gradient, hazard, rtol=1e-5, atol=1e-12)
