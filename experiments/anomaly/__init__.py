"""Anomaly detection: does a model of the normal images notice the others? `python -m experiments.anomaly`.

Two protocols, on every class of a labelled data set, judged on all test images by AUROC and average precision:

- one_class (protocol A of Ruff et al. 2018, "Deep one-class classification"): train on one class, the others are
  anomalies;
- reverse: train on all classes but one, that one is the anomaly.

The models of a protocol are trained together. Which score counts was chosen on validation images and is fixed here.
(The reverse protocol's was changed to the best one on validation after a first run had been judged with another.)
Raw-pixel k-NN, the residual of PCA, and the amount of ink stand beside it.

`python -m experiments.anomaly calibrate RUN` finds a threshold for a wanted rate of false alarms, for any finished run,
and `python -m experiments.anomaly score RUN images.npz` scores your own images into a CSV.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from experiments.anomaly.measure import Bench, Result, measure
from experiments.study import StudyConfig, begin, finish, trained_together
from vae_jax.cli.score import NEIGHBOURS, SAMPLES, false_alarm_rate
from vae_jax.config import Settings
from vae_jax.domains import MOST_SAMPLES, at_least, epoch_number, seed_field
from vae_jax.errors import UsageError

if TYPE_CHECKING:
    from vae_jax.data.dataset import Dataset

STUDY = "anomaly"


@dataclasses.dataclass(frozen=True)
class Config(StudyConfig):
    """Measure anomaly detection by both protocols.

    As the first argument, the word `calibrate` finds a threshold for a finished run, `score` scores your own images.
    """

    protocol: Literal["one_class", "reverse", "both"] = "both"
    """Train on one class, on all but one, or both."""
    epochs: int | None = epoch_number()
    """Passes over the images of one class. Default: 30, and 60 for fewer than 10,000 training images."""
    reverse_epochs: int | None = epoch_number()
    """Passes over the images of all classes but one. Default: 8, and 15 for fewer than 10,000 training images."""
    batch_size: int | None = at_least(1, None)
    """Images a step. Default: 128, and at most an eighth of the largest class or of the classes together."""
    samples: int = at_least(1, SAMPLES, most=MOST_SAMPLES)
    """Latent samples an image."""
    neighbours: int = at_least(1, NEIGHBOURS)
    """Of both k-NN scores."""
    components: int = at_least(1, 32)
    """Principal components of the PCA residual."""
    false_alarm_rate: float = false_alarm_rate()
    """Wanted chance that a normal image is called anomalous, for the threshold that is kept with each run."""
    seed: int = seed_field()
    """Seed of every training run."""


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What is normal, the model of it, and the score that counts; both chosen on MNIST's validation images."""

    name: str
    title: str
    axis_name: str
    """What a class is in it."""
    run_name: str
    settings: Mapping[str, Any]
    score: str
    published: tuple[tuple[str, str], ...]
    """Method and mean AUROC over MNIST's ten digits, with the mark of where it was read."""

    def normal(self, label: int, classes: Sequence[int]) -> tuple[int, ...]:
        """The classes to train on."""
        return (label,) if self.name == "one_class" else tuple(c for c in classes if c != label)


PROTOCOLS = {
    "one_class": Protocol(
        name="one_class",
        title="Protocol A: one class is normal, all others are anomalies",
        axis_name="normal class",
        run_name="class-{}",
        settings={"latent_dim": 16, "likelihood": "gaussian", "sigma": 0.2, "hidden_sizes": (256, 64)},
        score="scaled_error",  # mean AUROC on MNIST's validation images 0.987; the next, relative error, 0.984
        published=(
            ("kernel density estimation", "0.869"),
            ("convolutional autoencoder (DCAE)", "0.897"),
            ("one-class SVM", "0.913 or 0.951, by paper"),
            ("AnoGAN", "0.913"),
            ("isolation forest", "0.923"),
            ("Deep SVDD", "0.948 [V2]"),
            ("VAE, of the OCGAN paper", "0.970"),
            ("LSA", "0.975"),
            ("OCGAN", "0.975"),
        ),
    ),
    "reverse": Protocol(
        name="reverse",
        title="Reverse protocol: one class is the anomaly, all others are normal",
        axis_name="anomalous class",
        run_name="without-{}",
        settings={"latent_dim": 16, "likelihood": "gaussian", "sigma": 0.2, "hidden_sizes": (256, 64)},
        score="latent_knn",  # mean AUROC on MNIST's validation images 0.927; the next, scaled error, 0.860
        published=(("VAE, -ELBO, 2 latent dimensions", "0.855 [V]"), ("VAE, -ELBO, 32 latent dimensions", "0.718 [V]")),
    ),
}


