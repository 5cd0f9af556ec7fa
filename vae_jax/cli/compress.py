"""Images to one small file and back: `vae-jax compress RUN IMAGES OUT`, `vae-jax decompress RUN FILE OUT`."""

import dataclasses
from pathlib import Path
from types import ModuleType
from typing import Annotated, Literal

from vae_jax.archives import MOST_BYTES, read_bytes
from vae_jax.cli.command import RunConfig, check_free, check_name
from vae_jax.cli.images import REMEDY, ImagesConfig, load, write_npz
from vae_jax.errors import UsageError, counted
from vae_jax.files import replacing, writing


@dataclasses.dataclass(frozen=True)
class Compress(ImagesConfig):
    """Compress images to one file.

    The first time, the run's data is read to fit the codec, which is kept in RUN/codec-*.npz.
    """

    output: Annotated[Path, "positional"]
    """The file to write; it must not exist."""
    quality: Literal[1, 2, 3, 4, 5, 6, 7, 8] = 6
    """1 is the smallest file, 8 the best image."""
    data_dir: Path | None = None
    """Where the run's data lies, if no longer where the run found it."""


@dataclasses.dataclass(frozen=True)
class Decompress(RunConfig):
    """Decompress a file to an .npz file with `images`, unsigned bytes [n, height, width, channels]."""

    file: Annotated[Path, "positional"]
    """What `compress` wrote."""
    output: Annotated[Path, "positional"]
    """The .npz file to write; it must not exist."""


def compress(config: Compress) -> Path:
    """Compress a user's images."""
    check_name(config.output, ".vaez", "", flag="OUTPUT", other="a file")
    check_free(config.output, flag="OUTPUT")
    run, split, *_ = load(config)
    if run.model.classes:
        raise UsageError(
            f"compress needs a run that sees no class, got {config.run}, trained with --condition labels.\n"
            "Train one with --condition none."
        )
    images = split.images
    container = _container()
    # After `load`, as it imports JAX.
    from vae_jax.runs.run import load_dataset_of

    path = container.codec_path(run)
    if path.exists():
        codec = container.read_codec(path, run.model.latent_dim)
    else:
        dataset = load_dataset_of(run, config.data_dir)
        codec = container.fit_codec_of(run, dataset.train.images, dataset.validation.images)
        container.write_codec(path, codec)
        print(f"fitted the codec to {counted(len(dataset.train), 'training image')}: {path}", flush=True)
    content = container.compress(run, codec, images, config.quality)
    with writing(config.output, REMEDY), replacing(config.output) as temporary:
        temporary.write_bytes(content)
    pixels = images.shape[0] * images.shape[1] * images.shape[2]
    print(
        f"{counted(len(images), 'image')}, {counted(images.size, 'byte')} -> {counted(len(content), 'byte')} "
        f"({8 * len(content) / pixels:.4f} bits per pixel): {config.output}"
    )
    return config.output


def decompress(config: Decompress) -> Path:
    """Decompress a file of `compress`."""
    check_name(config.output, ".npz", flag="OUTPUT")
    check_free(config.output, flag="OUTPUT")
    try:
        content = read_bytes(config.file, MOST_BYTES)
    except OSError as error:
        raise UsageError(f"{config.file} can't be read: {error.strerror}. Give a file that compress wrote.") from error
    container = _container()
    # Here, as it imports JAX, which --help and a bad flag do not wait for.
    from vae_jax.runs.run import load_run

    container.unpack(content, str(config.file))  # before the model is loaded
    run = load_run(config.run)
    codec = container.read_codec(container.codec_path(run), run.model.latent_dim)
    images = container.decompress(run, codec, content, str(config.file))
    write_npz(config.output, images=images)
    print(f"{counted(len(images), 'image')} of {' x '.join(map(str, images.shape[1:]))}: {config.output}")
    return config.output


def _container() -> ModuleType:
    try:
        from vae_jax.codecs import container
    except ModuleNotFoundError as error:
        raise UsageError(f"{error.name} is not installed. Install it by pip install 'vae_jax[compress]'.") from error
    return container
