"""Denoising: autoencoders against filters and the best linear estimator: `python -m experiments.denoising`.

Trains a denoising autoencoder (Vincent et al. 2010: corrupted input, clean target) for each corruption, and a plain
AE and VAE on clean images, and measures what they make of noisy test images: mean PSNR in dB and SSIM beside a
Gaussian filter, a 3x3 median and the linear MMSE estimator. `--corruptions salt_and_pepper:0.1 masking:0.75` chooses
others; `--run RUN` measures a finished run on all of them instead of training.

`python -m experiments.denoising denoise RUN images.npz` denoises your own images with a finished run.
"""

import dataclasses
from pathlib import Path
from typing import Literal, NamedTuple

from experiments.flags import StudyConfig, run
from vae_jax.domains import (
    LARGEST_NUMBER,
    SMALLEST_NUMBER,
    at_least,
    epoch_number,
    layer_sizes,
    positive,
    seed_field,
    setting,
)

__all__ = ["Config", "Corruption", "run"]
KINDS = {
    "gaussian": "Gaussian, σ {:g}",
    "gaussian_clipped": "Gaussian, clipped, σ {:g}",
    "salt_and_pepper": "salt and pepper, {:.0%}",
    "masking": "masking, {:.0%}",
}
DEFAULT = ("gaussian:0.25", "gaussian:0.5", "gaussian_clipped:0.5", "salt_and_pepper:0.25", "masking:0.5")


class Corruption(NamedTuple):
    """A kind of noise and how much of it."""

    kind: str
    level: float

    @classmethod
    def parse(cls, text: str) -> "Corruption":
        """Read KIND:LEVEL.

        Raises:
            ValueError: it is not one that the study knows.
        """
        kind, _, number = text.partition(":")
        level = float(number)
        most = LARGEST_NUMBER if kind.startswith("gaussian") else 1
        if kind not in KINDS or not SMALLEST_NUMBER <= level <= most:
            raise ValueError(text)
        return cls(kind, level)

    @property
    def label(self) -> str:
        """For tables and figures."""
        return KINDS[self.kind].format(self.level)

    @property
    def folder(self) -> str:
        """Where the run lies that was trained for it."""
        return f"runs/{self.kind}-{self.level:g}"


def are_corruptions(texts: tuple[str, ...]) -> bool:
    """Whether these are KIND:LEVEL, at least one and all different."""
    try:
        found = {Corruption.parse(text) for text in texts}
    except ValueError:
        return False
    return 0 < len(found) == len(texts)


DEFAULT = ("gaussian:0.25", "gaussian:0.5", "gaussian_clipped:0.5", "salt_and_pepper:0.25", "masking:0.5")
CODE_CHANNELS = 64
"""Numbers in the code of each patch."""


@dataclasses.dataclass(frozen=True)
class Config(StudyConfig):
    """Compare denoisers on the test images. The word `denoise` as the first argument denoises your own images."""

    corruptions: tuple[str, ...] = setting(
        DEFAULT,
        f"different KIND:LEVEL, such as gaussian:0.5, of the kinds {', '.join(KINDS)}, "
        f"the level at least {SMALLEST_NUMBER:g} and at most {LARGEST_NUMBER:g} (1 for a share)",
        are_corruptions,
    )
    """KIND:LEVEL each. Of gaussian and gaussian_clipped (to [0, 1]) the level is the standard deviation, of
    salt_and_pepper and masking the share of the pixels that are replaced."""
    run: Path | None = None
    """Measure this finished run on every corruption, instead of training a denoising AE for each."""
    arch: Literal["patch", "mlp"] = "patch"
    """Networks of the denoising AE: a code at each patch of 4x4 pixels, or fully connected."""
    hidden_sizes: tuple[int, ...] | None = layer_sizes(fewest=1)
    """Widths of its hidden layers. Default: 64 64 64 for patch, 1024 for mlp."""
    epochs: int | None = epoch_number()
    """Passes over the training images for each denoising AE. Default: 8, and 15 for fewer than 10,000 images."""
    batch_size: int = at_least(1, 32)
    """Images a step of the denoising AE."""
    learning_rate: float = positive(5e-3)
    """Peak of its learning rate."""
    plain_epochs: int | None = epoch_number()
    """Passes for the plain AE and VAE. Default: 8, and 30 for fewer than 10,000 images."""
    seed: int = seed_field()
    """Seed of every training run and of the noise on the images that are measured."""
