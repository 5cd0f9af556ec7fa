"""What the reparametrisation does: `python -m experiments.reparametrisation`.

A small VAE is trained for a few epochs; then the gradient of one image's expected reconstruction loss is estimated from
one latent sample at a time, by the pathwise estimator that the reparametrisation makes possible, by the score function
with and without a baseline, and through a sample drawn plainly. Each is set against finite differences of the expected
loss under common random numbers.
"""

import dataclasses

from experiments.flags import StudyConfig, run
from vae_jax.domains import MOST_UNITS, at_least, epoch_number

__all__ = ["Config", "run"]


@dataclasses.dataclass(frozen=True)
class Config(StudyConfig):
    """Compare gradient estimators for the encoder of a small VAE, in numbers and a figure."""

    dataset: str | None = "digits"
    """Data set, as everywhere; the small embedded one is enough here."""
    latent_dim: int = at_least(1, 2, most=MOST_UNITS)
    """Dimensions of the latent space."""
    epochs: int = epoch_number(10)
    """Passes over the training images before the gradients are looked at."""
    images: int = at_least(1, 50)
    """Test images whose gradients are averaged over."""
    draws: int = at_least(10, 4000, most=100_000)
    """Gradients estimated for each image, from one latent sample each."""
