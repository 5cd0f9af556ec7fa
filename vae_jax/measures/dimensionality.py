"""How much of the data's structure an embedding keeps: neighbours, classes, pixels. Any method's embedding will do.

Nothing is fitted on test images: k-NN, the probe and PCA are fitted on train images and scored on test images.
"""

import dataclasses
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Integer, UInt16
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import pairwise_distances_chunked
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

TrainCodes: TypeAlias = Float[np.ndarray, "train latent"]
TrainLabels: TypeAlias = Integer[np.ndarray, " train"]
TestCodes: TypeAlias = Float[np.ndarray, "test latent"]
TestLabels: TypeAlias = Integer[np.ndarray, " test"]
MOST_RANKED = 2**16 - 1
_WORKING_MEMORY = 256  # MiB of distances at a time
_MOST_EXACT = 4096  # features whose covariance matrix is decomposed as a whole


def knn_accuracy(
    train_codes: TrainCodes, train_labels: TrainLabels, test_codes: TestCodes, test_labels: TestLabels, neighbours: int
) -> float:
    """Share of test codes to which their nearest train codes (Euclidean) give the right class by majority.

    Of classes with as many votes, the smallest label wins.

    Raises:
        ValueError: more neighbours than train codes.
    """
    if not 1 <= neighbours <= len(train_codes):
        raise ValueError(f"neighbours must be from 1 to the {len(train_codes)} train codes, got {neighbours}")
    return float(KNeighborsClassifier(neighbours).fit(train_codes, train_labels).score(test_codes, test_labels))


def linear_probe_accuracy(
    train_codes: TrainCodes, train_labels: TrainLabels, test_codes: TestCodes, test_labels: TestLabels
) -> float:
    """Share of test codes that a linear classifier fitted on the train codes gives the right class.

    Multinomial logistic regression on codes standardised by the train codes' mean and standard deviation,
    with scikit-learn's weak L2 penalty (C = 1).

    Raises:
        ValueError: only one class to learn.
    """
    return float(np.mean(probed(train_codes, train_labels, test_codes) == test_labels))


def probed(
    train_codes: TrainCodes,
    train_labels: TrainLabels,
    test_codes: TestCodes,
    weights: Float[np.ndarray, " train"] | None = None,
) -> Integer[np.ndarray, " test"]:
    """The classes that the linear classifier of `linear_probe_accuracy` gives test codes, fitted with these weights.

    Raises:
        ValueError: only one class to learn.
    """
    if len(np.unique(train_labels)) < 2:
        raise ValueError("train_labels must hold at least two classes for a linear probe, got one")
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    probe.fit(train_codes, train_labels, logisticregression__sample_weight=weights)
    found: np.ndarray = probe.predict(test_codes)
    return found


def neighbour_distances(
    queries: Float[np.ndarray, "n features"], references: Float[np.ndarray, "m features"], neighbours: int
) -> Float[np.ndarray, "n _"]:
    """Euclidean distances of each query to its nearest references, ascending, [n, min(neighbours, m)]."""
    nearest = NearestNeighbors(n_neighbors=min(neighbours, len(references)), algorithm="brute").fit(references)
    return nearest.kneighbors(queries)[0]


def neighbour_ranks(points: Float[np.ndarray, "n features"]) -> UInt16[np.ndarray, "n n"]:
    """For each point, the ranks of all others by Euclidean distance: 1 for the nearest, 0 for itself.

    Two bytes a pair: 200 MB for 10,000 points. Computed once, they serve every embedding of the same points.

    Returns:
        [n, n]; row i holds the ranks as seen from point i.

    Raises:
        ValueError: more than 65,535 points.
    """
    number = len(points)
    if number > MOST_RANKED:
        raise ValueError(f"points must be at most {MOST_RANKED:,}, got {number:,}: take a part of them")
    ranks = np.empty((number, number), np.uint16)

    def order(distances: np.ndarray, start: int) -> np.ndarray:
        # Itself comes first, also where other points coincide with it.
        rows = np.arange(len(distances))
        distances[rows, start + rows] = -1
        return np.argsort(distances, axis=1)

    start = 0
    for block in pairwise_distances_chunked(points, reduce_func=order, working_memory=_WORKING_MEMORY):
        np.put_along_axis(ranks[start : start + len(block)], block, np.arange(number, dtype=np.uint16)[None], axis=1)
        start += len(block)
    return ranks


