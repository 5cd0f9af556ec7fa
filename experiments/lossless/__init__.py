"""Lossless compression by bits back, against gzip, xz, PNG, WebP: `python -m experiments.lossless`.

Trains a VAE of binarised and one of grey images (of colour images one with residual networks), and codes test images
without a loss: all in one file, and each in a file of its own. A file of many is as long as the negative evidence lower
bound says, to a few thousandths. Published, for MNIST's test images: BB-ANS 0.194 bits a pixel binarised and 1.41 grey
(Townsend et al. 2019), Bit-Swap 1.27 to 1.28 grey (Kingma et al. 2019).
"""

import dataclasses
from pathlib import Path

from experiments.flags import StudyConfig, run
from vae_jax.domains import MOST_UNITS, at_least, epoch_number, seed_field

__all__ = ["Config", "run"]


@dataclasses.dataclass(frozen=True)
class Config(StudyConfig):
    """Bits a value of lossless files: by bits back, beside the bound, and by gzip, bz2, xz, PNG and WebP."""

    run: Path | None = None
    """Compress with this trained run instead of training some."""
    latent_dim: int | None = at_least(1, None, most=MOST_UNITS)
    """Latent dimensions of what is trained. Default: 40, and half the number of pixels where that is less; of colour
    images 16 for each place of a map."""
    epochs: int | None = epoch_number()
    """Passes over the training images. Default: 12, and 60 for fewer than 10,000 images."""
    images: int = at_least(1, 10_000)
    """Test images to compress, at most as many as there are."""
    seed: int = seed_field()
    """Seed of the trained models, and of the pixels drawn where images are binarised."""
