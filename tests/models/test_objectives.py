import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.models.objectives import free_bits_kl, importance_weighted_bound, kl_weight

pytestmark = pytest.mark.optimised


@pytest.mark.parametrize(
    ("step", "warmup", "expected"), [(0, 0, 2.0), (0, 10, 0.0), (5, 10, 1.0), (10, 10, 2.0), (99, 10, 2.0)]
)
def test_kl_weight_rises_linearly_to_beta(step, warmup, expected):
    assert float(kl_weight(jnp.float32(step), 2.0, warmup)) == pytest.approx(expected)


def test_free_bits_mean_and_gradient_are_those_of_the_paper():
    rng = np.random.default_rng(0)
    kl = jnp.float32(rng.gamma(1.0, size=(6, 4)) * [0.1, 0.4, 1.0, 3.0])
    weights = jnp.float32([1, 1, 1, 1, 1, 0])

    def ours(kl):
        return jnp.sum(free_bits_kl(kl, 0.5, weights) * weights) / 5

    def paper(kl):
        return jnp.sum(jnp.maximum(0.5, jnp.mean(kl[:5], axis=0)))

    np.testing.assert_allclose(ours(kl), paper(kl), rtol=1e-6)
    np.testing.assert_allclose(jax.grad(ours)(kl), jax.grad(paper)(kl), rtol=1e-6)
    assert float(ours(kl)) > float(jnp.sum(kl[:5]) / 5)


def test_no_free_bits_is_the_sum_over_dimensions():
    kl = jnp.float32([[0.1, 2.0], [0.3, 0.0]])
    np.testing.assert_allclose(free_bits_kl(kl, 0.0, jnp.ones(2)), [2.1, 0.3], rtol=1e-6)


def test_importance_weighted_bound_is_log_mean_exp_and_survives_extremes():
    log_weights = np.random.default_rng(0).normal(size=(7, 3)) * 3 - 100
    expected = np.log(np.mean(np.exp(log_weights + 100), axis=0)) - 100
    np.testing.assert_allclose(importance_weighted_bound(jnp.float32(log_weights)), expected, rtol=1e-5)
    assert np.isfinite(importance_weighted_bound(jnp.float32([[-1e4], [1e4]]))).all()
    np.testing.assert_array_equal(importance_weighted_bound(jnp.float32([[-3.0, 2.0]])), [-3.0, 2.0])
