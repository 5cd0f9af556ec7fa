"""Latent dimensions that stand for one factor each: `python -m experiments.disentangle --seeds 3`.

A VAE, a beta-VAE (Higgins et al. 2017) and a beta-TCVAE (Chen et al. 2018) on dSprites, whose five factors are known.
Reports the mutual information gap (MIG), disentanglement, completeness and informativeness (DCI; Eastwood & Williams
2018) beside the evidence lower bound, and draws what each latent dimension does.
"""

import dataclasses
from typing import Literal

from experiments.flags import NetworkConfig, run
from vae_jax.domains import MOST_SHOWN, MOST_UNITS, are_different, at_least, epoch_number, positive, setting

__all__ = ["Config", "run"]
DEFAULT_EPOCHS = 20
FEWEST = 100
"""Test images that the measures need."""
NAMES = {"vae": "VAE", "beta-vae": "beta-VAE", "beta-tcvae": "beta-TCVAE"}


@dataclasses.dataclass(frozen=True)
class Config(NetworkConfig):
    """Train VAEs that should tell apart what images are made of, and measure whether they do."""

    dataset: str | None = "dsprites"
    """dsprites, which is 73,728 images, or dsprites-N, which is N of the 737,280 that there are."""
    models: tuple[Literal["vae", "beta-vae", "beta-tcvae"], ...] = setting(
        ("vae", "beta-vae", "beta-tcvae"), "different ones of vae, beta-vae and beta-tcvae, at least one", are_different
    )
    """Which of the models."""
    beta: float = positive(4.0)
    """Weight of the KL term of the beta-VAE."""
    tc_weight: float = positive(6.0)
    """Weight of the total correlation of the beta-TCVAE."""
    seeds: int = at_least(1, 3, most=MOST_SHOWN)
    """Runs of each model, which are trained together."""
    latent_dim: int = at_least(2, 10, most=MOST_UNITS)
    """Dimensions of the latent space."""
    epochs: int | None = epoch_number()
    """Passes over the training images. Default: 20."""
    steps: int | None = at_least(1, None)
    """Steps of each model, in place of --epochs."""
    batch_size: int = at_least(2, 256)
    """Images a step."""
    learning_rate: float = positive(1e-3)
    """Peak of Adam's learning rate."""
