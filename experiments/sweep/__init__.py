"""What the KL term does: `python -m experiments.sweep --beta 0 0.1 0.5 1 2 4`.

One VAE for each beta (Higgins et al. 2017), all of a latent dimension trained together in one compiled program, from
the same initial parameters on the same batches with the same noise.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from experiments.study import StudyConfig, begin, finish, markdown_table, trained_together
from vae_jax.config import Settings
from vae_jax.domains import (
    LARGEST_NUMBER,
    MOST_UNITS,
    are_different,
    at_least,
    epoch_number,
    layer_sizes,
    positive,
    seed_field,
    setting,
)

if TYPE_CHECKING:
    from vae_jax.data.dataset import Dataset
    from vae_jax.runs.run import Run


@dataclasses.dataclass(frozen=True)
class Config(StudyConfig):
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
    hidden_sizes: tuple[int, ...] | None = layer_sizes()
    """Widths of the encoder's hidden layers, mirrored by the decoder. Default: as in experiments.mnist."""
    arch: Literal["mlp", "conv"] = "mlp"
    """Networks."""
    batch_size: int = at_least(1, 256)
    """Images a step."""
    learning_rate: float = positive(3e-3)
    """Peak of Adam's learning rate."""
    seed: int = seed_field()
    """Seed of all models."""


def run(config: Config) -> dict[str, Any]:
    """Train what is missing, measure, draw, report; gives back the summary."""
    from experiments.sweep.figures import sweep
    from vae_jax import plots
    from vae_jax.cli.figures import DISPLAY_NAMES
    from vae_jax.data.dataset import load_dataset

    dataset = load_dataset(config.dataset, config.data_dir)
    members = {dim: _members(config, dim, dataset) for dim in config.latent_dim}
    path = begin(
        config, "sweep", dataset, [settings for each in members.values() for settings in each], len(config.beta)
    )
    runs = {dim: _train(each, dataset, path) for dim, each in members.items()}
    points = {dim: [_measure(run, dataset) for run in each] for dim, each in runs.items()}
    first = config.latent_dim[0]
    title = f"{DISPLAY_NAMES.get(dataset.name, dataset.name)}: what the weight of the KL term does to a VAE"
    figure = path / "figures" / "sweep.png"
    figure.parent.mkdir(exist_ok=True)
    planes = [_plane(run, dataset) for run in runs[first]]
    plots.save(sweep(points, planes, dataset.test.labels, first, title), figure)
    numbers = {
        "dataset": dataset.name,
        "epochs": len(runs[first][0].metrics),
        "training_seconds": {dim: sum(row["seconds"] for row in each[0].metrics) for dim, each in runs.items()},
        "points": points,
        "figures": [str(figure)],
    }
    return finish(path, "sweep", _report(dataset.name, numbers), numbers)


def _members(config: Config, dim: int, dataset: "Dataset") -> list[Settings]:
    return [
        config.settings(
            dataset,
            beta=float(beta),
            latent_dim=dim,
            arch=config.arch,
            hidden_sizes=config.hidden_sizes,
            epochs=config.epochs or (8 if len(dataset.train) >= 10_000 else 25),
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            seed=config.seed,
        )
        for beta in config.beta
    ]


def _train(members: list[Settings], dataset: "Dataset", path: Path) -> "list[Run]":
    paths = [path / f"z{settings.latent_dim}-beta{settings.beta:g}" for settings in members]
    return trained_together(paths, members, dataset)


def _measure(run: "Run", dataset: "Dataset") -> dict[str, Any]:
    from vae_jax.cli.figures import Codes

    codes = Codes.of(run, dataset.test.images)
    assert codes.logvars is not None
    assert run.summary is not None
    test = run.summary["test"]
    low, median, high = np.percentile(np.exp(0.5 * codes.logvars), [5, 50, 95])
    return {
        "beta": run.config.beta,
        "reconstruction": test["reconstruction"],
        "kl": test["kl"],
        "loss": test["loss"],
        "active_units": test["active_units"],
        "sigma": [float(low), float(median), float(high)],
        "diagnosis": run.summary["diagnosis"],
    }


def _plane(run: "Run", dataset: "Dataset") -> tuple[np.ndarray, np.ndarray]:
    # Means and standard deviations of the test images in the two most informative dimensions.
    from vae_jax.cli.figures import Codes

    codes = Codes.of(run, dataset.test.images)
    assert codes.logvars is not None
    dims = np.sort(codes.order()[:2])
    dims = np.resize(dims, 2)
    return codes.means[:, dims], np.exp(0.5 * codes.logvars[:, dims])


def _report(name: str, numbers: dict[str, Any]) -> str:
    header = ["latent dimension, beta", "reconstruction", "KL", "sum", "active", "median sigma", "sigma 5% to 95%"]
    rows, words = [], []
    for dim, points in numbers["points"].items():
        for point in points:
            low, median, high = point["sigma"]
            label = f"{dim}-D, beta {point['beta']:g}"
            values = (f"{point[key]:.2f}" for key in ("reconstruction", "kl", "loss"))
            rows.append(
                [label, *values, f"{point['active_units']} of {dim}", f"{median:.2g}", f"{low:.2g} to {high:.2g}"]
            )
            words.append(f"- {label}: {point['diagnosis']}")
    return "\n".join(
        [
            f"# What the KL term does: {name}",
            "",
            markdown_table(header, rows),
            "",
            *words,
            "",
            f"Nats an image on the test split, {numbers['epochs']} epochs. Sum: reconstruction + KL, the negative "
            "evidence lower bound, whatever beta was trained with. Active: variance of the posterior mean above 0.01.",
        ]
    )
