"""Posteriors of correlated dimensions: densities against SciPy, and the bound that they can close."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from scipy import stats

from vae_jax.config import Settings
from vae_jax.errors import UsageError
from vae_jax.models.autoencoders import build_model
from vae_jax.models.distributions import DiagonalGaussian
from vae_jax.models.evaluation import encode_images, image_losses
from vae_jax.models.objectives import ELBO
from vae_jax.models.posteriors import Householder, ReflectedGaussian
from vae_jax.models.priors import FullGaussian, Prior

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
MEAN, LOGVAR, VECTORS = RNG.normal(size=3), RNG.normal(size=3), RNG.normal(size=(4, 3))


def repeated(number):
    def of(values):
        return jnp.broadcast_to(jnp.float32(values), (number, *values.shape))

    return ReflectedGaussian(DiagonalGaussian(of(MEAN), of(LOGVAR)), of(VECTORS))


def moments():
    turn = oracles.reflections(VECTORS)
    return turn @ MEAN, turn @ np.diag(np.exp(LOGVAR)) @ turn.T


def test_a_reflected_gaussian_is_the_gaussian_of_that_covariance():
    n, (mean, covariance) = 20_000, moments()
    q = repeated(n)
    assert np.abs(covariance[0, 1]) > 0.1
    np.testing.assert_allclose(q.mean[0], mean, rtol=1e-5)
    np.testing.assert_allclose(q.logvar[0], np.log(np.diag(covariance)), rtol=1e-4, atol=1e-5)
    z = np.float64(q.sample(jax.random.split(KEY, n)))
    np.testing.assert_allclose(
        q.log_prob(jnp.float32(z)), stats.multivariate_normal(mean, covariance).logpdf(z), atol=1e-3
    )
    white = (z - mean) @ np.linalg.inv(np.linalg.cholesky(covariance)).T
    assert np.abs(white.mean(axis=0)).max() < 5 / np.sqrt(n)
    assert np.abs(np.cov(white.T) - np.eye(3)).max() < 5 * np.sqrt(2 / n)
    estimates = q.log_prob(jnp.float32(z)) - oracles.gaussian_log_prob(z, 0.0, 1.0).sum(axis=1)
    assert abs(float(q.kl()[0]) - np.mean(estimates)) < 5 * np.std(estimates) / np.sqrt(n)


def test_its_log_determinant_is_that_of_autodiff():
    q, zero = repeated(1), jnp.zeros(3)

    def shifted(noise):
        base = dataclasses.replace(q.base, mean=q.base.mean + jnp.exp(q.base.logvar / 2) * noise[None])
        return dataclasses.replace(q, base=base).mean[0]

    jacobian = np.float64(jax.jacfwd(shifted)(zero))
    expected = stats.norm.logpdf(0.0) * 3 - np.linalg.slogdet(jacobian)[1]
    np.testing.assert_allclose(q.log_prob(shifted(zero)[None])[0], expected, rtol=1e-5)


def linear_model(posterior):
    """Linear networks whose true posterior has correlated dimensions; the encoder gives the best of its family."""
    sigma, weight, bias = 0.4, np.float64([[1.0, 0.8], [0.3, 0.9], [0.5, 0.5], [0.9, 0.2]]), np.full(4, 0.5)
    model = build_model(
        Settings(hidden_sizes=(), likelihood="gaussian", sigma=sigma, posterior=posterior, **more(posterior)), (2, 2, 1)
    )
    params = model.init(KEY)
    at_0, covariance = oracles.linear_gaussian_posterior(np.zeros(4), weight, bias, sigma)
    gain = np.stack([oracles.linear_gaussian_posterior(row, weight, bias, sigma)[0] - at_0 for row in np.eye(4)])
    if posterior == "householder":
        variances, axes = np.linalg.eigh(covariance)
        axes[:, 0] *= -np.sign(np.linalg.det(axes))  # so that they are a reflection
        vector = np.float64([1, 0]) - axes[:, 0]
        turn = oracles.reflections([vector])
        np.testing.assert_allclose(turn, axes, atol=1e-12)
        at_0, gain, vectors = turn @ at_0, gain @ turn, vector - 2**-0.5
    else:
        variances, vectors = 1 / np.diag(np.linalg.inv(covariance)), np.zeros(0)
    raw = 15 * np.arctanh(np.log(variances) / 15)
    bias_of_encoder = np.concatenate([at_0, raw, vectors])
    params["encoder"]["Dense_0"] = {
        "kernel": jnp.float32(np.concatenate([gain, np.zeros((4, len(bias_of_encoder) - 2))], axis=1)),
        "bias": jnp.float32(bias_of_encoder),
    }
    params["decoder"]["Dense_0"] = {"kernel": jnp.float32(weight.T), "bias": jnp.float32(bias)}
    images = np.random.default_rng(1).integers(0, 256, (40, 2, 2, 1), dtype=np.uint8)
    x = images.reshape(40, 4) / 255
    return model, params, images, oracles.linear_gaussian_log_evidence(x, weight, bias, sigma), (at_0, covariance)


def more(posterior):
    return {"reflections": 1} if posterior == "householder" else {}


def test_reflections_close_the_gap_that_independent_dimensions_leave():
    gaps = {}
    for posterior in ("diagonal", "householder"):
        model, params, images, evidence, (_, covariance) = linear_model(posterior)
        losses = image_losses(model, params, images, KEY, samples=400)
        gaps[posterior] = losses.reconstruction + losses.kl + evidence
        if posterior == "householder":  # every weight is the evidence: one sample is enough
            one = image_losses(model, params, images, KEY, samples=1)
            np.testing.assert_allclose(one.bound, evidence, atol=2e-4)
            _, logvars = encode_images(model, params, images, KEY)
            np.testing.assert_allclose(logvars, np.log(np.diag(covariance))[None].repeat(40, axis=0), rtol=1e-4)
    expected = 0.5 * np.log(np.prod(np.diag(np.linalg.inv(covariance))) * np.linalg.det(covariance))
    assert expected > 0.1
    assert np.mean(gaps["diagonal"]) == pytest.approx(expected, rel=0.1)
    assert abs(np.mean(gaps["householder"])) < 0.03


def test_a_prior_whose_closed_form_is_for_independent_dimensions_is_estimated():
    settings = Settings(hidden_sizes=(), posterior="householder", latent_dim=3)
    model = dataclasses.replace(build_model(settings, (2, 2, 1)), prior=FullGaussian())
    n, (mean, covariance) = 20_000, moments()
    q = repeated(n)
    prior = FullGaussian.fit(np.float32(RNG.normal(size=(50, 3)) @ RNG.normal(size=(3, 3))))
    z = q.sample(jax.random.split(KEY, n))
    found = np.float64(model.kl({"prior": prior}, q, z))
    np.testing.assert_array_equal(found, Prior.kl(model.prior, prior, q, z))
    whitening, centre = np.float64(prior["whitening"]), np.float64(prior["mean"])
    precision = whitening.T @ whitening
    distance = (mean - centre) @ precision @ (mean - centre)
    expected = np.trace(precision @ covariance) + distance - 3 - np.linalg.slogdet(precision @ covariance)[1]
    assert abs(found.mean() - 0.5 * expected) < 5 * found.std() / np.sqrt(n)


def test_free_bits_of_dimensions_that_are_not_independent_are_refused():
    model = build_model(Settings(hidden_sizes=(), posterior="householder"), (2, 2, 1))
    with pytest.raises(UsageError, match=r"must be 0 for the posterior Householder.*\n.*--posterior diagonal"):
        ELBO(free_bits=0.1).check(model)
    assert Householder(2).features(5) == 20
