"""What the KL term does: `python -m experiments.sweep --beta 0 0.1 0.5 1 2 4`.

One VAE for each beta (Higgins et al. 2017), all of a latent dimension trained together in one compiled program, from
the same initial parameters on the same batches with the same noise.
"""

import dataclasses
from typing import Any

import numpy as np

from experiments.study import NetworkConfig, begin, by_size
from experiments.sweep.figures import sweep
from experiments.tables import markdown_table
from vae_jax.config import Settings
from vae_jax.data.dataset import Dataset, load_dataset
from vae_jax.domains import (
    LARGEST_NUMBER,
    MOST_UNITS,
    are_different,
    at_least,
    epoch_number,
    positive,
    seed_field,
    setting,
)
from vae_jax.models.codes import Codes
from vae_jax.runs.run import Run


@dataclasses.dataclass(frozen=True)
class Config(NetworkConfig):
    """Train VAEs with several weights of the KL term, and draw what it changes."""

    beta: tuple[float, ...] = setting(
        (0.0, 0.1, 0.5, 1.0, 2.0, 4.0),
        f"different numbers of at least 0 and at most {LARGEST_NUMBER:g}",
        lambda v: are_different(v) and all(0 <= b <= LARGEST_NUMBER for b in v),
    )
    """Weights of the KL term; 1 is the evidence lower bound."""
    latent_dim: tuple[int, ...] = setting(
        (2,),
        f"different integers of at least 1 and at most {MOST_UNITS}",
        lambda v: are_different(v) and all(1 <= d <= MOST_UNITS for d in v),
    )
    """Latent dimensions; one compiled program for each."""
    epochs: int | None = epoch_number()
    """Passes over the training images. Default: 8, and 25 for fewer than 10,000 images."""
    batch_size: int = at_least(1, 256)
    """Images a step."""
    learning_rate: float = positive(3e-3)
    """Peak of Adam's learning rate."""
    seed: int = seed_field()
    """Seed of all models."""


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
    return f"""# What the KL term does: {dataset}

{markdown_table(header, rows)}

{"".join(words)}
Nats an image on the test split, {number} epochs. Sum: reconstruction + KL, the negative evidence lower bound, \
whatever beta was trained with. Active: variance of the posterior mean above 0.01."""
