"""What `experiments.dimensionality` measures of an embedding."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vae_jax.data.dataset import Dataset
from vae_jax.measures.dimensionality import (
    PrincipalComponents,
    class_numbers,
    neighbour_ranks,
    squared_error,
    trustworthiness,
)
from vae_jax.measures.images import as_rows
from vae_jax.runs.run import Run

NEIGHBOURS = 12
"""Of trustworthiness."""
Row = dict[str, Any]
"""Of the table: method, latent_dim and the numbers that there are."""


def has_classes(dataset: Dataset) -> bool:
    """Whether there are labels of several classes, and images enough for 5-NN."""
    labels = dataset.train.labels
    return labels is not None and dataset.test.labels is not None and len(labels) >= 5 and np.ptp(labels) > 0


def measure_embeddings(
    runs: Sequence[Run], dataset: Dataset, most: int
) -> tuple[list[Row], list[tuple[Row, np.ndarray]]]:
    """A row for each run and for PCA in each of their dimensions, and the two-dimensional embeddings.

    Args:
        runs: finished ones.
        dataset: what they were trained on.
        most: test images for trustworthiness.
    """
    train, test = as_rows(dataset.train.images), as_rows(dataset.test.images)
    ranks = neighbour_ranks(test[:most])
    rows: list[Row] = []
    drawn = []

    def add(method: str, train_codes: np.ndarray, test_codes: np.ndarray, rebuilt: np.ndarray, **more: str) -> None:
        numbers = _numbers(train_codes, test_codes, rebuilt.reshape(dataset.test.images.shape), ranks, dataset)
        rows.append({"method": method, "latent_dim": test_codes.shape[1], **numbers, **more})
        print(f"{method}, dimensions {test_codes.shape[1]}: measured", flush=True)
        if test_codes.shape[1] == 2:
            drawn.append((rows[-1], test_codes))

    for one in runs:
        codes = one.encode(dataset.test.images).means
        add(one.model.name, one.encode(dataset.train.images).means, codes, one.decode(codes), run=str(one.path))
    dims = sorted({one.model.latent_dim for one in runs})
    every = PrincipalComponents.fit(train, dims[-1])
    for pca in (every.first(dim) for dim in dims if dim <= len(every.components)):
        codes = pca.encode(test)
        add("PCA", pca.encode(train), codes, pca.decode(codes))
    return rows, drawn


def _numbers(
    train_codes: np.ndarray, test_codes: np.ndarray, rebuilt: np.ndarray, ranks: np.ndarray, dataset: Dataset
) -> dict[str, float]:
    train, test = dataset.train, dataset.test
    numbers: dict[str, float] = {}
    if has_classes(dataset):
        assert train.labels is not None
        assert test.labels is not None
        numbers |= class_numbers(train_codes, train.labels, test_codes, test.labels)
    if len(ranks) > 2 * NEIGHBOURS:
        numbers["trustworthiness"] = trustworthiness(ranks, test_codes[: len(ranks)], NEIGHBOURS)
    return {**numbers, "squared_error": squared_error(test.images.astype(np.float32) / 255, rebuilt)}
