import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from scipy import stats

from vae_jax.config import Settings
from vae_jax.models.autoencoders import build_model
from vae_jax.models.distributions import Delta, DiagonalGaussian, smooth_bound, standard_normal
from vae_jax.models.likelihoods import ContinuousBernoulli, Gaussian
from vae_jax.models.priors import FullGaussian, Prior
from vae_jax.registry import LIKELIHOODS, PRIORS

KEY = jax.random.key(0)
EIGHT_BIT = ["discretized_logistic", "logistic_mixture", "discretized_gaussian", "beta_binomial"]
LEVELS = np.float32(np.arange(256) / 255)


def gaussian(mean, logvar):
    return DiagonalGaussian(jnp.asarray([mean], jnp.float32), jnp.asarray([logvar], jnp.float32))


@pytest.mark.parametrize(("mean", "sigma"), [(0.0, 1.0), (1.5, 0.3), (-2.0, 2.5), (0.01, 0.99), (8.0, 0.05)])
def test_kl_equals_quadrature(mean, sigma):
    kl = gaussian([mean], [2 * np.log(sigma)]).kl()[0]
    np.testing.assert_allclose(kl, oracles.kl_to_standard_normal(mean, sigma), rtol=2e-5, atol=1e-6)


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


def test_bounds_are_smooth_and_leave_small_values_alone():
    raw = jnp.float32([-1e30, -1e3, -0.1, 0.1, 1e3, 1e30])
    np.testing.assert_allclose(smooth_bound(raw, 15.0), [-15, -15, -0.1, 0.1, 15, 15], rtol=1e-4)


@pytest.mark.parametrize("logit", [-20.0, -3.0, -0.7, -0.5, -0.49, -0.01, 0.0, 0.2, 0.5, 0.501, 1.0, 12.0])
def test_continuous_bernoulli_normaliser_and_mean_equal_quadrature(logit):
    ours = ContinuousBernoulli().log_normaliser(jnp.float32(logit))
    np.testing.assert_allclose(ours, oracles.continuous_bernoulli_log_normaliser(logit), rtol=2e-6, atol=2e-6)
    mean = ContinuousBernoulli().mean(jnp.float32(logit))
    np.testing.assert_allclose(mean, oracles.continuous_bernoulli_mean(logit), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in LIKELIHOODS if name != "squared_error"])
@pytest.mark.parametrize("parameter", [-2.0, -1e-4, 0.0, 0.8, 3.0])
def test_sample_mean_equals_mean_within_five_standard_errors(name, parameter):
    n, likelihood = 20_000, LIKELIHOODS.make(name, Settings(), (1, 1, 1))
    own = likelihood.init() | ({"log_sigma": jnp.float32(-1.0)} if name == "learned_gaussian" else {})
    parameters = likelihood.complete(jnp.full((1, n, 1, likelihood.parameters), parameter), own)
    samples = np.asarray(likelihood.sample(KEY, parameters))
    assert abs(samples.mean() - float(likelihood.mean(parameters).mean())) < 5 * samples.std() / np.sqrt(n)


def test_continuous_bernoulli_samples_follow_the_distribution_function():
    logit, n = 3.0, 5_000
    x = np.asarray(ContinuousBernoulli().sample(KEY, jnp.full((n,), logit)))
    cdf = lambda v: np.expm1(logit * v) / np.expm1(logit)  # noqa: E731
    assert stats.kstest(x, cdf).pvalue > 1e-4
    mirrored = np.asarray(ContinuousBernoulli().sample(KEY, jnp.full((n,), -logit)))
    np.testing.assert_allclose(mirrored, 1 - x, atol=1e-6)


def test_what_each_likelihood_says_of_itself():
    made = {name: LIKELIHOODS.make(name, Settings(sigma=0.7), (4, 4, 3)) for name in LIKELIHOODS}
    assert made["gaussian"] == Gaussian(0.7)
    assert {name: each.kind for name, each in made.items() if each.kind != "density"} == {
        **dict.fromkeys(["bernoulli", *EIGHT_BIT], "mass"),
        "squared_error": "none",
    }
    assert {name: each.levels for name, each in made.items() if each.levels} == dict.fromkeys(EIGHT_BIT, 256)
    assert [name for name, each in made.items() if each.init()] == ["learned_gaussian", *EIGHT_BIT]
    assert {name: each.parameters for name, each in made.items() if each.parameters > 1} == {
        **{"discretized_logistic": 3, "logistic_mixture": 12},
        **{"discretized_gaussian": 2, "beta_binomial": 2},
    }
    assert [name for name, each in made.items() if each.unit != "nats"] == ["squared_error"]


def test_log_sigma_is_the_learned_gaussians_own_parameter_beside_the_decoders():
    model = build_model(Settings(likelihood="learned_gaussian", hidden_sizes=(4,)), (2, 2, 3))
    params, z = model.init(KEY), jnp.ones((5, 2))
    assert params["decoder"]["log_sigma"].shape == ()
    params["decoder"]["log_sigma"] = jnp.float32(-1.5)
    parameters = model.decode(params, z)
    assert parameters.shape == (5, 2, 2, 6)
    np.testing.assert_array_equal(parameters[..., 3:], jnp.full((5, 2, 2, 3), -1.5))
    np.testing.assert_array_equal(model.likelihood.mean(parameters), parameters[..., :3])


