"""The IDX files of the MNIST family: where they lie, and how they are read. Imports no JAX."""

import gzip
import math
import os
import struct
import zlib
from io import BufferedIOBase, BufferedReader
from pathlib import Path

import numpy as np

from vae_jax import archives
from vae_jax.data import catalogue
from vae_jax.data.raw import Raw, RawSplit, Reading
from vae_jax.errors import UsageError

MNIST_FAMILY = ("mnist", "fashion_mnist", "kmnist")
IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_IDX_DIMENSIONS = {2049: 1, 2051: 3}
_REMEDY = (
    f"To have it, put {', '.join(IDX_FILES)} (.gz or not) into DIR and give --data-dir DIR or set VAE_JAX_DATA_DIR=DIR."
)


def read_mnist_family(name: str, reading: Reading) -> Raw:
    """Read a data set of the family: from the user's folder, what TFDS has prepared, the cache, or the network.

    Raises:
        UsageError: a file is missing or broken.
        DownloadError: it is nowhere here, and can't be downloaded.
    """
    folder = reading.data_dir or os.environ.get("VAE_JAX_DATA_DIR")
    if folder and (files := find_idx_folder(name, Path(folder).expanduser())):
        return read_idx_files(files)
    cache = catalogue.data_dir() / "downloads" / "vae_jax" / name
    # An incomplete cache is no error: the download replaces what is there.
    if len(idx_files(cache)) < len(IDX_FILES):
        if catalogue.is_prepared(name):
            return catalogue.read_prepared(name)
        try:
            catalogue.download(catalogue.remote_files(name), cache)
        except catalogue.DownloadError as error:
            raise catalogue.DownloadError(f"{name} could not be downloaded: {error}.\n{_REMEDY}") from error
    return read_idx_files(idx_files(cache))


def read_idx(path: Path) -> np.ndarray:
    """Read the unsigned bytes of an IDX file, gzipped or not: images [n, height, width] or labels [n].

    Raises:
        UsageError: it is unreadable, of another type, or longer or shorter than its header says.
    """
    try:
        with archives.BoundedReader(path) as raw, _decompressed(raw) as file:
            shape = _idx_shape(path, file)
            size = math.prod(shape)
            limit = min(archives.MOST_BYTES, archives.DEFLATE_RATIO * path.stat().st_size)
            if size > limit:
                raise _broken(path, f"declares {size} bytes of data in its header, where {limit} are possible")
            payload = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise _broken(path, f"can't be read: {error}") from error
    if len(payload) != size:
        found = "more" if len(payload) > size else len(payload)
        raise _broken(path, f"must hold the {size} bytes of data that its header declares, found {found}")
    return np.frombuffer(payload, np.uint8).reshape(shape)


def idx_files(folder: Path) -> dict[str, Path]:
    """The IDX files of the MNIST family that lie in a folder, by name without .gz."""
    paths = ((name, folder / (name + suffix)) for name in IDX_FILES for suffix in (".gz", ""))
    return {name: path for name, path in paths if path.is_file()}


def find_idx_folder(name: str, data_dir: Path) -> dict[str, Path]:
    """The four IDX files in `data_dir`/`name` or else in `data_dir`; empty where there is none.

    Raises:
        UsageError: some of the four are there and others are missing.
    """
    for folder in (data_dir / name, data_dir):
        files = idx_files(folder)
        missing = [file for file in IDX_FILES if file not in files]
        if files and missing:
            raise UsageError(
                f"{folder} lacks {', '.join(missing)} (or .gz), found {', '.join(files)}.\n"
                "All four IDX files are needed: put the missing ones there, or remove the others."
            )
        if files:
            return files
    return {}


def read_idx_files(files: dict[str, Path]) -> Raw:
    """Read the four IDX files that `find_idx_folder` found."""
    images, labels, test_images, test_labels = (read_idx(files[name]) for name in IDX_FILES)
    source = f"IDX files in {files[IDX_FILES[0]].parent}"
    return Raw(source, RawSplit(images, labels), test=RawSplit(test_images, test_labels))


def _decompressed(raw: BufferedReader) -> BufferedIOBase:
    # By content, not by name: browsers unpack .gz files and keep the name.
    is_gzip = raw.read(2) == b"\x1f\x8b"
    raw.seek(0)
    return gzip.open(raw) if is_gzip else raw


def _idx_shape(path: Path, file: BufferedIOBase) -> tuple[int, ...]:
    magic = int.from_bytes(file.read(4), "big")
    if magic not in _IDX_DIMENSIONS:
        raise _broken(path, f"must start with 2051 (images) or 2049 (labels, unsigned bytes), found {magic}")
    sizes = file.read(4 * _IDX_DIMENSIONS[magic])
    if len(sizes) != 4 * _IDX_DIMENSIONS[magic]:
        raise _broken(path, f"ends within its header, after {4 + len(sizes)} bytes")
    return struct.unpack(f">{_IDX_DIMENSIONS[magic]}I", sizes)


def _broken(path: Path, finding: str) -> UsageError:
    return UsageError(f"{path} {finding}.\nIt is no whole IDX file: delete it and fetch it again.")
