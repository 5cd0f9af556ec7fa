import numpy as np
import oracles
import pytest
from scipy import integrate, stats

from vae_jax.measures.disentanglement import dci, disentanglement, information

RNG = np.random.default_rng(0)
SIZES = (3, 4)
FACTORS = np.stack(np.meshgrid(*map(np.arange, SIZES), indexing="ij"), axis=-1).reshape(-1, 2).repeat(100, axis=0)
FACTORS = FACTORS[RNG.permutation(len(FACTORS))].astype(np.int32)
PERFECT = np.column_stack([2.0 - FACTORS[:, 1], 3.0 * FACTORS[:, 0], RNG.normal(size=len(FACTORS))])
TURN = np.array([[1, 1], [-1, 1]]) / np.sqrt(2)
NARROW = np.full((len(FACTORS), 3), -10.0)


@pytest.mark.parametrize("logvars", [None, NARROW], ids=["means", "posteriors"])
def test_a_code_of_the_factors_themselves_has_a_gap_of_1_but_for_what_noise_seems_to_say(logvars):
    found = information(PERFECT, FACTORS, logvars, bins=20)
    np.testing.assert_allclose(found.entropies, np.log(SIZES), rtol=1e-12)
    np.testing.assert_allclose(found.shared[[1, 0], [0, 1]], np.log(SIZES), rtol=1e-9)
    np.testing.assert_allclose(found.shared[[0, 1], [0, 1]], 0, atol=1e-9)
    assert found.shared[2].max() < 0.05
    assert found.mig() > 0.95
    turned = np.column_stack([stats.zscore(PERFECT[:, :2]) @ TURN, PERFECT[:, 2]])
    assert information(turned, FACTORS, logvars, bins=20).mig() < 0.3


def test_the_gap_of_an_example_by_hand():
    factors = np.array([[0, 0], [0, 1], [1, 0], [1, 1]] * 5)
    both, first = 2.0 * factors[:, 1] + factors[:, 0], factors[:, 0]
    found = information(np.column_stack([both, first, factors.sum(axis=1) % 2]), factors, bins=4)
    np.testing.assert_allclose(found.shared, np.log(2) * np.array([[1, 1], [1, 0], [0, 0]]), atol=1e-12)
    np.testing.assert_allclose(found.gaps(), [0, 1], atol=1e-12)
    assert found.mig() == pytest.approx(0.5)
    assert information(both[:, None], factors, bins=4).mig() == pytest.approx(1)  # there is no other


def test_information_is_that_by_counting():
    codes, factors = RNG.integers(0, 5, (60, 2)), RNG.integers(0, 3, (60, 2))
    found = information(codes + 0.0, factors, bins=5).shared
    for i, j in np.ndindex(2, 2):
        expected = oracles.mutual_information(codes[:, i].tolist(), factors[:, j].tolist())
        assert found[i, j] == pytest.approx(expected, abs=1e-12)


def test_information_of_posteriors_is_that_of_the_mixture_of_densities():
    factors, sigma = np.array([[0], [0], [1]]), 0.7
    means = np.array([[-1.0], [0.2], [1.5]])

    def integrand(z):
        p = stats.norm.pdf(z, means[:, 0], sigma)
        of_0, of_1, every = p[:2].mean(), p[2], p.mean()
        return 2 / 3 * of_0 * np.log(of_0 / every) + 1 / 3 * of_1 * np.log(of_1 / every)

    expected, _ = integrate.quad(integrand, -8, 8, limit=200)
    logvars = np.full((3, 1), 2 * np.log(sigma))
    fine, coarse = (information(means, factors, logvars, bins).shared.item() for bins in (300, 5))
    assert fine == pytest.approx(expected, rel=2e-3)
    assert coarse < fine  # what dividing takes away


def test_a_factor_that_never_changes_has_no_gap():
    with pytest.raises(ValueError, match="at least two values"):
        information(PERFECT, np.zeros_like(FACTORS))


def test_scores_of_importances_are_one_minus_entropies():
    matrix = np.array([[0.5, 0.1], [0.5, 0.3], [0.0, 0.6], [0.0, 0.0]])
    spread = [stats.entropy(row, base=2) for row in matrix[:3]]
    assert disentanglement(matrix) == pytest.approx(np.average(1 - np.array(spread), weights=matrix[:3].sum(axis=1)))
    complete = [1 - stats.entropy(column, base=4) for column in matrix.T]
    assert disentanglement(matrix.T) == pytest.approx(np.mean(complete))
    assert disentanglement(np.eye(3)) == disentanglement(np.eye(5)[:3]) == 1
    assert disentanglement(np.ones((3, 2))) == pytest.approx(0)
    assert disentanglement(np.zeros((3, 2))) == 0
    assert disentanglement(np.ones((1, 2)).T) == 1  # a single dimension tells all there is


def test_dci_of_the_factors_is_1_and_falls_where_they_are_mixed():
    def scores(codes):
        return dci(codes[:800], FACTORS[:800], codes[800:], FACTORS[800:])

    perfect, turned = scores(PERFECT), scores(np.column_stack([stats.zscore(PERFECT[:, :2]) @ TURN, PERFECT[:, 2]]))
    assert perfect[:3] == pytest.approx((1, 1, 1), abs=1e-6)
    assert turned.disentanglement < 0.6
    assert turned.completeness < 0.6
    assert turned.informativeness > 0.9  # it is all there
    lost = scores(RNG.normal(size=PERFECT.shape))
    assert lost.informativeness < 0.45
    assert lost.disentanglement < 0.1
