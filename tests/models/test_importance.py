"""Importance-weighted objectives on a linear Gaussian model, whose evidence and gradients are known."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from vae_jax.config import Settings
from vae_jax.errors import UsageError
from vae_jax.models.autoencoders import build_model
from vae_jax.models.importance import IWAE, DReG
from vae_jax.models.inputs import Inputs
from vae_jax.models.objectives import ELBO
from vae_jax.models.priors import Prior, StandardNormal

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (5, 2, 3, 1), dtype=np.uint8)
BATCH = Inputs().batch(jnp.asarray(IMAGES), jnp.arange(5), jax.random.key(1))
SIGMA, WEIGHT, BIAS = 0.4, RNG.normal(size=(6, 2)) * 0.5, np.full(6, 0.5)


class Estimated(StandardNormal):
    """N(0, I), whose KL divergence is estimated."""

    kl = Prior.kl


def linear_model():
    """A model of linear networks; its posteriors are near the true ones, and 1.4 times as wide."""
    model = build_model(Settings(hidden_sizes=(), likelihood="gaussian", sigma=SIGMA), (2, 3, 1))
    params = model.init(jax.random.key(0))
    at_0, covariance = oracles.linear_gaussian_posterior(np.zeros(6), WEIGHT, BIAS, SIGMA)
    gain = np.stack([oracles.linear_gaussian_posterior(row, WEIGHT, BIAS, SIGMA)[0] - at_0 for row in np.eye(6)])
    raw = 15 * np.arctanh(np.log(2 * np.diag(covariance)) / 15)
    params["encoder"]["Dense_0"] = {
        "kernel": jnp.float32(np.concatenate([gain + 0.1, np.full((6, 2), 0.05)], axis=1)),
        "bias": jnp.float32(np.concatenate([at_0, raw])),
    }
    params["decoder"]["Dense_0"] = {"kernel": jnp.float32(WEIGHT.T), "bias": jnp.float32(BIAS)}
    evidence = oracles.linear_gaussian_log_evidence(IMAGES.reshape(5, 6) / 255, WEIGHT, BIAS, SIGMA)
    return model, params, evidence


MODEL, PARAMS, EVIDENCE = linear_model()


@functools.cache
def draws(objective):
    """The objective's terms, and the gradient of their mean in the encoder's parameters, for 1,000 keys."""

    def one(key):
        def mean(encoder):
            batch = BATCH._replace(keys=jax.random.split(key, 5))
            terms = objective(MODEL, {**PARAMS, "encoder": encoder}, batch, jnp.float32(0))
            return jnp.mean(terms.objective), terms

        gradient, terms = jax.grad(mean, has_aux=True)(PARAMS["encoder"])
        return terms, jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(gradient)])

    found = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(2), 1000))
    return jax.tree.map(np.float64, found)


@pytest.mark.parametrize("objective", [IWAE(1), IWAE(1, elbo_share=0.4), DReG(1)])
def test_with_one_sample_it_is_the_elbo_of_the_same_draw(objective):
    model = dataclasses.replace(MODEL, prior=Estimated())
    first = BATCH._replace(keys=jax.vmap(jax.random.fold_in, (0, None))(BATCH.keys, 0))

    def both(params):
        terms = objective(model, params, BATCH, jnp.float32(0)), ELBO()(model, params, first, jnp.float32(0))
        return [jnp.mean(part.objective) for part in terms], terms

    (ours, elbo), jacobian = jax.jit(lambda params: (both(params)[1], jax.jacrev(lambda p: both(p)[0])(params)))(PARAMS)
    for a, b in zip(ours, elbo, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    same = jacobian if not isinstance(objective, DReG) else [part["decoder"] for part in jacobian]
    for a, b in zip(*map(jax.tree.leaves, same), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_more_samples_bring_the_bound_up_to_the_evidence_and_the_row_stays_the_elbos():
    bounds = [-draws(IWAE(samples))[0].objective for samples in (1, 4, 32)]
    one, four, many = (EVIDENCE - values.mean(axis=0) for values in bounds)
    assert (many > 0).all()
    assert (four > 5 * many).all()  # as 1 / samples
    assert (one > 1.5 * four).all()
    divergences = []
    for x, mean, logvar in zip(BATCH.x.reshape(5, 6), *jax.tree.leaves(MODEL.encode(PARAMS, BATCH.x)), strict=True):
        true = oracles.linear_gaussian_posterior(np.float64(x), WEIGHT, BIAS, SIGMA)
        divergences.append(oracles.kl_to_gaussian(np.float64(mean), np.exp(np.float64(logvar) / 2), *true))
    error = bounds[0].std(axis=0) / np.sqrt(len(bounds[0]))
    assert (np.abs(one - divergences) < 5 * error).all()  # KL[q, p(z | x)]
    for samples in (1, 4, 32):
        terms = draws(IWAE(samples))[0]
        assert (np.abs(np.mean(terms.reconstruction + terms.kl, axis=0) + EVIDENCE - divergences) < 5 * error).all()


@pytest.mark.parametrize("groups", [1, 3])
def test_the_doubly_reparametrised_gradient_is_that_of_the_paper(groups):
    objective = DReG(4, groups)

    def mean(params):
        return jnp.mean(objective(MODEL, params, BATCH, jnp.float32(0)).objective)

    bias = np.float64(jax.jit(jax.grad(mean))(PARAMS)["encoder"]["Dense_0"]["bias"])
    posterior = MODEL.encode(PARAMS, BATCH.x)
    keys = [jax.vmap(jax.random.fold_in, (0, None))(BATCH.keys, i) for i in range(4 * groups)]
    z = np.float64(jnp.stack([posterior.sample(key) for key in keys]))
    q, sigma = np.float64(posterior.mean), np.exp(np.float64(posterior.logvar) / 2)
    residual = np.float64(BATCH.x.reshape(5, 6)) - z @ WEIGHT.T - BIAS
    log_weights = (
        oracles.gaussian_log_prob(residual, 0.0, SIGMA).sum(axis=-1)
        + (oracles.gaussian_log_prob(z, 0.0, 1.0) - oracles.gaussian_log_prob(z, q, sigma)).sum(axis=-1)
    ).reshape(4, groups, 5)
    slope = residual @ WEIGHT / SIGMA**2 - z + (z - q) / sigma**2  # of log w in z, with q fixed
    weights = np.exp(log_weights - log_weights.max(axis=0))
    weights = (weights / weights.sum(axis=0)).reshape(4 * groups, 5, 1)
    by_logvar = 0.5 * (z - q) * (1 - (np.log(sigma**2) / 15) ** 2)  # dz / d raw, with the bound of the log variance
    for expected, ours in zip((slope, slope * by_logvar), np.split(bias, 2), strict=True):
        np.testing.assert_allclose(ours, -np.sum(weights**2 * expected, axis=0).mean(axis=0) / groups, rtol=1e-3)


def test_the_encoders_gradient_gets_noisier_with_samples_and_less_so_doubly_reparametrised():
    ratios = {}
    for objective in (IWAE(4), IWAE(32), DReG(4), DReG(32)):
        gradient = draws(objective)[1]
        ratios[objective] = np.median(np.abs(gradient.mean(axis=0)) / gradient.std(axis=0))
    assert ratios[IWAE(32)] < 0.5 * ratios[IWAE(4)]
    assert ratios[DReG(32)] > 1.5 * ratios[DReG(4)]
    assert ratios[DReG(32)] > 8 * ratios[IWAE(32)]


def test_padding_gets_no_gradient_and_spoils_none():
    batch = BATCH._replace(weights=jnp.float32([1, 1, 0, 0, 0]))

    def gradient(batch):
        def total(params):
            return jnp.sum(DReG(3)(MODEL, params, batch, jnp.float32(0)).objective * batch.weights)

        return jax.jit(jax.grad(total))(PARAMS)

    alone = jax.tree.map(lambda values: values[:2], batch)
    for a, b in zip(*map(jax.tree.leaves, (gradient(batch), gradient(alone))), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [IWAE, DReG])
def test_an_autoencoder_is_refused(kind):
    model = build_model(Settings(model="ae", hidden_sizes=()), (2, 3, 1))
    with pytest.raises(UsageError, match=f"--objective {kind.__name__.lower()} needs --model vae"):
        kind().check(model)


def test_dreg_has_no_elbo_beside_it():
    with pytest.raises(UsageError, match=r"--elbo-share must be 0 for --objective dreg, got 0\.5"):
        DReG(elbo_share=0.5)
