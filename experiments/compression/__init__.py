"""Lossy compression by real bytes, against JPEG, WebP and PCA: `python -m experiments.compression`.

Without --run it trains an autoencoder and a VAE (Bernoulli loss; the squared error is 1 dB worse on MNIST's validation
split) and compresses the test images at eight qualities. On MNIST an autoencoder of 32 latent dimensions comes to
22.8 dB with 0.095 bits per pixel, where WebP takes 3.7 times as many, JPEG 6.6 and PCA 2.8 times; it ends at 23.9 dB.
Two more words do the work on your images:

    python -m experiments.compression compress RUN images.npz out.bin
    python -m experiments.compression decompress RUN out.bin images.npz
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

from experiments.compression.measure import draw, measure_curves
from experiments.compression.report import report
from experiments.study import StudyConfig, begin, by_size
from vae_jax.config import Settings
from vae_jax.data.dataset import Dataset, load_dataset
from vae_jax.domains import MOST_UNITS, at_least, epoch_number, non_negative, seed_field
from vae_jax.runs.run import load_dataset_of, load_run


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


def run(config: Config) -> dict[str, Any]:
    """Train where no run is given, compress the test images in every way, draw and report."""
    given = load_run(config.run) if config.run else None
    dataset = load_dataset_of(given, config.data_dir) if given else load_dataset(config.dataset, config.data_dir)
    members = {} if given else {model: _settings(config, model, dataset) for model in ("ae", "vae")}
    study = begin(config, "compression", dataset, members.values())
    runs = [given] if given else [*study.train(members).values()]
    results = measure_curves({one.model.name: one for one in runs}, dataset)
    draw(study, results)
    return study.finish(report(results, dataset), **results.numbers())


def _settings(config: Config, model: str, dataset: Dataset) -> Settings:
    return config.settings(
        dataset,
        model=model,
        latent_dim=config.latent_dim or min(32, max(1, math.prod(dataset.image_shape) // 2)),
        epochs=config.epochs or by_size(dataset, 20, 60),
        batch_size=min(Settings.batch_size, len(dataset.train)),
        beta=config.beta if model == "vae" else 1.0,
    )
