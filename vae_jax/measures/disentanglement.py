"""Whether each latent dimension stands for one of the factors that images were made by: arrays in, numbers out."""

from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float, Int
from scipy.special import ndtr, xlogy
from sklearn.ensemble import RandomForestClassifier

BINS = 100
"""Intervals of a latent dimension, between which a density is told apart; those who discretise means take 20."""
_TREES, _FEWEST = 20, 5
"""Of a forest; codes in a leaf of it."""

Codes: TypeAlias = Float[np.ndarray, "n latent"]
Factors: TypeAlias = Int[np.ndarray, "n factors"]


class Information(NamedTuple):
    """What latent dimensions say of factors, in nats."""

    shared: Float[np.ndarray, "latent factors"]
    """Mutual information of each dimension with each factor."""
    entropies: Float[np.ndarray, " factors"]
    """Of each factor by itself."""

    def gaps(self) -> Float[np.ndarray, " factors"]:
        """Of each factor the information of the dimension that says most of it, less that of the next, by its entropy.

        Their mean is the mutual information gap, MIG (Chen et al. 2018, equation 6): 1 where one dimension tells all of
        a factor and no other tells anything. A single dimension has no other.
        """
        first, second = np.sort(np.vstack([self.shared, np.zeros_like(self.entropies)]), axis=0)[:-3:-1]
        return (first - second) / self.entropies

    def mig(self) -> float:
        """The mean of the gaps."""
        return float(self.gaps().mean())


def information(means: Codes, factors: Factors, logvars: Codes | None = None, bins: int = BINS) -> Information:
    """The mutual information of each latent dimension, divided into equal intervals, with each factor.

    With log variances it is that of a latent drawn from the posterior, as Chen et al. (2018) have it; without, that of
    the means, as Locatello et al. (2019) have it with 20 intervals. Dividing takes information away, so that this is a
    lower bound of that of the images given.

    Args:
        means: posterior means, or codes, [n, latent].
        factors: values of each factor, [n, factors].
        logvars: log variances of the posteriors.
        bins: how many intervals, at least 2.

    Raises:
        ValueError: a factor that has one value for all images.
    """
    values = [np.unique(column, return_inverse=True)[1] for column in factors.T]
    if any(column.max() == 0 for column in values):
        raise ValueError("every factor must have at least two values among the images")
    one_hot = [np.eye(column.max() + 1)[column] for column in values]
    shares = [rows.mean(axis=0) for rows in one_hot]
    shared = np.empty((means.shape[1], len(values)))
    for i, mean in enumerate(np.asarray(means, np.float64).T):
        sigma = None if logvars is None else np.exp(0.5 * np.asarray(logvars[:, i], np.float64))
        masses = _masses(mean, sigma, bins)
        for j, (rows, share) in enumerate(zip(one_hot, shares, strict=True)):
            both = rows.T @ masses / len(mean)
            shared[i, j] = np.sum(xlogy(both, both)) - np.sum(xlogy(both, share[:, None] * masses.mean(axis=0)))
    return Information(np.maximum(shared, 0), np.array([-np.sum(xlogy(share, share)) for share in shares]))


def _masses(mean: np.ndarray, sigma: np.ndarray | None, bins: int) -> Float[np.ndarray, "n bins"]:
    # Of each posterior in each interval; the outer ones go on for ever.
    reach = 0.0 if sigma is None else 2 * sigma
    inner = np.linspace(np.min(mean - reach), np.max(mean + reach), bins + 1)[1:-1]
    if sigma is None:
        return np.eye(bins)[np.searchsorted(inner, mean, side="right")]
    below = ndtr((inner - mean[:, None]) / sigma[:, None])
    return np.diff(below, axis=1, prepend=0, append=1)


def disentanglement(importances: Float[np.ndarray, "latent factors"]) -> float:
    """How much each latent dimension says of one factor alone, from 0 to 1 (Eastwood & Williams 2018, section 2).

    1 - entropy of a dimension's importances for the factors, to the base of their number; the mean over the dimensions,
    weighted by how important each is. With the transpose it is completeness: how much each factor is told by one
    dimension alone.
    """
    sums = importances.sum(axis=1)
    if sums.sum() == 0:
        return 0.0
    shares = importances / np.where(sums > 0, sums, 1)[:, None]
    entropy = -np.sum(xlogy(shares, shares), axis=1) / max(np.log(importances.shape[1]), 1e-12)
    return float(np.sum(sums / sums.sum() * (1 - entropy)))


class DCI(NamedTuple):
    """Of a set of codes (Eastwood & Williams 2018)."""

    disentanglement: float
    completeness: float
    informativeness: float
    """Mean over the factors of the share of test images whose value is told rightly."""
    importances: Float[np.ndarray, "latent factors"]
    """Of each dimension for telling each factor; their sum is 1 for each factor that is told at all."""


def dci(
    codes: Codes,
    factors: Factors,
    test_codes: Float[np.ndarray, "tests latent"],
    test_factors: Int[np.ndarray, "tests factors"],
    seed: int = 0,
) -> DCI:
    """Disentanglement, completeness and informativeness by forests that tell each factor from the codes.

    Importance is the mean fall of Gini's impurity. Each split is the best of all dimensions, so that none is important
    by lot.

    Args:
        codes: to fit on.
        factors: of these codes.
        test_codes: to test on.
        test_factors: of those.
        seed: of the forests.
    """
    importances, told = [], []
    for train, test in zip(factors.T, test_factors.T, strict=True):
        forest = RandomForestClassifier(_TREES, min_samples_leaf=_FEWEST, max_features=None, random_state=seed)
        forest.fit(codes, train)
        importances.append(forest.feature_importances_)
        told.append(float(np.mean(forest.predict(test_codes) == test)))
    matrix = np.stack(importances, axis=1)
    return DCI(disentanglement(matrix), disentanglement(matrix.T), float(np.mean(told)), matrix)
