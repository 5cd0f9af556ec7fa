"""Few labels: M2 against the classifier alone and M1: `python -m experiments.semi_supervised`.

Of the training images 100 or 1,000 have labels, as many of each class. M2 (Kingma et al. 2014; `--condition inferred`)
learns from all of them. Beside it: the same classifier trained on the labelled images alone, and M1, a logistic
regression and 5-NN on the latent means that a VAE of all images gives the labelled ones. Test error of each.
"""

import dataclasses

from experiments.flags import StudyConfig, run
from vae_jax.domains import (
    MOST_UNITS,
    are_different,
    at_least,
    epoch_number,
    layer_sizes,
    non_negative,
    positive,
    probability,
    setting,
)

__all__ = ["Config", "run"]


@dataclasses.dataclass(frozen=True)
class Config(StudyConfig):
    """Train M2 and what it is compared with on few labels, and measure the error on test images."""

    numbers: tuple[int, ...] = setting(
        (100, 1000),
        "different multiples of the number of classes, from 1 to 1000000",
        lambda v: are_different(v) and all(1 <= n <= 1_000_000 for n in v),
    )
    """Labelled training images."""
    seeds: int = at_least(1, 3, most=100)
    """Models of each, and choices of the labelled images."""
    epochs: int | None = epoch_number()
    """Passes of M2 over the training images. Default: 10, and 60 for fewer than 10,000 images."""
    steps: int = at_least(1, 2000, most=1_000_000)
    """Of the classifier alone."""
    latent_dim: int = at_least(1, 6, most=MOST_UNITS)
    """Dimensions of the latent space; with many of them the class says little more."""
    hidden_sizes: tuple[int, ...] = layer_sizes((300,))
    """Hidden layers of the encoder, mirrored by the decoder, and of the classifier."""
    batch_size: int = at_least(1, 100)
    """Images a step."""
    learning_rate: float = positive(3e-3)
    """Peak of Adam's learning rate."""
    labelled_share: float = probability(0.1)
    """Share of M2's images in an epoch that have labels."""
    classification_weight: float = non_negative(5.0)
    """Weight of M2's classification loss."""
    head_start_steps: int = at_least(0, 500)
    """Steps of M2 before its classifier learns from images without labels."""
    augment: bool = False
    """Shift the training images a little at each step, for M2 and for the classifier alone; the published numbers are
    without."""
