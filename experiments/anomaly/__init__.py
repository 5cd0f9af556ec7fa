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
from typing import Literal

from experiments.flags import StudyConfig, run
from vae_jax.cli.score import NEIGHBOURS, SAMPLES, false_alarm_rate
from vae_jax.domains import MOST_SAMPLES, at_least, epoch_number, seed_field

__all__ = ["Config", "run"]


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
