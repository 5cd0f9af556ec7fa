"""What the KL term does: `python -m experiments.sweep --beta 0 0.1 0.5 1 2 4`.

One VAE for each beta (Higgins et al. 2017), all of a latent dimension trained together in one compiled program, from
the same initial parameters on the same batches with the same noise.
"""

import dataclasses

from experiments.flags import NetworkConfig, latent_dims, run
from vae_jax.domains import LARGEST_NUMBER, are_different, at_least, epoch_number, positive, seed_field, setting

__all__ = ["Config", "run"]


@dataclasses.dataclass(frozen=True)
class Config(NetworkConfig):
    """Train VAEs with several weights of the KL term, and draw what it changes."""

    beta: tuple[float, ...] = setting(
        (0.0, 0.1, 0.5, 1.0, 2.0, 4.0),
        f"different numbers of at least 0 and at most {LARGEST_NUMBER:g}",
        lambda v: are_different(v) and all(0 <= b <= LARGEST_NUMBER for b in v),
    )
    """Weights of the KL term; 1 is the evidence lower bound."""
    latent_dim: tuple[int, ...] = latent_dims(2)
    """Latent dimensions; one compiled program for each."""
    epochs: int | None = epoch_number()
    """Passes over the training images. Default: 8, and 25 for fewer than 10,000 images."""
    batch_size: int = at_least(1, 256)
    """Images a step."""
    learning_rate: float = positive(3e-3)
    """Peak of Adam's learning rate."""
    seed: int = seed_field()
    """Seed of all models."""
