"""When a score is an alarm: a threshold with a guaranteed rate of false alarms, kept with the run."""

import dataclasses
import math
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.domains import MOST_SAMPLES
from vae_jax.errors import UsageError
from vae_jax.measures.anomaly import MODEL_SCORES, NEGATIVE_LOG_PRIOR, Scores
from vae_jax.runs.records import read_json, write_json

_LARGEST = 1e38  # no float32 goes beyond
RECORD = "anomaly.json"
"""The file of a run directory that holds its threshold."""


def calibrate(normal: Scores, false_alarm_rate: float) -> float:
    """The threshold above which a score is an alarm, so that a new normal image gives one with at most this chance.

    Split conformal prediction (Vovk et al. 2005; Angelopoulos & Bates 2023, section 1): of n scores the one of rank
    ceil((n + 1)(1 - rate)). For exchangeable scores, the chance of a false alarm over both the new image and the
    n is at most the rate, and without ties at least the rate - 1 / (n + 1), whatever the score's distribution.

    Args:
        normal: scores of normal images that the model was not trained on.
        false_alarm_rate: wanted, in (0, 1).

    Raises:
        UsageError: the rate is outside (0, 1), too small for so few images, or a score is not finite.
    """
    number = len(normal)
    if not 0 < false_alarm_rate < 1:
        raise UsageError(f"--false-alarm-rate must be a number between 0 and 1, got {false_alarm_rate}.")
    # The rate as it was written: 0.29 * 100 is below 29 in binary.
    alarms = math.floor(Fraction(str(false_alarm_rate)) * (number + 1))
    if alarms < 1:
        raise UsageError(
            f"--false-alarm-rate {false_alarm_rate} needs at least {math.ceil(1 / Fraction(str(false_alarm_rate))) - 1}"
            f" validation images, got {number}.\n"
            f"Give a rate of at least {math.ceil(1e4 / (number + 1)) / 1e4}, or a run with more validation images."
        )
    if not np.isfinite(normal).all():
        raise UsageError("The scores of the validation images must be finite to calibrate on. Train the run anew.")
    return float(np.sort(normal)[number - alarms])


@dataclasses.dataclass(frozen=True)
class Threshold:
    """Above which value of which score an image is called anomalous, and how that was found."""

    score: str
    threshold: float
    false_alarm_rate: float
    validation_images: int
    samples: int
    """Latent samples an image."""
    neighbours: int
    """Of the latent k-NN."""
    step: int
    """Of the checkpoint whose scores were calibrated."""

    def write(self, run: Path) -> None:
        """Write anomaly.json into the run directory, atomically."""
        write_json(run / RECORD, dataclasses.asdict(self))

    @classmethod
    def read(cls, run: Path) -> "Threshold | None":
        """What anomaly.json of the run directory says; None where there is none.

        Raises:
            UsageError: it is damaged.
        """
        file = run / RECORD
        if not file.exists():
            return None
        remedy = f"Write it anew by python -m vae_jax calibrate {run}"
        content = read_json(file, remedy)
        try:
            return cls(**_checked(content))
        except ValueError as error:
            raise UsageError(f"{file} is damaged: {error}.\n{remedy}") from error


def _checked(content: Any) -> Mapping[str, Any]:
    fields = {field.name: field.type for field in dataclasses.fields(Threshold)}
    if not isinstance(content, dict) or set(content) != set(fields):
        raise ValueError(f"it must hold {', '.join(fields)}")
    for name, kind in fields.items():
        value = content[name]
        right = type(value) is kind or (kind is float and type(value) is int)
        if not right or (kind is not str and not abs(value) < _LARGEST):
            raise ValueError(f"{name} is {str(value)[:60]!r}")
    if content["score"] not in (*MODEL_SCORES["vae"], NEGATIVE_LOG_PRIOR):
        raise ValueError(f"score is {content['score']!r}")
    if not 0 < content["false_alarm_rate"] < 1:
        raise ValueError(f"false_alarm_rate is {content['false_alarm_rate']!r}")
    if not all(1 <= content[name] <= MOST_SAMPLES for name in ("samples", "neighbours")):
        raise ValueError(f"samples and neighbours must be at least 1 and at most {MOST_SAMPLES}")
    return content