def trustworthiness(
    ranks: UInt16[np.ndarray, "n n"], codes: Float[np.ndarray, "n latent"], neighbours: int = 12
) -> float:
    """Whether neighbours in the embedding are neighbours in the data too: 1 if all are.

    Each of the k nearest codes that is not among the k nearest images costs by how much its rank there exceeds k;
    scaled so that the worst embedding has 0 (Venna & Kaski 2001, equation 1).

    Args:
        ranks: the images' `neighbour_ranks`.
        codes: the same images' embedding.
        neighbours: k, below n / 2.

    Raises:
        ValueError: too many neighbours.
    """
    number = len(codes)
    if not 1 <= neighbours < number / 2:
        raise ValueError(f"neighbours must be from 1 to less than half of the {number} codes, got {neighbours}")
    nearest = NearestNeighbors(n_neighbors=neighbours).fit(codes).kneighbors(return_distance=False)
    excess = np.take_along_axis(ranks, nearest, axis=1).astype(np.int64) - neighbours
    cost = int(np.sum(np.maximum(excess, 0)))
    return 1 - 2 * cost / (number * neighbours * (2 * number - 3 * neighbours - 1))


def squared_error(
    originals: Float[np.ndarray, "n height width channels"], rebuilt: Float[np.ndarray, "n height width channels"]
) -> float:
    """Mean over the images of ||x - x'||^2: squared intensity, summed over the pixels of an image."""
    difference = np.asarray(originals, np.float64) - rebuilt
    return float(np.mean(np.sum(difference**2, axis=(1, 2, 3))))


@dataclasses.dataclass(frozen=True)
class PrincipalComponents:
    """Principal component analysis: the linear embedding with the least squared error."""

    mean: Float[np.ndarray, " features"]
    components: Float[np.ndarray, "latent features"]
    """Orthonormal, that of the largest variance first."""
    variances: Float[np.ndarray, " latent"]
    """Of the points along each component."""

    @classmethod
    def fit(cls, points: Float[np.ndarray, "n features"], most: int) -> "PrincipalComponents":
        """The first `most` components, at most as many as there are points and features."""
        solver = "covariance_eigh" if points.shape[1] <= _MOST_EXACT else "randomized"
        pca = PCA(min(most, *points.shape), svd_solver=solver, random_state=0).fit(points)
        return cls(pca.mean_, pca.components_, pca.explained_variance_)

    def first(self, number: int) -> "PrincipalComponents":
        """The first components alone."""
        return PrincipalComponents(self.mean, self.components[:number], self.variances[:number])

    def encode(self, points: Float[np.ndarray, "m features"]) -> Float[np.ndarray, "m latent"]:
        """Coordinates of points along the components."""
        return points @ self.components.T - self.mean @ self.components.T

    def decode(self, codes: Float[np.ndarray, "m latent"]) -> Float[np.ndarray, "m features"]:
        """The points that have these coordinates, and the mean's in all other directions."""
        return codes @ self.components + self.mean


def class_numbers(
    train_codes: TrainCodes,
    train_labels: TrainLabels,
    test_codes: TestCodes,
    test_labels: TestLabels,
    neighbours: Sequence[int] = (1, 5),
) -> dict[str, float]:
    """All accuracies of an embedding: "knn_1", "knn_5", "linear_probe"."""
    arrays = (train_codes, train_labels, test_codes, test_labels)
    return {
        **{f"knn_{k}": knn_accuracy(*arrays, k) for k in neighbours},
        "linear_probe": linear_probe_accuracy(*arrays),
    }
