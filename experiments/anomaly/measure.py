"""What `experiments.anomaly` measures of each model, and what its models share."""

import dataclasses
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vae_jax.cli.score import find_threshold, score_images
from vae_jax.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from experiments.anomaly import Config, Protocol
    from vae_jax.data.dataset import Dataset
    from vae_jax.measures.anomaly import Detection
    from vae_jax.runs.run import Run


@dataclasses.dataclass(frozen=True)
class Result:
    """What was measured of one model."""

    label: int
    path: Path
    scores: "np.ndarray"
    """Of all test images by the score that counts."""
    anomalous: "np.ndarray"
    detections: "dict[str, Detection]"
    alarm: dict[str, Any]
    """The threshold and what it gives on the test images, or why there is none."""


@dataclasses.dataclass(frozen=True)
class Bench:
    """The data, and what all models of the study share of it."""

    config: "Config"
    dataset: "Dataset"
    classes: tuple[int, ...]

    @cached_property
    def test_points(self) -> "np.ndarray":
        """Test images as vectors of pixels."""
        from vae_jax.measures.anomaly import as_points

        return as_points(self.dataset.test.images)

    @cached_property
    def distances(self) -> "dict[int, np.ndarray]":
        """Distances of the test images to their nearest training images of each class."""
        from vae_jax.measures.anomaly import as_points, neighbour_distances

        return {
            label: neighbour_distances(
                self.test_points,
                as_points(self.dataset.train.of_classes((label,)).images),
                self.config.neighbours,
            )
            for label in self.classes
        }

    def baselines(self, normal: tuple[int, ...]) -> "dict[str, np.ndarray]":
        """Scores of the test images that know no model, fitted on the training images of the normal classes.

        Squared distances are also given over ||x||, so that our own scaled error has no advantage by that.
        """
        from vae_jax.measures import anomaly

        train, test = anomaly.as_points(self.dataset.train.of_classes(normal).images), self.test_points
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


def measure(bench: Bench, protocol: "Protocol", one: "Run", label: int) -> Result:
    """Score the test images by the model and the baselines, judge by their labels, calibrate."""
    import numpy as np

    from vae_jax.measures.anomaly import LATENT_KNN, detection, model_scores

    config, test, normal = bench.config, bench.dataset.test, protocol.normal(label, bench.classes)
    scores = model_scores(
        *(one.model, one.params, test.images, one.evaluation_key),
        samples=config.samples,
        binarize=one.config.binarize,
    )
    scores[LATENT_KNN] = score_images(
        *(one, test.images, LATENT_KNN),
        train=bench.dataset.train,
        samples=config.samples,
        neighbours=config.neighbours,
    )
    assert test.labels is not None
    anomalous = ~np.isin(test.labels, normal)
    every = {**scores, **bench.baselines(normal)}
    detections = {name: detection(values, anomalous) for name, values in every.items()}
    counted = scores[protocol.score]
    alarm = _alarm(config, protocol, one, bench.dataset, counted, anomalous)
    print(
        f"{one.path.name}: AUROC {detections[protocol.score].auroc:.4f} by {protocol.score}, "
        f"{detections['pixel_knn'].auroc:.4f} by k-NN of raw pixels",
        flush=True,
    )
    return Result(label, one.path, counted, anomalous, detections, alarm)


def _alarm(
    config: "Config",
    protocol: "Protocol",
    one: "Run",
    dataset: "Dataset",
    scores: "np.ndarray",
    anomalous: "np.ndarray",
) -> dict[str, Any]:
    # Keep a threshold with the run, as the word `calibrate` does, and see what it gives on the test images.
    number = len(dataset.validation.positions(one.config.classes))
    options = {"samples": config.samples, "neighbours": config.neighbours}
    try:
        found = find_threshold(one, dataset, protocol.score, config.false_alarm_rate, **options)
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
