"""What `experiments.dimensionality` measures of an embedding, and its report: published numbers beside our own."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.dimensionality import NEIGHBOURS
from experiments.markdown import markdown_table
from vae_jax.data.dataset import Dataset
from vae_jax.errors import counted
from vae_jax.measures.dimensionality import (
    PrincipalComponents,
    class_numbers,
    neighbour_ranks,
    squared_error,
    trustworthiness,
)
from vae_jax.measures.images import as_rows
from vae_jax.runs.run import Run

Row = dict[str, Any]
"""Of the table: method, latent_dim and the numbers that there are."""
# Two dimensions of MNIST, 10,000 points of the TopoAE authors (Moor et al. 2020), leave one out: 1-NN, 5-NN.
PUBLISHED = {
    "PCA": (0.388, 0.436),
    "AE": (0.826, 0.872),
    "TopoAE": (0.810, 0.859),
    "UMAP": (0.833, 0.887),
    "t-SNE": (0.953, 0.966),
}
PUBLISHED_NOTE = """\
[C]: recomputed from 10,000 embedded points that the authors of TopoAE (Moor et al. 2020) published, leave one out;
[V2]: quoted by a third party. t-SNE fits the very points that it embeds, all others embed new images too; ours are
of test images, with the neighbours among train images."""
COLUMNS = {
    "knn_1": ("1-NN", "{:.3f}"),
    "knn_5": ("5-NN", "{:.3f}"),
    "linear_probe": ("linear probe", "{:.3f}"),
    "trustworthiness": ("trustworthiness", "{:.3f}"),
    "squared_error": ("squared error", "{:.2f}"),
}


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


def caption(row: Row) -> str:
    """What stands above an embedding: the method and its numbers."""
    texts = [f"{COLUMNS[key][0]} {row[key]:.3f}" for key in ("knn_5", "trustworthiness") if key in row]
    return "\n".join([row["method"], *texts])


def report(title: str, rows: list[Row], dataset: Dataset, trust_images: int) -> str:
    """The report in Markdown.

    Args:
        title: what titles call the data.
        rows: one for each embedding: method, latent_dim and the numbers of COLUMNS that there are.
        dataset: what was embedded.
        trust_images: the most test images that trustworthiness was measured on.
    """
    columns = {key: value for key, value in COLUMNS.items() if any(key in row for row in rows)}
    rows = sorted(rows, key=lambda row: row["latent_dim"])
    cells = [
        [row["method"], str(row["latent_dim"]), *(text.format(row[key]) for key, (_, text) in columns.items())]
        for row in rows
    ]
    table = markdown_table(["embedding", "dimensions", *(heading for heading, _ in columns.values())], cells)
    parts = [f"# Dimensionality reduction: {title}", table, _notes(dataset, trust_images)]
    if dataset.name == "mnist":
        published = [
            [name, f"{one:.3f} [C]", f"{five:.3f} [C]", "0.946 [V2]" if name == "t-SNE" else ""]
            for name, (one, five) in PUBLISHED.items()
        ]
        header = ["published, 2 dimensions", "1-NN", "5-NN", "trustworthiness"]
        parts += [markdown_table(header, published), PUBLISHED_NOTE]
    return "\n\n".join(parts)


def _notes(dataset: Dataset, trust_images: int) -> str:
    train, test = len(dataset.train), len(dataset.test)
    trusted = min(test, trust_images)
    accuracy = "The data has no labels of several classes, so no accuracy is reported."
    if has_classes(dataset):
        accuracy = f"""\
1-NN, 5-NN (Euclidean) and the linear probe (multinomial logistic regression on standardised codes): fitted on the
codes of {counted(train, "train image")}, accuracy on {counted(test, "test image")}."""
    trust = f"Trustworthiness needs more than {2 * NEIGHBOURS} test images."
    if trusted > 2 * NEIGHBOURS:
        which = f"all {test:,}" if trusted == test else f"the first {trusted:,}"
        trust = f"Trustworthiness (Venna & Kaski 2001) with k = {NEIGHBOURS} on {which} test images."
    return f"""\
{accuracy}
{trust}
Squared error: of the reconstruction from the codes, summed over an image's pixels in [0, 1], mean over the test images.
PCA is fitted on the train images; no other linear method has a smaller error on those. It has at most as many
dimensions as an image has pixels."""
