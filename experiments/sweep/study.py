"""Trains, measures, draws and reports: the study of `experiments.sweep`."""

from typing import Any

import numpy as np

from experiments.flags import by_size
from experiments.markdown import markdown_table
from experiments.study import begin
from experiments.sweep import Config
from experiments.sweep.figures import sweep
from vae_jax.config import Settings
from vae_jax.data.dataset import Dataset
from vae_jax.data.loading import load_dataset
from vae_jax.errors import counted
from vae_jax.models.codes import Codes
from vae_jax.runs.run import Run


def run(config: Config) -> dict[str, Any]:
    """Train what is missing, measure, draw, report; gives back the summary."""
    dataset = load_dataset(config.dataset, config.data_dir)
    groups = {dim: _members(config, dim, dataset) for dim in config.latent_dim}
    every = [settings for members in groups.values() for settings in members.values()]
    study = begin(config, "sweep", dataset, every, len(config.beta))
    runs = {dim: list(study.train(members, together=True).values()) for dim, members in groups.items()}
    codes = {dim: [one.encode(dataset.test.images) for one in each] for dim, each in runs.items()}
    points = {dim: [*map(_measure, each, codes[dim])] for dim, each in runs.items()}
    first = config.latent_dim[0]
    title = f"{study.title}: what the weight of the KL term does to a VAE"
    study.draw(
        "sweep.png", sweep(points, [*map(_plane, codes[first])], dataset.test.labels, first, title, dataset.class_names)
    )
    number = len(runs[first][0].metrics)
    return study.finish(
        _report(dataset.name, number, points),
        epochs=number,
        training_seconds={dim: sum(row["seconds"] for row in each[0].metrics) for dim, each in runs.items()},
        points=points,
    )


def _members(config: Config, dim: int, dataset: Dataset) -> dict[str, Settings]:
    number = config.epochs or by_size(dataset, 8, 25)
    return {
        f"z{dim}-beta{beta:g}": config.settings(dataset, beta=float(beta), latent_dim=dim, epochs=number)
        for beta in config.beta
    }


def _measure(run: Run, codes: Codes) -> dict[str, Any]:
    assert codes.logvars is not None
    assert run.summary is not None
    return {
        "beta": run.config.beta,
        **{name: run.summary["test"][name] for name in ("reconstruction", "kl", "loss", "active_units")},
        "sigma": np.percentile(np.exp(0.5 * codes.logvars), [5, 50, 95]).tolist(),
        "diagnosis": run.summary["diagnosis"],
    }


def _plane(codes: Codes) -> tuple[np.ndarray, np.ndarray]:
    # Means and standard deviations of the images in the two most informative dimensions.
    assert codes.logvars is not None
    dims = np.resize(np.sort(codes.order()[:2]), 2)
    return codes.means[:, dims], np.exp(0.5 * codes.logvars[:, dims])


def _report(dataset: str, number: int, points: dict[int, list[dict[str, Any]]]) -> str:
    header = ["latent dimension, beta", "reconstruction", "KL", "sum", "active", "median sigma", "sigma 5% to 95%"]
    rows, words = [], []
    for dim, point in ((dim, point) for dim, each in points.items() for point in each):
        low, median, high = point["sigma"]
        label = f"{dim}-D, beta {point['beta']:g}"
        values = (f"{point[key]:.2f}" for key in ("reconstruction", "kl", "loss"))
        rows.append([label, *values, f"{point['active_units']} of {dim}", f"{median:.2g}", f"{low:.2g} to {high:.2g}"])
        words.append(f"- {label}: {point['diagnosis']}\n")
    epochs = counted(number, "epoch")
    return f"""# What the KL term does: {dataset}

{markdown_table(header, rows)}

{"".join(words)}
Nats an image on the test split, {epochs}. Sum: reconstruction + KL, the negative evidence lower bound, \
whatever beta was trained with. Active: variance of the posterior mean above 0.01."""
