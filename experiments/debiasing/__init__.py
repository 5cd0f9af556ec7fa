"""Training on a set that is unfair: `python -m experiments.debiasing`.

Of one group of the training images all but a few are left out: a class, or the fourth with the most ink. VAEs are
trained on the rest with each image once an epoch, each class as often as any other, and images with rare latents more
often (Amini et al. 2019, `--sampling rare`). Of fair test images it is measured how well each group is rebuilt, and how
well a linear probe on the latents tells its classes. `--by class ink` does both.
"""

import dataclasses
from typing import Literal

from experiments.flags import StudyConfig, run
from vae_jax.domains import (
    MOST_UNITS,
    are_different,
    at_least,
    epoch_number,
    layer_sizes,
    positive,
    probability,
    setting,
)

__all__ = ["Config", "run"]


@dataclasses.dataclass(frozen=True)
class Config(StudyConfig):
    """Thin a group of the training images, train with each sampling, and measure every group."""

    by: tuple[Literal["class", "ink"], ...] = setting(("class", "ink"), "of class and ink, each once", are_different)
    """What makes the groups: the class; or a fourth of the images by their ink, so that classes say nothing of it."""
    thinned: int = at_least(0, 8)
    """The class that is thinned; of ink it is the fourth with the most."""
    kept: float = probability(0.02)
    """Share of the images of that group that are kept."""
    seeds: int = at_least(1, 3, most=100)
    """Models of each sampling."""
    epochs: int | None = epoch_number()
    """Passes over the training images. Default: 8, and 60 for fewer than 10,000 images."""
    latent_dim: int = at_least(1, 8, most=MOST_UNITS)
    """Dimensions of the latent space."""
    hidden_sizes: tuple[int, ...] = layer_sizes((256,))
    """Hidden layers of the encoder, mirrored by the decoder."""
    batch_size: int = at_least(1, 256)
    """Images a step."""
    learning_rate: float = positive(2e-3)
    """Peak of Adam's learning rate."""
