"""The two protocols, what `experiments.anomaly` measures of each model, and what its models share."""

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from experiments.anomaly import Config
from vae_jax.cli.score import find_threshold, score_images
from vae_jax.data.dataset import Dataset
from vae_jax.errors import UsageError
from vae_jax.measures import anomaly
from vae_jax.measures.anomaly import LATENT_KNN, Detection, detection, model_scores
from vae_jax.measures.images import as_rows
from vae_jax.runs.run import Run

MODEL: dict[str, Any] = {"latent_dim": 16, "likelihood": "gaussian", "sigma": 0.2, "hidden_sizes": (256, 64)}
"""Settings of the VAE, chosen on MNIST's validation images."""


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What is normal, and the score that counts, chosen on MNIST's validation images."""

    name: str
    title: str
    axis_name: str
    """What a class is in it."""
    run_name: str
    score: str
    epochs: tuple[int, int]
    """By default, for at least 10,000 training images and for fewer."""

    def normal(self, label: int, classes: Sequence[int]) -> tuple[int, ...]:
        """The classes to train on."""
        return (label,) if self.name == "one_class" else tuple(c for c in classes if c != label)


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            *("one_class", "Protocol A: one class is normal, all others are anomalies", "normal class", "class-{}"),
            score="scaled_error",  # mean AUROC on MNIST's validation images 0.987; the next, relative error, 0.984
            epochs=(30, 60),
        ),
        Protocol(
            *("reverse", "Reverse protocol: one class is the anomaly, all others are normal", "anomalous class"),
            run_name="without-{}",
            score="latent_knn",  # mean AUROC on MNIST's validation images 0.927; the next, scaled error, 0.860
            epochs=(8, 15),
        ),
    )
}


@dataclasses.dataclass(frozen=True)
class Result:
    """What was measured of one model."""

    label: int
    path: Path
    scores: np.ndarray
    """Of all test images by the score that counts."""
    anomalous: np.ndarray
    detections: dict[str, Detection]
    alarm: dict[str, Any]
    """The threshold and what it gives on the test images, or why there is none."""


@dataclasses.dataclass(frozen=True)
class Bench:
    """The data, and what all models of the study share of it."""

    dataset: Dataset
    classes: tuple[int, ...]
    config: Config

    @property
    def options(self) -> dict[str, int]:
        """Of a model's scores."""
        return {"samples": self.config.samples, "neighbours": self.config.neighbours}

    @cached_property
    def test_points(self) -> np.ndarray:
        """Test images as vectors of pixels."""
        return as_rows(self.dataset.test.images)

    @cached_property
    def distances(self) -> dict[int, np.ndarray]:
        """Distances of the test images to their nearest training images of each class."""
        train = {label: as_rows(self.dataset.train.of_classes((label,)).images) for label in self.classes}
        return {
            label: anomaly.neighbour_distances(self.test_points, points, self.config.neighbours)
            for label, points in train.items()
        }

    def baselines(self, normal: tuple[int, ...]) -> dict[str, np.ndarray]:
        """Scores of the test images that know no model, fitted on the training images of the normal classes.

        Squared distances are also given over ||x||, so that our own scaled error has no advantage by that.
        """
        train, test = as_rows(self.dataset.train.of_classes(normal).images), self.test_points
        distance = anomaly.mean_distance([self.distances[c] for c in normal], self.config.neighbours)
        residual = anomaly.pca_residual(train, test, self.config.components)
        norm = anomaly.norms(test)
        return {
            "pixel_knn": distance,
            "scaled_pixel_knn": distance**2 / norm,
            "pca_residual": residual,
            "scaled_pca_residual": residual / norm,
            "ink": anomaly.ink(test),
            "ink_deviation": anomaly.ink_deviation(train, test),
        }


def measure(bench: Bench, protocol: Protocol, one: Run, label: int) -> Result:
    """Score the test images by the model and the baselines, judge by their labels, calibrate."""
    test, normal = bench.dataset.test, protocol.normal(label, bench.classes)
    scores = model_scores(
        *(one.model, one.params, test.images, one.evaluation_key),
        samples=bench.config.samples,
        binarize=one.config.binarize,
    )
    scores[LATENT_KNN] = score_images(
        one, test.images, LATENT_KNN, labels=test.labels, train=bench.dataset.train, **bench.options
    )
    assert test.labels is not None
    anomalous = ~np.isin(test.labels, normal)
    every = {**scores, **bench.baselines(normal)}
    detections = {name: detection(values, anomalous) for name, values in every.items()}
    counted = scores[protocol.score]
    print(
        f"{one.path.name}: AUROC {detections[protocol.score].auroc:.4f} by {protocol.score}, "
        f"{detections['pixel_knn'].auroc:.4f} by k-NN of raw pixels",
        flush=True,
    )
    return Result(label, one.path, counted, anomalous, detections, _alarm(bench, protocol, one, counted, anomalous))


def _alarm(bench: Bench, protocol: Protocol, one: Run, scores: np.ndarray, anomalous: np.ndarray) -> dict[str, Any]:
    # Keep a threshold with the run, as the word `calibrate` does, and see what it gives on the test images.
    number = len(bench.dataset.validation.positions(one.config.classes))
    try:
        found = find_threshold(one, bench.dataset, protocol.score, bench.config.false_alarm_rate, **bench.options)
    except UsageError as error:
        return {"validation_images": number, "threshold": None, "reason": str(error).partition("\n")[0]}
    found.write(one.path)
    alarms = scores > found.threshold
    return {
        "validation_images": number,
        "threshold": found.threshold,
        "false_alarms": float(alarms[~anomalous].mean()),
        "detected": float(alarms[anomalous].mean()),
    }
