"""The IDX files of the MNIST family. Imports no JAX."""

import gzip
import math
import struct
import zlib
from io import BufferedIOBase, BufferedReader
from pathlib import Path

import numpy as np

from vae_jax import archives
from vae_jax.data.raw import Raw, RawSplit
from vae_jax.errors import UsageError

MNIST_FAMILY = ("mnist", "fashion_mnist", "kmnist")
IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_IDX_DIMENSIONS = {2049: 1, 2051: 3}


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


def read_idx_files(files: dict[str, Path]) -> Raw:
    """Read the four IDX files, given by name."""
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
