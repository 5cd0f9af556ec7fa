"""Photographs: an AE and VAEs with residual networks: `python -m experiments.colour --dataset cifar10 --minutes 10`.

An AE, a VAE whose latent is one vector, and a VAE whose latent is a map, under a discretised logistic of 8-bit pixels.
Reports bits per dimension beside published numbers, PSNR and SSIM of reconstructions, precision and recall of samples;
with the prior N(0, I), and with a full Gaussian fitted to the latents of training images afterwards, in closed form.
"""

import dataclasses
from typing import Literal

from experiments.flags import StudyConfig, run
from vae_jax.config import Settings
from vae_jax.domains import MOST_SAMPLES, MOST_SHOWN, are_different, at_least, layer_sizes, non_negative, setting

__all__ = ["Config", "run"]
DEFAULT_MINUTES = 10.0
FEWEST = 10
"""Images that are compared with as many samples."""
_AUGMENT = Settings.__dataclass_fields__["augment"].metadata


@dataclasses.dataclass(frozen=True)
class Config(StudyConfig):
    """Train an AE, a VAE with a vector and a VAE with a map on colour images, measure and draw what they give."""

    dataset: str | None = "cifar10"
    """cifar10, fashion_mnist, svhn_cropped or another known data set, or the path of images of any kind."""
    models: tuple[Literal["ae", "vae-vector", "vae-map"], ...] = setting(
        ("ae", "vae-vector", "vae-map"), "different ones of ae, vae-vector and vae-map, at least one", are_different
    )
    """Which of the models."""
    minutes: float | None = setting(None, "a number above 0 and at most 1e6", lambda v: v is None or 0 < v <= 1e6)
    """Train each model for about so long. Default: 10."""
    steps: int | None = at_least(1, None)
    """Steps of each model, in place of --minutes."""
    seeds: int = at_least(1, 1, most=MOST_SHOWN)
    """Runs of each model."""
    hidden_sizes: tuple[int, ...] | None = layer_sizes(fewest=1)
    """Widths of the encoder's residual blocks, mirrored by the decoder. Default: 128 128."""
    beta: float = non_negative(1.0)
    """Weight of the KL term of the VAEs in training; bits per dimension are those of 1. A smaller one gives sharper
    reconstructions for more nats of KL."""
    augment: tuple[Literal["flip", "crop"], ...] = setting((), _AUGMENT["allowed"], _AUGMENT["valid"])
    """Training images changed anew at each step: mirrored half of the time, shifted by up to an eighth."""
    samples: int = at_least(FEWEST, 1000, most=MOST_SAMPLES)
    """Images to generate for precision and recall, at most as many as there are test images."""
