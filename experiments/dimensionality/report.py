"""The report of the dimensionality study: its table, what the numbers mean, published ones beside them."""

from typing import Any

from experiments.dimensionality.measure import NEIGHBOURS, has_classes
from experiments.study import display_name
from experiments.tables import markdown_table
from vae_jax.data.dataset import Dataset

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


def caption(row: dict[str, Any]) -> str:
    """What stands above an embedding: the method and its numbers."""
    texts = [f"{COLUMNS[key][0]} {row[key]:.3f}" for key in ("knn_5", "trustworthiness") if key in row]
    return "\n".join([row["method"], *texts])


def report(rows: list[dict[str, Any]], dataset: Dataset, trust_images: int) -> str:
    """The report in Markdown.

    Args:
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
    parts = [f"# Dimensionality reduction: {display_name(dataset)}", table, _notes(dataset, trust_images)]
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
codes of {train:,} train images, accuracy on {test:,} test images."""
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
