"""Trains, measures, draws and reports: the study of `experiments.dimensionality`."""

from typing import Any

from experiments.dimensionality import Config
from experiments.dimensionality.figures import accuracy_by_dimension, embeddings
from experiments.dimensionality.measure import PUBLISHED, caption, measure_embeddings, report
from experiments.flags import by_size
from experiments.study import begin, check_alike, data_of
from vae_jax.config import Settings
from vae_jax.data.dataset import Dataset
from vae_jax.data.loading import load_dataset
from vae_jax.runs.run import load_dataset_of, load_run


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
    return study.finish(report(study.title, rows, dataset, config.trust_images), rows=rows)


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
