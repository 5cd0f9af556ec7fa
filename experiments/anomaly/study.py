"""Trains, measures, draws and reports: the study of `experiments.anomaly`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.anomaly import Config
from experiments.anomaly.measure import MODEL, PROTOCOLS, Bench, Protocol, Result, measure
from experiments.anomaly.report import draw, report
from experiments.flags import by_size
from experiments.study import begin
from vae_jax.config import Settings
from vae_jax.data.dataset import Dataset
from vae_jax.data.loading import load_dataset
from vae_jax.errors import UsageError, counted
from vae_jax.measures.anomaly import mean_detection


def run(config: Config) -> dict[str, Any]:
    """Train or restore, score, judge, draw and report; gives back what summary.json holds."""
    dataset = load_dataset(config.dataset, config.data_dir)
    classes = _classes(dataset)
    bench = Bench(dataset, classes, config)
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
    return study.finish(report(study.title, bench, results), protocols=numbers)


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
    epochs = config.epochs if protocol.name == "one_class" else config.reverse_epochs
    normal = {label: protocol.normal(label, classes) for label in classes}
    most = max(len(dataset.train.positions(each)) for each in normal.values())
    changes = {
        **MODEL,
        "epochs": epochs or by_size(dataset, *protocol.epochs),
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
        made, fewest = counted(steps, "step"), counted(min(sizes), "training image")
        raise UsageError(
            f"--batch-size {group[0].batch_size} makes {made} of an epoch, but there are models with only {fewest}.\n"
            "Give a larger --batch-size, or classes of more equal sizes."
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
