"""Images to one small file and back: `vae-jax compress RUN IMAGES OUT`, `vae-jax decompress RUN FILE OUT`."""

import dataclasses
import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import numpy as np
from tqdm import tqdm

from vae_jax.archives import MOST_BYTES, read_bytes
from vae_jax.cli.command import RunConfig
from vae_jax.cli.images import REMEDY, LabelledConfig, Loaded, load, write_npz
from vae_jax.cli.outputs import check_free, check_name
from vae_jax.codecs.lossless.header import is_lossless, segments_of, unpack
from vae_jax.domains import shortened
from vae_jax.errors import RunError, UsageError, counted
from vae_jax.files import replacing, writing


@dataclasses.dataclass(frozen=True)
class Compress(LabelledConfig):
    """Compress images to one file, which the same run decompresses.

    The run keeps its codec in RUN/codec-*.npz, made the first time: fitted to the run's data, or for --lossless made of
    the model alone.
    """

    output: Annotated[Path, "positional"]
    """The file to write; it must not exist."""
    quality: Literal[1, 2, 3, 4, 5, 6, 7, 8] | None = None
    """1 is the smallest file, 8 the best image. Default: 6."""
    lossless: bool = False
    """Give back every byte of the images that the run sees: pictures scaled as its own were, floats as one of 256
    levels. A bernoulli likelihood takes images of black and white alone, 0 and 255."""
    data_dir: Path | None = None
    """Where the run's data lies, if no longer where the run found it."""


@dataclasses.dataclass(frozen=True)
class Decompress(RunConfig):
    """Decompress a file to an .npz file with `images`, unsigned bytes [n, height, width, channels].

    Of a lossless file also with the names of their `files` and their `labels`, where there were some. Where it is
    damaged, the images of its undamaged segments are written, with their `index` among all, and the exit code is 1.
    """

    file: Annotated[Path, "positional"]
    """What `compress` wrote."""
    output: Annotated[Path, "positional"]
    """The .npz file to write; it must not exist."""


def compress(config: Compress) -> Path:
    """Compress a user's images."""
    check_name(config.output, ".vaez", "", flag="OUTPUT", other="a file")
    check_free(config.output, flag="OUTPUT")
    for flag, value in (("--quality", config.quality), ("--data-dir", config.data_dir)):
        if config.lossless and value is not None:
            raise UsageError(f"{flag} {value} has no effect with --lossless.\nLeave {flag} out.")
    loaded = load(config, None if config.lossless else _check_unconditional)
    images = loaded.split.images
    content = _without_loss(config, loaded) if config.lossless else _with_loss(config, loaded)
    with writing(config.output, REMEDY), replacing(config.output) as temporary:
        temporary.write_bytes(content)
    pixels = images.shape[0] * images.shape[1] * images.shape[2]
    print(
        f"{counted(len(images), 'image')}, {counted(images.size, 'byte')} -> {counted(len(content), 'byte')} "
        f"({8 * len(content) / pixels:.4f} bits per pixel): {config.output}"
    )
    return config.output


def _check_unconditional(run: Any) -> None:
    if run.model.classes:
        raise UsageError(
            f"compress needs a run that sees no class, got {run.path}, with --condition {run.config.condition}.\n"
            "Train one with --condition none, or add --lossless."
        )


def _with_loss(config: Compress, loaded: Loaded) -> bytes:
    run = loaded.run
    container = _container()
    # After `load`, as it imports JAX.
    from vae_jax.runs.run import load_dataset_of

    path = container.codec_path(run)
    if path.exists():
        codec = container.read_codec(path, run.model.latent_dim)
    else:
        dataset = load_dataset_of(run, config.data_dir)
        codec = container.fit_codec_of(run, dataset.train.images, dataset.validation.images)
        if path.exists():  # another process was first, and its files need its codec
            codec = container.read_codec(path, run.model.latent_dim)
        else:
            container.write_codec(path, codec)
        print(f"fitted the codec to {counted(len(dataset.train), 'training image')}: {path}", flush=True)
    content: bytes = container.compress(run, codec, loaded.split.images, config.quality or 6)
    return content


def _without_loss(config: Compress, loaded: Loaded) -> bytes:
    container, split = _container(".lossless"), loaded.split
    # After `load`, as it imports JAX.
    from vae_jax.codecs.lossless import convert

    convert.check_images(loaded.run, split.images, str(config.images))
    codec, path = convert.codec_of(loaded.run)
    if path:
        print(f"made the codec of the run's model: {path}", flush=True)
    files = None if split.files is None else [str(file) for file in split.files]
    number = len(segments_of(len(split.images), codec.image_shape))
    steps = container.compress(codec, split.images, loaded.labels, files)
    content: bytes = _last(steps, number)
    return content


def decompress(config: Decompress) -> Path:
    """Decompress a file of `compress`."""
    check_name(config.output, ".npz", flag="OUTPUT")
    check_free(config.output, flag="OUTPUT")
    try:
        content = read_bytes(config.file, MOST_BYTES)
    except OSError as error:
        raise UsageError(f"{config.file} can't be read: {error.strerror}. Give a file that compress wrote.") from error
    if is_lossless(content):
        return _decompress_lossless(config, content)
    container = _container()
    # Here, as it imports JAX, which --help and a bad flag do not wait for.
    from vae_jax.runs.run import load_run

    container.unpack(content, str(config.file))  # before the model is loaded
    run = load_run(config.run)
    codec = container.read_codec(container.codec_path(run), run.model.latent_dim)
    images = container.decompress(run, codec, content, str(config.file))
    write_npz(config.output, images=images)
    _said(config, images)
    return config.output


def _decompress_lossless(config: Decompress, content: bytes) -> Path:
    container, name = _container(".lossless"), str(config.file)
    header, _ = unpack(content, name)
    codec = container.codec_in(config.run.expanduser(), header, name)
    found = _last(container.decompress(codec, content, name), len(header.segments))
    arrays = {"labels": found.labels, "files": None if found.files is None else np.array(found.files)}
    arrays["index"] = found.index if found.damaged else None
    write_npz(config.output, images=found.images, **arrays)
    _said(config, found.images)
    if found.damaged:
        numbers = shortened(", ".join(map(str, found.damaged)), 200)
        raise RunError(
            f"{name} is damaged: of its {len(header.segments)} segments these are lost: {numbers}.\n"
            f"{config.output} holds the {counted(len(found.images), 'image')} of the others, with their index."
        )
    return config.output


def _said(config: Decompress, images: np.ndarray) -> None:
    print(f"{counted(len(images), 'image')} of {' x '.join(map(str, images.shape[1:]))}: {config.output}", flush=True)


def _last(steps: Iterator[Any], number: int) -> Any:
    # There is a step for each segment, and the result after them.
    return [*tqdm(steps, total=number + 1, unit="step", disable=None)][-1]


def _container(kind: str = "") -> ModuleType:
    try:
        return importlib.import_module(f"vae_jax.codecs{kind}.container")
    except ModuleNotFoundError as error:
        raise UsageError(f"{error.name} is not installed. Install it by pip install 'vae_jax[compress]'.") from error