def run(config: Config) -> dict[str, Any]:
    """Train or restore, score, judge, draw and report; gives back what summary.json holds."""
    from experiments.anomaly.report import draw, report
    from vae_jax.data.dataset import load_dataset

    dataset = load_dataset(config.dataset, config.data_dir)
    bench = Bench(config, dataset, _classes(dataset))
    chosen = [PROTOCOLS[name] for name in PROTOCOLS if config.protocol in (name, "both")]
    members = {
        protocol.name: [_settings(config, protocol, label, bench) for label in bench.classes] for protocol in chosen
    }
    path = begin(config, STUDY, dataset, _largest(members.values(), dataset), len(bench.classes))
    (path / "figures").mkdir(exist_ok=True)
    results = {}
    for protocol in chosen:
        paths = [path / "runs" / protocol.run_name.format(label) for label in bench.classes]
        runs = trained_together(paths, members[protocol.name], dataset)
        results[protocol.name] = [
            measure(bench, protocol, one, label) for one, label in zip(runs, bench.classes, strict=True)
        ]
        draw(protocol, results[protocol.name], dataset, path)
    numbers = {
        "dataset": dataset.name,
        "sha256": dataset.sha256,
        "protocols": {name: _numbers(PROTOCOLS[name], found) for name, found in results.items()},
    }
    return finish(path, STUDY, report(config, dataset, PROTOCOLS, results), numbers)


def _largest(members: Iterable[list[Settings]], dataset: "Dataset") -> list[Settings]:
    # Of each group that is trained together the model with the most images: if it can be trained, so can the others.
    found = []
    for group in members:
        sizes = [len(dataset.train.positions(settings.classes)) for settings in group]
        found.append(group[sizes.index(max(sizes))])
        steps = -(-max(sizes) // group[0].batch_size)
        if min(sizes) < steps:
            raise UsageError(
                f"--batch-size {group[0].batch_size} makes {steps} steps of an epoch, but there are models with only "
                f"{min(sizes)} training images.\nGive a larger --batch-size, or classes of more equal sizes."
            )
    return found


def _classes(dataset: "Dataset") -> tuple[int, ...]:
    import numpy as np

    splits = (dataset.train, dataset.validation, dataset.test)
    if any(split.labels is None for split in splits):
        raise UsageError(
            f"The protocols need labels, which {dataset.name} has not. For images without labels, train a model by\n"
            "python -m experiments.mnist and score others by python -m experiments.anomaly score RUN images.npz"
        )
    found = [set(np.unique(split.labels).tolist()) for split in splits if split.labels is not None]
    if len(found[0]) < 2 or any(labels != found[0] for labels in found):
        raise UsageError(
            f"The protocols need at least two classes, all in each split, but {dataset.name} has {len(found[0])} in "
            f"train, {len(found[1])} in validation\nand {len(found[2])} in test. Give more images of each class."
        )
    return tuple(sorted(found[0]))


def _settings(config: Config, protocol: Protocol, label: int, bench: Bench) -> Settings:
    large = len(bench.dataset.train) >= 10_000
    sizes = [len(bench.dataset.train.positions(protocol.normal(c, bench.classes))) for c in bench.classes]
    alone = protocol.name == "one_class"
    epochs = (config.epochs or (30 if large else 60)) if alone else (config.reverse_epochs or (8 if large else 15))
    return config.settings(
        bench.dataset,
        **protocol.settings,
        epochs=epochs,
        batch_size=config.batch_size or min(128, max(1, max(sizes) // 8)),
        classes=protocol.normal(label, bench.classes),
        seed=config.seed,
    )


def _numbers(protocol: Protocol, results: Sequence[Result]) -> dict[str, Any]:
    from vae_jax.measures.anomaly import mean_detection

    names = results[0].detections
    means = {name: mean_detection([result.detections[name] for result in results]) for name in names}
    return {
        "score": protocol.score,
        "mean": {name: found._asdict() for name, found in means.items()},
        "classes": {
            str(result.label): {
                "run": str(result.path),
                **{name: found._asdict() for name, found in result.detections.items()},
                "alarm": result.alarm,
            }
            for result in results
        },
    }
