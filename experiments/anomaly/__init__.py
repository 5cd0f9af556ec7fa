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
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from experiments.anomaly.measure import Bench, Result, measure
from experiments.anomaly.protocols import MODEL, PROTOCOLS, Protocol
from experiments.anomaly.report import draw, report
from experiments.study import StudyConfig, begin, by_size
from vae_jax.cli.score import NEIGHBOURS, SAMPLES, false_alarm_rate
from vae_jax.config import Settings
from vae_jax.data.dataset import Dataset, load_dataset
from vae_jax.domains import MOST_SAMPLES, at_least, epoch_number, seed_field
from vae_jax.errors import UsageError
from vae_jax.measures.anomaly import mean_detection


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


def run(config: Config) -> dict[str, Any]:
    """Train or restore, score, judge, draw and report; gives back what summary.json holds."""
    dataset = load_dataset(config.dataset, config.data_dir)
    classes = _classes(dataset)
    bench = Bench(
        *(dataset, classes, config.samples, config.neighbours, config.components, config.false_alarm_rate),
    )
    chosen = [PROTOCOLS[name] for name in PROTOCOLS if config.protocol in (name, "both")]
    groups = {protocol.name: _members(config, protocol, dataset, classes) for protocol in chosen}
    largest = [_largest([*group.values()], dataset) for group in groups.values()]
    study = begin(config, "anomaly", dataset, largest, len(classes))
    results = {}
    for protocol in chosen:
        runs = study.train(groups[protocol.name], together=True).values()
        results[protocol.name] = [
            measure(bench, protocol, one, label) for one, label in zip(runs, classes, strict=True)
        ]
        draw(study, protocol, results[protocol.name])
    numbers = {name: _numbers(PROTOCOLS[name], found) for name, found in results.items()}
    return study.finish(report(bench, results), protocols=numbers)


def _classes(dataset: Dataset) -> tuple[int, ...]:
    splits = (dataset.train, dataset.validation, dataset.test)
    found = [set(np.unique(split.labels).tolist()) for split in splits if split.labels is not None]
    if len(found) < len(splits):
        raise UsageError(
            f"The protocols need labels, which {dataset.name} has not. For images without labels, train a model by\n"
            "python -m experiments.mnist and score others by python -m experiments.anomaly score RUN images.npz"
        )
    if len(found[0]) < 2 or any(labels != found[0] for labels in found):
        raise UsageError(
            f"The protocols need at least two classes, all in each split, but {dataset.name} has {len(found[0])} in "
            f"train, {len(found[1])} in validation\nand {len(found[2])} in test. Give more images of each class."
        )
    return tuple(sorted(found[0]))


def _members(config: Config, protocol: Protocol, dataset: Dataset, classes: Sequence[int]) -> dict[str, Settings]:
    epochs, usual = config.epochs, (30, 60)
    if protocol.name == "reverse":
        epochs, usual = config.reverse_epochs, (8, 15)
    normal = {label: protocol.normal(label, classes) for label in classes}
    most = max(len(dataset.train.positions(each)) for each in normal.values())
    changes = {
        **MODEL,
        "epochs": epochs or by_size(dataset, *usual),
        "batch_size": config.batch_size or min(128, max(1, most // 8)),
    }
    return {
        f"runs/{protocol.run_name.format(label)}": config.settings(dataset, classes=normal[label], **changes)
        for label in classes
    }


def _largest(group: Sequence[Settings], dataset: Dataset) -> Settings:
    # Of a group that is trained together the model with the most images: if it can be trained, so can the others.
    sizes = [len(dataset.train.positions(settings.classes)) for settings in group]
    steps = -(-max(sizes) // group[0].batch_size)
    if min(sizes) < steps:
        raise UsageError(
            f"--batch-size {group[0].batch_size} makes {steps} steps of an epoch, but there are models with only "
            f"{min(sizes)} training images.\nGive a larger --batch-size, or classes of more equal sizes."
        )
    return group[sizes.index(max(sizes))]


def _numbers(protocol: Protocol, results: Sequence[Result]) -> dict[str, Any]:
    means = {name: mean_detection([one.detections[name] for one in results]) for name in results[0].detections}
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
