import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vae_jax.errors import UsageError
from vae_jax.models.inputs import corrupt, noise_keys

X = jnp.asarray(np.random.default_rng(0).uniform(0.2, 0.8, (300, 6, 5, 2)), jnp.float32)
KEYS = jax.random.split(jax.random.key(0), len(X))
KINDS = ["gaussian", "gaussian_clipped", "salt_and_pepper", "masking"]


def within(values, expected, variance):
    """Whether the mean of independent values is what is expected, within 5 standard errors."""
    return abs(np.mean(np.asarray(values, np.float64)) - expected) < 5 * np.sqrt(variance / np.size(values))


def test_gaussian_noise_is_normal_with_the_level_as_its_deviation():
    noise = np.asarray(corrupt(X, "gaussian", 0.3, KEYS) - X, np.float64) / 0.3
    assert within(noise, 0, 1)
    assert within(noise**2, 1, 2)  # the variance of a squared standard normal
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-4


def test_clipped_noise_is_the_same_noise_clipped():
    noisy = corrupt(X, "gaussian", 0.5, KEYS)
    clipped = corrupt(X, "gaussian_clipped", 0.5, KEYS)
    np.testing.assert_array_equal(clipped, np.clip(noisy, 0, 1))
    assert np.min(noisy) < 0
    assert np.max(noisy) > 1
    # The share at 0 and at 1 is what the normal tails hold.
    for value, tail in ((0, stats.norm.cdf(-X / 0.5)), (1, stats.norm.sf((1 - X) / 0.5))):
        assert within(clipped == value, tail.mean(), np.mean(tail * (1 - tail)))


@pytest.mark.parametrize("level", [0.1, 0.25, 0.5])
def test_salt_and_pepper_replaces_the_share_half_by_0_half_by_1(level):
    noisy = corrupt(X, "salt_and_pepper", level, KEYS)
    for value in (0, 1):
        assert within(noisy == value, level / 2, level / 2 * (1 - level / 2))
    kept = (noisy != 0) & (noisy != 1)
    np.testing.assert_array_equal(noisy[kept], X[kept])


@pytest.mark.parametrize("level", [0.25, 0.75])
def test_masking_sets_the_share_to_0(level):
    noisy = corrupt(X, "masking", level, KEYS)
    assert within(noisy == 0, level, level * (1 - level))
    np.testing.assert_array_equal(noisy[noisy != 0], X[noisy != 0])


@pytest.mark.parametrize("kind", KINDS)
def test_level_0_changes_nothing_and_level_1_replaces_everything(kind):
    np.testing.assert_array_equal(corrupt(X, kind, 0.0, KEYS), X)
    everything = np.asarray(corrupt(X, kind, 1.0, KEYS))
    if kind in ("salt_and_pepper", "masking"):
        assert set(np.unique(everything)) == ({0, 1} if kind == "salt_and_pepper" else {0})
    np.testing.assert_array_equal(corrupt(X, "none", 1.0, KEYS), X)


@pytest.mark.parametrize("kind", KINDS)
def test_an_examples_noise_depends_on_its_key_alone(kind):
    noisy = jax.jit(corrupt, static_argnums=1)(X, kind, jnp.float32(0.4), KEYS)
    np.testing.assert_allclose(corrupt(X[7:9], kind, 0.4, KEYS[7:9]), noisy[7:9], atol=1e-6)
    assert np.any(noisy[0] - X[0] != noisy[1] - X[1])


def test_neighbouring_values_and_examples_are_independent():
    noise = np.asarray(corrupt(X, "gaussian", 1.0, KEYS) - X, np.float64)
    for a, b in (
        (noise[1:], noise[:-1]),
        (noise[:, 1:], noise[:, :-1]),
        (noise[:, :, 1:], noise[:, :, :-1]),
        (noise[..., 1], noise[..., 0]),
    ):
        assert within(a * b, 0, 1)


def test_the_keys_of_the_noise_are_others_than_those_of_the_latent():
    data = jax.random.key_data(noise_keys(KEYS))
    assert len(np.unique(data, axis=0)) == len(KEYS)
    samples = [jax.random.key_data(jax.vmap(jax.random.fold_in, (0, None))(KEYS, i)) for i in range(3)]
    for other in (jax.random.key_data(KEYS), *samples):
        assert not (data == other).all(axis=1).any()


def test_an_unknown_kind_is_refused():
    with pytest.raises(UsageError, match="--corruption must be"):
        corrupt(X, "blur", 0.5, KEYS)
