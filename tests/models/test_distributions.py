import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from vae_jax.models.distributions import DiagonalGaussian, smooth_bound, standard_normal
from vae_jax.models.likelihoods import (
    Bernoulli,
    ContinuousBernoulli,
    Gaussian,
    LearnedGaussian,
    SquaredError,
    make_likelihood,
)

pytestmark = pytest.mark.optimised

KEY = jax.random.key(0)
EXTREME_LOGITS = [-1e4, -200.0, -30.0, -0.6, -0.4, -1e-3, 0.0, 1e-8, 0.3, 0.51, 5.0, 200.0, 1e4]


def image(values):
    return jnp.asarray(values, jnp.float32).reshape(1, 1, -1, 1)


def gaussian(mean, logvar):
    return DiagonalGaussian(jnp.asarray([mean], jnp.float32), jnp.asarray([logvar], jnp.float32))


@pytest.mark.parametrize(("mean", "sigma"), [(0.0, 1.0), (1.5, 0.3), (-2.0, 2.5), (0.01, 0.99), (8.0, 0.05)])
def test_kl_equals_quadrature(mean, sigma):
    kl = gaussian([mean], [2 * np.log(sigma)]).kl()[0]
    np.testing.assert_allclose(kl, oracles.kl_to_standard_normal(mean, sigma), rtol=2e-5, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.floats(-20, 20), st.floats(-15, 15))
def test_kl_is_never_negative_and_zero_only_at_the_prior(mean, logvar):
    kl = float(gaussian([mean], [logvar]).kl()[0])
    assert kl >= 0
    assert (kl > 1e-9) == (abs(mean) > 1e-4 or abs(logvar) > 1e-4) or kl < 1e-6
    assert float(gaussian([0.0], [0.0]).kl()[0]) == 0


def test_log_prob_equals_scipy():
    rng = np.random.default_rng(0)
    mean, logvar, z = rng.normal(size=(3, 5, 4))
    log_prob = DiagonalGaussian(*map(jnp.float32, (mean, logvar))).log_prob(jnp.float32(z))
    expected = oracles.gaussian_log_prob(z, mean, np.exp(logvar / 2)).sum(-1)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-4, atol=1e-4)


def test_sample_has_the_mean_and_variance_within_five_standard_errors():
    n, mean, sigma = 20_000, 1.5, 0.4
    z = DiagonalGaussian(jnp.full((n, 1), mean), jnp.full((n, 1), 2 * np.log(sigma))).sample(KEY)
    assert abs(z.mean() - mean) < 5 * sigma / np.sqrt(n)
    assert abs(z.var() - sigma**2) < 5 * sigma**2 * np.sqrt(2 / n)


def test_noise_of_an_example_does_not_depend_on_its_batch():
    keys = jax.vmap(lambda i: jax.random.fold_in(KEY, i))(jnp.arange(6))
    whole = standard_normal(keys, (6, 3))
    np.testing.assert_array_equal(whole[4:], standard_normal(keys[4:], (2, 3)))
    assert len(np.unique(np.asarray(whole))) == 18


def test_gradient_flows_through_the_sample_to_mean_and_logvar():
    def z(mean, logvar):
        return jnp.sum(DiagonalGaussian(mean, logvar).sample(KEY))

    mean, logvar = jnp.ones((1, 3)), jnp.zeros((1, 3))
    noise = DiagonalGaussian(mean * 0, logvar).sample(KEY)
    by_mean, by_logvar = jax.grad(z, (0, 1))(mean, logvar)
    np.testing.assert_allclose(by_mean, 1.0)
    np.testing.assert_allclose(by_logvar, 0.5 * noise, rtol=1e-5)


@pytest.mark.parametrize("raw", [-1e30, -1e3, -30.0, 0.0, 30.0, 1e3, 1e30])
def test_logvar_is_bounded_smoothly_in_value_and_gradient(raw):
    def kl(features):
        return jnp.sum(DiagonalGaussian.from_features(features).kl())

    value, gradient = jax.value_and_grad(kl)(jnp.array([[0.5, raw]]))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    assert abs(float(smooth_bound(jnp.float32(raw), 15.0))) <= 15
    np.testing.assert_allclose(smooth_bound(jnp.float32(0.1), 15.0), 0.1, rtol=1e-4)


