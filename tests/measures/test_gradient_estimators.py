from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.config import Settings
from vae_jax.measures.gradients import expected_loss, pathwise_gradient, plain_gradient, score_function_gradient
from vae_jax.models.autoencoders import build_model
from vae_jax.models.distributions import DiagonalGaussian

RNG = np.random.default_rng(0)
WEIGHT = jnp.float32(RNG.normal(size=(3, 3)))
TARGET = jnp.float32(RNG.normal(size=3))
POSTERIOR = DiagonalGaussian(jnp.float32([0.3, -1.0, 0.5]), jnp.float32([-0.5, 0.2, -1.5]))


def quadratic(z):
    return jnp.sum((WEIGHT @ z - TARGET) ** 2)


def exact():
    """E|Wz - t|^2 = |W m - t|^2 + sum_j s_j^2 |W_j|^2, differentiated by hand."""
    w, m, logvar = np.float64(WEIGHT), np.float64(POSTERIOR.mean), np.float64(POSTERIOR.logvar)
    return 2 * w.T @ (w @ m - np.float64(TARGET)), np.exp(logvar) * np.sum(w**2, axis=0)


def test_the_estimators_are_unbiased_and_a_baseline_lowers_the_variance():
    keys, others = jax.random.split(jax.random.key(1), (2, 40_000))
    centred = partial(score_function_gradient, baseline=float(expected_loss(quadratic, POSTERIOR, others)))
    variances = []
    for estimator in (pathwise_gradient, score_function_gradient, centred):
        draws = jax.jit(jax.vmap(lambda key, of=estimator: of(quadratic, POSTERIOR, key)))(keys)
        for values, expected in zip((draws.mean, draws.logvar), exact(), strict=True):
            error = np.std(np.float64(values), axis=0) / np.sqrt(len(keys))
            assert np.all(np.abs(np.mean(np.float64(values), axis=0) - expected) < 5 * error)
        variances.append(np.var(draws.mean, axis=0))
    assert np.all(variances[2] < variances[1])


def test_a_plain_sample_carries_no_gradient():
    gradient = plain_gradient(quadratic, POSTERIOR, jax.random.key(0))
    assert not np.any(gradient.mean)
    assert not np.any(gradient.logvar)


def test_the_encoder_gets_the_gradient_of_the_expected_loss_and_none_without_the_reparametrisation():
    """Finite differences of the expected loss of a real encoder, under common random numbers."""
    model = build_model(Settings(hidden_sizes=(5,), latent_dim=2), (3, 3, 1))
    params = model.init(jax.random.key(0))
    x = jnp.float32(RNG.uniform(size=(1, 3, 3, 1)))
    keys = jax.random.split(jax.random.key(3), 64)

    def posterior_of(encoder):
        q = model.encode({**params, "encoder": encoder}, x)
        return DiagonalGaussian(q.mean[0], q.logvar[0])

    def loss(z):
        return model.likelihood.reconstruction_loss(model.decode(params, z[None]), x)[0]

    def expected(encoder):
        return expected_loss(loss, posterior_of(encoder), keys)

    def plain(encoder):
        q = posterior_of(encoder)
        return jnp.mean(jax.vmap(lambda key: loss(jax.lax.stop_gradient(q.sample(key))))(keys))

    gradient, none = jax.jit(lambda encoder: (jax.grad(expected)(encoder), jax.grad(plain)(encoder)))(params["encoder"])
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(none))
    leaves, structure = jax.tree.flatten(params["encoder"])
    compiled, step = jax.jit(expected), 1e-2
    for _ in range(3):
        direction = jax.tree.unflatten(structure, [jnp.float32(RNG.normal(size=leaf.shape)) for leaf in leaves])
        ends = [jax.tree.map(lambda p, d, s=s: p + s * d, params["encoder"], direction) for s in (step, -step)]
        difference = (compiled(ends[0]) - compiled(ends[1])) / (2 * step)
        slope = sum(np.sum(g * d) for g, d in zip(*map(jax.tree.leaves, (gradient, direction)), strict=True))
        assert float(difference) == pytest.approx(float(slope), rel=1e-2, abs=1e-3)
