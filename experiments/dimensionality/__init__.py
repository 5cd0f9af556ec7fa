"""Dimensionality reduction: do the latents keep neighbours and classes? `python -m experiments.dimensionality`.

Trains an AE and a VAE for each latent dimension and compares the embeddings of the test images with PCA's: 1-NN and
5-NN accuracy, a linear probe, trustworthiness (Venna & Kaski 2001), squared error of the reconstruction. k-NN, the
probe and PCA are fitted on train images and scored on test images. `--run RUN ...` takes finished runs instead.

`python -m experiments.dimensionality embed RUN images.npz` embeds your own images with a finished run.
"""

import dataclasses
from pathlib import Path
from typing import Any

from experiments.dimensionality.figures import accuracy_by_dimension, embeddings
from experiments.dimensionality.measure import NEIGHBOURS, measure_embeddings
from experiments.dimensionality.report import PUBLISHED, caption, report
from experiments.study import NetworkConfig, begin, by_size, check_alike, data_of
from vae_jax.config import Settings
from vae_jax.data.dataset import Dataset, load_dataset
from vae_jax.domains import MOST_UNITS, are_different, at_least, epoch_number, seed_field, setting
from vae_jax.runs.run import load_dataset_of, load_run


@dataclasses.dataclass(frozen=True)
class Config(NetworkConfig):
    """Compare the embeddings of AE, VAE and PCA. The word `embed` as the first argument embeds your own images."""

    latent_dims: tuple[int, ...] = setting(
        (2, 8, 32),
        f"different integers of at least 1 and at most {MOST_UNITS}",
        lambda v: are_different(v) and all(1 <= d <= MOST_UNITS for d in v),
    )
    """Dimensions of the latent space to train for; those of --run are its own."""
    run: tuple[Path, ...] = ()
    """Evaluate these finished runs, all of one data set, instead of training."""
    epochs: int | None = epoch_number()
    """Passes over the training images. Default: 20, but 90 for a plane, whose map takes long to unfold (60 for fewer
    than 10,000 images)."""
    fourier_features: int | None = at_least(0, None, most=MOST_UNITS)
    """Sines, and as many cosines, of the latent that the decoder sees beside it. Default: 64 for at most two
    dimensions, else none."""
    batch_size: int | None = at_least(1, None)
    """Images a step. Default: 512 for a plane, else 256; at most 32 for fewer than 10,000 images, so that there are
    enough steps."""
    seed: int = seed_field()
    """Seed of every training run."""
    trust_images: int = at_least(2 * NEIGHBOURS + 1, 10_000, most=60_000)
    """Trustworthiness on at most so many test images, the first ones; its time and memory grow with the square."""


def run(config: Config) -> dict[str, Any]:
    """Train or restore, measure, draw and report; gives back what summary.json holds."""
    given = [load_run(path) for path in config.run]
    check_alike(given, {"data": data_of})
    dataset = load_dataset_of(given[0], config.data_dir) if given else load_dataset(config.dataset, config.data_dir)
    dims = () if given else config.latent_dims
    members = {
        f"runs/{model}-z{dim}": _settings(config, model, dim, dataset) for dim in dims for model in ("ae", "vae")
    }
    study = begin(config, "dimensionality", dataset, members.values())
    rows, drawn = measure_embeddings(given or [*study.train(members).values()], dataset, config.trust_images)
    if drawn:
        panels = [(caption(row), codes) for row, codes in drawn]
        title = f"{study.title} · test images embedded in two dimensions"
        study.draw("embeddings.png", embeddings(panels, dataset.test.labels, title, dataset.class_names))
    if any("knn_5" in row for row in rows):
        published = {method: knn_5 for method, (_, knn_5) in PUBLISHED.items()} if dataset.name == "mnist" else {}
        points = [(row["method"], row["latent_dim"], row["knn_5"]) for row in rows]
        title = f"{study.title} · 5-NN accuracy of test images, neighbours among train images"
        study.draw("accuracy.png", accuracy_by_dimension(points, published, title))
    return study.finish(report(rows, dataset, config.trust_images), rows=rows)


def _settings(config: Config, model: str, dim: int, dataset: Dataset) -> Settings:
    # In a plane a decoder of dense layers alone mixes up classes that one with sines of the latent tells apart.
    plane, waves = dim <= 2, config.fourier_features
    return config.settings(
        dataset,
        model=model,
        latent_dim=dim,
        fourier_features=(64 if plane else 0) if waves is None else waves,
        epochs=config.epochs or (by_size(dataset, 90, 60) if plane else 20),
        batch_size=config.batch_size or min(by_size(dataset, 512 if plane else 256, 32), len(dataset.train)),
    )