def test_the_standard_normal_prior_is_scipys_and_its_kl_that_of_samples():
    prior, z = PRIORS.make("standard", Settings()), jax.random.normal(KEY, (7, 3)) * 3
    expected = oracles.gaussian_log_prob(z, 0.0, 1.0).sum(axis=1)
    np.testing.assert_allclose(prior.log_prob({}, z), expected, rtol=1e-5)
    assert stats.kstest(np.ravel(prior.sample({}, KEY, (4000, 2))), "norm").pvalue > 1e-4
    n = 20_000
    q = DiagonalGaussian(jnp.full((n, 2), 0.7), jnp.full((n, 2), -1.0))
    estimates = Prior.kl(prior, {}, q, q.sample(KEY))  # what a prior without a closed form has
    assert abs(float(estimates.mean() - prior.kl({}, q).mean())) < 5 * float(estimates.std()) / np.sqrt(n)


def some_posteriors(latent=3, number=500):
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(latent, latent))
    means, logvars = rng.normal(size=(number, latent)) @ mixing + 2, rng.normal(-1.0, 0.7, (number, latent))
    return np.float32(means), np.float32(logvars)


def covariance_of(params):
    return np.linalg.inv(np.float64(params["whitening"].T @ params["whitening"]))


def test_the_gaussian_fitted_to_posteriors_has_the_moments_of_their_mixture():
    means, logvars = some_posteriors()
    params, rng = FullGaussian.fit(means, logvars), np.random.default_rng(1)
    draws = (means + np.exp(logvars / 2) * rng.normal(size=(800, *means.shape))).reshape(-1, 3)
    np.testing.assert_allclose(params["mean"], means.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(covariance_of(params), np.cov(draws.T, bias=True), rtol=0.02, atol=0.02)
    codes = FullGaussian.fit(np.repeat(means[:2], 3, axis=0))  # on a line: the ridge makes them a density
    assert np.linalg.matrix_rank(covariance_of(codes), tol=1e-2) == 1
    assert np.isfinite(FullGaussian().log_prob(codes, jnp.float32(means[:2]))).all()
    same = FullGaussian.fit(np.ones((5, 2), np.float32))
    assert np.isfinite(FullGaussian().sample(same, KEY, (4, 2))).all()


def test_the_log_density_and_the_kl_of_a_full_gaussian_are_those_of_scipy_and_of_quadrature():
    means, logvars = some_posteriors()
    prior, params = FullGaussian(), FullGaussian.fit(means, logvars)
    moments = np.float64(params["mean"]), covariance_of(params)
    expected = stats.multivariate_normal(*moments).logpdf(means)
    np.testing.assert_allclose(prior.log_prob(params, jnp.asarray(means)), expected, rtol=1e-4, atol=1e-4)
    each = [oracles.kl_to_gaussian(m, s, *moments) for m, s in zip(means[:6], np.exp(logvars[:6] / 2), strict=True)]
    q = DiagonalGaussian(jnp.asarray(means[:6]), jnp.asarray(logvars[:6]))
    np.testing.assert_allclose(prior.kl(params, q), each, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(prior.kl(prior.init(KEY, 3), q), q.kl(), rtol=1e-5)
    many = DiagonalGaussian(*map(jnp.asarray, (means, logvars)))
    least = float(jnp.mean(prior.kl(params, many)))  # no other Gaussian is as near
    for other in (FullGaussian.fit(means), FullGaussian.fit(1.05 * means, logvars), prior.init(KEY, 3)):
        assert least < float(jnp.mean(prior.kl(other, many)))


def test_samples_of_a_full_gaussian_have_its_covariance_and_a_temperature_draws_them_in():
    prior, params, n = FullGaussian(), FullGaussian.fit(*some_posteriors()), 20_000
    z = np.asarray(prior.sample(params, KEY, (n, 3)))
    white = (z - np.asarray(params["mean"])) @ np.asarray(params["whitening"]).T
    assert np.abs(np.cov(white.T) - np.eye(3)).max() < 5 * np.sqrt(2 / n)
    assert np.abs(white.mean(axis=0)).max() < 5 / np.sqrt(n)
    half = prior.sample(params, KEY, (n, 3), 0.5)
    np.testing.assert_allclose(half - params["mean"][None], (z - params["mean"][None]) / 2, rtol=1e-3, atol=1e-4)


def test_a_full_gaussian_keeps_its_digits_in_many_correlated_dimensions():
    rng = np.random.default_rng(0)
    means = np.float32(np.cumsum(rng.normal(size=(500, 300)), axis=1) / 10)  # variances of 0.01 to 3
    logvars = np.full_like(means, -5.0)
    params = FullGaussian.fit(means, logvars)
    covariance = np.cov(np.float64(means).T, bias=True) + np.exp(-5.0) * np.eye(300)
    expected = stats.multivariate_normal(means.mean(axis=0, dtype=np.float64), covariance).logpdf(means[:20])
    np.testing.assert_allclose(FullGaussian().log_prob(params, jnp.asarray(means[:20])), expected, atol=5e-3)


def test_a_delta_is_its_code():
    code = jnp.float32(np.random.default_rng(0).normal(size=(4, 3)))
    q = Delta(code)
    for same in (q.mean, q.sample(), q.sample(jax.random.split(KEY, 4))):
        np.testing.assert_array_equal(same, code)
    np.testing.assert_array_equal(q.kl_per_dimension(), np.zeros((4, 3)))
    np.testing.assert_array_equal(q.kl(), np.zeros(4))
