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
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from experiments.study import StudyConfig
from vae_jax.cli.command import Command
from vae_jax.config import Settings
from vae_jax.domains import MOST_UNITS, at_least, epoch_number, non_negative, seed_field
from vae_jax.errors import UsageError

if TYPE_CHECKING:
    pass


REMEDY = "Make room or give another name."


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


@dataclasses.dataclass(frozen=True)
class CompressConfig:
    """Compress images to one file. The first time, the run's data is read to fit the codec, kept in RUN/codec-*.npz."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run directory."""
    images: Annotated[Path, tyro.conf.Positional]
    """An .npz file with `images`, or a folder of images, of the shape that the model was trained on."""
    output: Annotated[Path, tyro.conf.Positional]
    """The file to write; it must not exist."""
    quality: Literal[1, 2, 3, 4, 5, 6, 7, 8] = 6
    """1 is the smallest file, 8 the best image."""
    data_dir: Path | None = None
    """Where the run's data lies, if no longer where the run found it."""
    compilation_cache: bool = True
    """Keep compiled programs in the user's cache directory, so that the next start is fast."""


@dataclasses.dataclass(frozen=True)
class DecompressConfig:
    """Decompress a file to an .npz file with `images`, uint8 [n, height, width, channels]."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run directory that it was compressed with."""
    file: Annotated[Path, tyro.conf.Positional]
    """What `compress` wrote."""
    output: Annotated[Path, tyro.conf.Positional]
    """The .npz file to write; it must not exist."""
    compilation_cache: bool = True
    """Keep compiled programs in the user's cache directory, so that the next start is fast."""


def compress(config: CompressConfig) -> Path:
    """Compress a user's images."""
    _check_output(config.output)
    from vae_jax.codecs import container
    from vae_jax.data.dataset import read_images
    from vae_jax.files import replacing, writing
    from vae_jax.runs.run import load_dataset_of, load_run

    run = load_run(config.run)
    images = read_images(config.images, run.model.image_shape).images
    path = container.codec_path(run)
    if path.exists():
        codec = container.read_codec(path, run.model.latent_dim)
    else:
        dataset = load_dataset_of(run, config.data_dir)
        codec = container.fit_codec_of(run, dataset.train.images, dataset.validation.images)
        container.write_codec(path, codec)
        print(f"fitted the codec to {len(dataset.train):,} training images: {path}", flush=True)
    content = container.compress(run, codec, images, config.quality)
    with writing(config.output, REMEDY), replacing(config.output) as temporary:
        temporary.write_bytes(content)
    pixels = images.shape[0] * images.shape[1] * images.shape[2]
    print(
        f"{len(images):,} images, {images.size:,} bytes -> {len(content):,} bytes "
        f"({8 * len(content) / pixels:.4f} bits per pixel): {config.output}"
    )
    return config.output


def decompress(config: DecompressConfig) -> Path:
    """Decompress a file of `compress`."""
    _check_output(config.output)
    from vae_jax.archives import MOST_BYTES, read_bytes

    try:
        content = read_bytes(config.file, MOST_BYTES)
    except OSError as error:
        raise UsageError(f"{config.file} can't be read: {error.strerror}. Give a file that compress wrote.") from error
    import numpy as np

    from vae_jax.codecs import container
    from vae_jax.files import replacing, writing
    from vae_jax.runs.run import load_run

    container.unpack(content, str(config.file))  # before the model is loaded
    run = load_run(config.run)
    codec = container.read_codec(container.codec_path(run), run.model.latent_dim)
    images = container.decompress(run, codec, content, str(config.file))
    with writing(config.output, REMEDY), replacing(config.output) as temporary, open(temporary, "wb") as file:
        np.savez(file, images=images)
    print(f"{len(images):,} images of {' x '.join(map(str, images.shape[1:]))}: {config.output}")
    return config.output


COMMANDS: dict[str, Command] = {"compress": (CompressConfig, compress), "decompress": (DecompressConfig, decompress)}


def run(config: Config) -> dict[str, Any]:
    """Train where no run is given, compress the test images in every way, draw and report."""
    from experiments.compression.measure import draw, measure, report
    from experiments.study import begin, finish, trained
    from vae_jax.data.dataset import load_dataset
    from vae_jax.runs.run import load_dataset_of, load_run

    if config.run:
        given = load_run(config.run)
        dataset = load_dataset_of(given, config.data_dir)
        path = begin(config, "compression", dataset)
        runs = {given.model.name: given}
    else:
        dataset = load_dataset(config.dataset, config.data_dir)
        members = _members(config, dataset)
        path = begin(config, "compression", dataset, list(members.values()))
        runs = {name: trained(path / name.lower(), settings, dataset) for name, settings in members.items()}
    results = measure(runs, dataset)
    draw(results, path / "figures", dataset.name)
    return finish(path, "compression", report(results, dataset), results.numbers())


def _members(config: Config, dataset: Any) -> dict[str, Settings]:
    few = len(dataset.train) < 10_000
    common: dict[str, Any] = {
        "latent_dim": config.latent_dim or min(32, max(1, math.prod(dataset.image_shape) // 2)),
        "epochs": config.epochs or (60 if few else 20),
        "batch_size": min(Settings.batch_size, len(dataset.train)),
        "seed": config.seed,
    }
    return {
        "AE": config.settings(dataset, model="ae", **common),
        "VAE": config.settings(dataset, model="vae", beta=config.beta, **common),
    }


def _check_output(path: Path) -> None:
    # Before anything is loaded: nothing is overwritten.
    if path.exists() or path.is_symlink():
        raise UsageError(f"{path} exists; nothing was changed. Give the name of a file that does not exist yet.")
    if not path.parent.is_dir():
        raise UsageError(f"{path} can't be made: its folder does not exist. Make {path.parent} first.")
