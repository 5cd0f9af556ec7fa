"""Lossy compression by real bytes, against JPEG, WebP and PCA: `python -m experiments.compression`.

Without --run it trains an autoencoder and a VAE (Bernoulli loss; the squared error is 1 dB worse on MNIST's validation
split) and compresses the test images at eight qualities. On MNIST an autoencoder of 32 latent dimensions comes to
22.8 dB with 0.095 bits per pixel, where WebP takes 3.7 times as many, JPEG 6.6 and PCA 2.8 times; it ends at 23.9 dB.
Two more words do the work on your images:

    python -m experiments.compression compress RUN images.npz out.bin
    python -m experiments.compression decompress RUN out.bin images.npz
"""

import dataclasses
from pathlib import Path

from experiments.flags import StudyConfig, run
from vae_jax.domains import MOST_UNITS, at_least, epoch_number, non_negative, seed_field

__all__ = ["Config", "run"]


@dataclasses.dataclass(frozen=True)
class Config(StudyConfig):
    """Rate and distortion of autoencoders, PCA, JPEG and WebP on the test images.

    `compress RUN IMAGES OUT` and `decompress RUN FILE OUT` compress your own images; see `compress --help`.
    """

    run: Path | None = None
    """Compress with this trained run instead of training an autoencoder and a VAE."""
    latent_dim: int | None = at_least(1, None, most=MOST_UNITS)
    """Latent dimensions of what is trained. Default: 32, and half the number of pixels where that is less."""
    epochs: int | None = epoch_number()
    """Passes over the training images. Default: 20, and 60 for fewer than 10,000 images."""
    beta: float = non_negative(0.05)
    """Weight of the VAE's KL term; 1 would give away pixels for a smooth latent space."""
    seed: int = seed_field()
    """Seed of the trained models."""