@pytest.mark.parametrize("x", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("logit", [-8.0, -0.5, 0.0, 2.0, 8.0])
def test_bernoulli_equals_the_textbook(x, logit):
    ours = Bernoulli().log_prob(image([logit]), image([x]))[0]
    np.testing.assert_allclose(ours, oracles.bernoulli_log_prob(x, logit), rtol=1e-5)


@pytest.mark.parametrize("likelihood", [Bernoulli(), ContinuousBernoulli()], ids=lambda d: type(d).__name__)
@pytest.mark.parametrize("x", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("logit", EXTREME_LOGITS)
def test_extreme_logits_give_finite_values_and_gradients(likelihood, x, logit):
    def loss(logits):
        return likelihood.reconstruction_loss(logits, image([x]))[0]

    value, gradient = jax.value_and_grad(loss)(image([logit]))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    mean = float(likelihood.mean(image([logit]))[0, 0, 0, 0])
    assert 0 <= mean <= 1
    # The score of an exponential family: x - mean.
    np.testing.assert_allclose(-gradient[0, 0, 0, 0], x - mean, atol=2e-4)


@pytest.mark.parametrize("logit", [-20.0, -3.0, -0.7, -0.5, -0.49, -0.01, 0.0, 0.2, 0.5, 0.501, 1.0, 12.0])
def test_continuous_bernoulli_normaliser_and_mean_equal_quadrature(logit):
    ours = ContinuousBernoulli().log_normaliser(jnp.float32(logit))
    np.testing.assert_allclose(ours, oracles.continuous_bernoulli_log_normaliser(logit), rtol=2e-6, atol=2e-6)
    mean = ContinuousBernoulli().mean(jnp.float32(logit))
    np.testing.assert_allclose(mean, oracles.continuous_bernoulli_mean(logit), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(
    "likelihood",
    [Bernoulli(), ContinuousBernoulli(), Gaussian(0.3), LearnedGaussian()],
    ids=lambda d: type(d).__name__,
)
@pytest.mark.parametrize("parameter", [-2.0, -1e-4, 0.0, 0.8, 3.0])
def test_sample_mean_equals_mean_within_five_standard_errors(likelihood, parameter):
    n = 20_000
    parameters = jnp.full((1, n, 1, 1), parameter)
    if likelihood.learned_sigma:
        parameters = jnp.concatenate([parameters, jnp.full_like(parameters, -1.0)], axis=-1)
    samples = np.asarray(likelihood.sample(KEY, parameters))
    mean = float(likelihood.mean(parameters).mean())
    assert abs(samples.mean() - mean) < 5 * samples.std() / np.sqrt(n)


def test_gaussians_equal_scipy():
    rng = np.random.default_rng(0)
    x, mean = jnp.float32(rng.uniform(size=(2, 3, 4, 5, 1)))
    expected = oracles.gaussian_log_prob(x, mean, 0.2).sum((1, 2, 3))
    np.testing.assert_allclose(Gaussian(0.2).log_prob(mean, x), expected, rtol=1e-5)
    raw = jnp.full_like(mean, 6 * np.arctanh(np.log(0.2) / 6))
    parameters = jnp.concatenate([mean, raw], axis=-1)
    np.testing.assert_allclose(LearnedGaussian().log_prob(parameters, x), expected, rtol=1e-5)
    np.testing.assert_array_equal(LearnedGaussian().mean(parameters), mean)


def test_continuous_bernoulli_samples_follow_the_distribution_function():
    logit, n = 3.0, 5_000
    x = np.asarray(ContinuousBernoulli().sample(KEY, jnp.full((n,), logit)))
    cdf = lambda v: np.expm1(logit * v) / np.expm1(logit)  # noqa: E731
    assert stats.kstest(x, cdf).pvalue > 1e-4
    mirrored = np.asarray(ContinuousBernoulli().sample(KEY, jnp.full((n,), -logit)))
    np.testing.assert_allclose(mirrored, 1 - x, atol=1e-6)


def test_squared_error_is_the_definition():
    rng = np.random.default_rng(0)
    x, y = jnp.float32(rng.uniform(size=(2, 3, 4, 5, 1)))
    expected = ((np.asarray(x, np.float64) - np.asarray(y)) ** 2).sum((1, 2, 3))
    np.testing.assert_allclose(SquaredError().reconstruction_loss(y, x), expected, rtol=1e-5)


def test_make_likelihood_gives_sigma_to_the_gaussian():
    assert make_likelihood("gaussian", 0.7) == Gaussian(0.7)
