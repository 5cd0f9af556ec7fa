import numpy as np
import pytest
from scipy import optimize, stats

from vae_jax.measures.traversal import LEVELS
from vae_jax.models.codes import Codes

RNG = np.random.default_rng(0)
MEANS = RNG.normal(size=(30, 4)).astype(np.float32)
LOGVARS = RNG.uniform(-6, 0.5, (30, 4)).astype(np.float32)
POSTERIORS, CODES = Codes.of(MEANS, LOGVARS), Codes.of(MEANS, None)


def test_information_is_the_kl_in_nats_or_the_variance_and_orders_the_dimensions():
    wanted = 0.5 * (np.float64(MEANS) ** 2 + np.exp(np.float64(LOGVARS)) - LOGVARS - 1)
    np.testing.assert_allclose(POSTERIORS.information(), wanted.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(CODES.information(), MEANS.var(axis=0), rtol=1e-6)
    for codes in (POSTERIORS, CODES):
        assert len(codes) == 30
        assert (np.diff(codes.information()[codes.order()]) <= 0).all()


def test_quantiles_are_those_of_the_mixture_of_all_posteriors_or_of_the_codes():
    found, sigmas = POSTERIORS.quantiles(LEVELS), np.exp(LOGVARS.astype(np.float64) / 2)
    for dim in range(4):

        def below(z, dim=dim):
            return stats.norm.cdf(z, MEANS[:, dim], sigmas[:, dim]).mean()

        wanted = [optimize.brentq(lambda z, p=p: below(z) - p, -20, 20) for p in LEVELS]
        np.testing.assert_allclose(found[:, dim], wanted, atol=2e-5)
    zeros = np.zeros((10, 1), np.float32)  # a dimension at the prior
    np.testing.assert_allclose(Codes.of(zeros, zeros).quantiles(LEVELS)[:, 0], stats.norm.ppf(LEVELS), atol=1e-5)
    np.testing.assert_allclose(CODES.quantiles([0.5]), np.median(MEANS, axis=0)[None], rtol=1e-6)


@pytest.mark.parametrize("codes", [POSTERIORS, CODES], ids=["posteriors", "codes"])
@pytest.mark.parametrize("level", [0.0, 1.0, -0.1])
def test_levels_lie_between_0_and_1(codes, level):
    with pytest.raises(ValueError, match="levels"):
        codes.quantiles([level])


def test_active_dimensions_are_those_whose_means_vary_by_more_than_a_hundredth():
    means = np.float32(RNG.normal(size=(1000, 3)) * [1.0, 0.05, 0.2])
    for logvars in (None, np.zeros_like(means)):
        np.testing.assert_array_equal(Codes.of(means, logvars).active_dimensions(), [True, False, True])


def test_posteriors_tell_their_variances_and_codes_have_none():
    np.testing.assert_allclose(POSTERIORS.covariances(np.array([3, 5])), np.exp(LOGVARS[[3, 5]]), rtol=1e-6)
    sigma = np.median(np.exp(LOGVARS / 2)) / np.sqrt(MEANS.var(axis=0).mean())
    assert POSTERIORS.relative_sigma() == pytest.approx(sigma, rel=1e-5)
    assert CODES.covariances(np.array([3])) is None
    assert Codes.of(MEANS, LOGVARS, independent=False).covariances(np.array([3])) is None
    assert CODES.diagnosis(1.0) is None


def test_sparsity_by_hand():
    found = Codes.of(np.float32([[1, 0, 0, 0], [0, 2, 0, 0], [1, 1, 1, 0]]), None).sparsity()
    assert found.active_share == pytest.approx(5 / 12)
    assert found.mean_activation == pytest.approx(0.5)
    assert found.dead == 1
    assert found.hoyer == pytest.approx((1 + 1 + (2 - np.sqrt(3))) / 3)
    assert Codes.of(np.zeros((3, 4), np.float32), None).sparsity() == (0.0, 0.0, 0.0, 4)
    assert Codes.of(np.ones((3, 4), np.float32), None).sparsity().hoyer == pytest.approx(0)
    assert np.isfinite(Codes.of(np.ones((3, 1), np.float32), None).sparsity().hoyer)


@pytest.mark.parametrize(
    ("spreads", "sigma", "beta", "words"),
    [
        ([1.0, 2.0], 0.5, 1.0, "All 2 dimensions are active."),
        ([1.0], 0.5, 1.0, "1 dimension is active."),
        ([0.0] * 18 + [3.0] * 2, 0.5, 1.0, "18 of 20 dimensions are inactive"),
        ([0.0, 1.0], 0.5, 1.0, "1 of 2 dimensions is inactive"),
        ([0.0, 0.0], 1.0, 4.0, "collapsed to the prior"),
        ([9.0, 9.0], 0.001, 0.0, "shrunk to points"),
    ],
)
def test_the_diagnosis_in_words(spreads, sigma, beta, words):
    means = np.float32(np.outer(RNG.permutation(np.linspace(-1.5, 1.5, 99)), spreads))
    codes = Codes.of(means, np.full_like(means, 2 * np.log(sigma)))
    text, untunable = codes.diagnosis(beta), codes.diagnosis(beta, tunable=False)
    assert words in text
    assert words in untunable
    assert "--" not in untunable  # no flag that would be refused
    assert ("ry" in text) == ("are active" not in words and "is active" not in words)
    assert ("--beta below" in text) == ("inactive" in words or "collapsed" in words)
