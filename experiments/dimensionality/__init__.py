"""Dimensionality reduction: do the latents keep neighbours and classes? `python -m experiments.dimensionality`.

Trains an AE and a VAE for each latent dimension and compares the embeddings of the test images with PCA's: 1-NN and
5-NN accuracy, a linear probe, trustworthiness (Venna & Kaski 2001), squared error of the reconstruction. k-NN, the
probe and PCA are fitted on train images and scored on test images. `--run RUN ...` takes finished runs instead.

`python -m experiments.dimensionality embed RUN images.npz` embeds your own images with a finished run.
"""

import dataclasses
from pathlib import Path

from experiments.flags import NetworkConfig, latent_dims, run
from vae_jax.domains import MOST_UNITS, at_least, epoch_number, seed_field

__all__ = ["Config", "run"]
NEIGHBOURS = 12
"""Of trustworthiness."""


@dataclasses.dataclass(frozen=True)
class Config(NetworkConfig):
    """Compare the embeddings of AE, VAE and PCA. The word `embed` as the first argument embeds your own images."""

    latent_dims: tuple[int, ...] = latent_dims(2, 8, 32)
    """Dimensions of the latent space to train for; those of --run are its own."""
    run: tuple[Path, ...] = ()
    """Evaluate these finished runs, all of one data set, instead of training."""
    epochs: int | None = epoch_number()
    """Passes over the training images. Default: 20, but 90 for a plane, whose map takes long to unfold (60 for fewer
    than 10,000 images)."""
    fourier_features: int | None = at_least(0, None, most=MOST_UNITS)
    """Sines, and as many cosines, of the latent that the decoder sees beside it. Default: 64 for at most two
    dimensions, else none."""
    batch_size: int | None = at_least(1, None)
    """Images a step. Default: 512 for a plane, else 256; at most 32 for fewer than 10,000 images, so that there are
    enough steps."""
    seed: int = seed_field()
    """Seed of every training run."""
    trust_images: int = at_least(2 * NEIGHBOURS + 1, 10_000, most=60_000)
    """Trustworthiness on at most so many test images, the first ones; its time and memory grow with the square."""
