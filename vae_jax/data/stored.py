"""Images that stay in their file: unsigned bytes of an .npy or uncompressed .npz file, read when asked for. No JAX.

They are read, not mapped: memory holds no more of a file than what was asked for, and a file that becomes shorter is an
error with its name, where a map would end the process.
"""

import math
import os
import struct
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import numpy as np

from vae_jax.archives import BoundedReader, read_header, read_npy
from vae_jax.errors import RunError

SMALLEST_BYTES = 2**26
"""Files with fewer bytes of images are read into memory, which is quicker."""
PIECE_BYTES = 2**24
"""About so much is read at a time by what goes through all images."""
_LOCAL_HEADER = 30  # bytes before the name in a zip file's header of a member


class StoredImages:
    """A uint8 array [n, ...] in a file, or a choice of its rows; indexing reads, and gives NumPy arrays."""

    dtype = np.dtype(np.uint8)

    def __init__(self, path: Path, offset: int, shape: tuple[int, ...]):
        """Open an array that starts `offset` bytes into a file.

        Raises:
            OSError: it can't be opened.
        """
        self._path, self._offset, self._row_shape = path, offset, shape[1:]
        self._file = _Descriptor(path)
        self._positions = np.arange(shape[0], dtype=np.uint32 if shape[0] < 2**32 else np.uint64)

    @property
    def shape(self) -> tuple[int, ...]:
        """As of an array."""
        return (len(self._positions), *self._row_shape)

    @property
    def ndim(self) -> int:
        """As of an array."""
        return 1 + len(self._row_shape)

    @property
    def nbytes(self) -> int:
        """As of an array."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, chosen: Any) -> np.ndarray:
        images = np.empty((*self._positions[chosen].shape, *self._row_shape), np.uint8)
        self.read_into(images, chosen)
        return images

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype)

    def rows(self, chosen: slice | np.ndarray) -> "StoredImages":
        """Some of the rows, in this order, not read yet."""
        return self._with(_positions=self._positions[chosen])

    def with_channel(self) -> "StoredImages":
        """The same with a last axis of size 1."""
        return self._with(_row_shape=(*self._row_shape, 1))

    def read_into(self, memory: np.ndarray, chosen: Any) -> None:
        """Read some of the rows to where there is room for them: uint8 [*chosen.shape, ...], C-contiguous."""
        positions = self._positions[chosen].reshape(-1).astype(np.int64)
        size, number = math.prod(self._row_shape), len(positions)
        assert memory.flags.c_contiguous
        assert memory.size == number * size
        # Neighbours in the file are read together.
        starts = np.concatenate([[0], np.flatnonzero(np.diff(positions) != 1) + 1, [number]])
        offsets = (self._offset + positions[starts[:-1]] * size if number else starts[:0]).tolist()
        content, starts = memory.reshape(-1).data, (starts * size).tolist()
        for offset, start, stop in zip(offsets, starts, starts[1:], strict=False):
            self._fill(content[start:stop], offset)

    def _with(self, **changes: Any) -> "StoredImages":
        other = object.__new__(StoredImages)
        other.__dict__.update(self.__dict__ | changes)
        return other

    def _fill(self, memory: memoryview, offset: int) -> None:
        done = 0
        while done < len(memory):  # a system reads 2 GB at a time at most
            try:
                read = os.preadv(self._file.number, [memory[done:]], offset + done)
            except OSError as error:
                raise RunError(f"{self._path} can't be read: {error.strerror}.") from error
            if not read:
                raise RunError(f"{self._path} has become shorter since it was opened. Leave it as it is, or copy it.")
            done += read


Images = np.ndarray | StoredImages
"""Images in memory or in a file."""


class _Descriptor:
    # A file opened for reading that is closed when the last of those who read from it is gone.
    def __init__(self, path: Path):
        self.number = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.number)


def choose(images: Images, chosen: slice | np.ndarray) -> Images:
    """Some of the images; not read, where they are in a file."""
    return images.rows(chosen) if isinstance(images, StoredImages) else images[chosen]


def read_into(memory: np.ndarray, images: Images, chosen: np.ndarray) -> None:
    """Copy some of the images to where there is room for them.

    Args:
        memory: uint8 [..., height, width, channels], C-contiguous.
        images: what to choose from; in memory C-contiguous, or NumPy copies them all.
        chosen: positions [...], from 0 to below their number.
    """
    if isinstance(images, StoredImages):
        images.read_into(memory, chosen)
    else:
        # In the mode "raise" NumPy fills a copy of its own first.
        np.take(images, chosen, axis=0, out=memory, mode="clip")


def pieces(images: Images) -> Iterator[np.ndarray]:
    """All images in order, about `PIECE_BYTES` at a time."""
    length = max(1, PIECE_BYTES // max(1, math.prod(images.shape[1:])))
    for start in range(0, len(images), length):
        yield images[start : start + length]


def open_npy(path: Path) -> Images:
    """The array of an .npy file, which stays there if it is large, of unsigned bytes and in C order.

    Raises:
        OSError, ValueError, EOFError: it can't be read, or is no array of plain values.
    """
    with BoundedReader(path) as file:
        shape, column_major, dtype = read_header(path.name, file)
        offset, size = file.tell(), file.size
    if dtype != np.uint8 or column_major or not shape or size < SMALLEST_BYTES:
        return read_npy(path)
    if offset + math.prod(shape) != size:
        raise ValueError(f"its header declares {math.prod(shape)} bytes of data, found {size - offset}")
    return StoredImages(path, offset, shape)


def open_npz_member(path: Path, name: str) -> StoredImages | None:
    """An array of an .npz file, where it is large, uncompressed, of unsigned bytes and in C order; else None.

    Raises:
        OSError, ValueError, RuntimeError, zipfile.BadZipFile: the file is no .npz file, or damaged.
    """
    with BoundedReader(path) as file, ZipFile(file) as archive:
        member = archive.NameToInfo.get(f"{name}.npy")
        if member is None or member.compress_type != ZIP_STORED or member.file_size < SMALLEST_BYTES:
            return None
        with archive.open(member) as content:
            shape, column_major, dtype = read_header(name, content)
            offset = content.tell()
            if dtype != np.uint8 or column_major or not shape:
                return None
            if offset + math.prod(shape) != member.file_size:
                raise ValueError(f"{name} declares {math.prod(shape)} bytes, found {member.file_size - offset}")
            while content.read(PIECE_BYTES):  # at its end the checksum is compared
                pass
        file.seek(member.header_offset)
        name_size, extra_size = struct.unpack("<26x2H", file.read(_LOCAL_HEADER))
    return StoredImages(path, member.header_offset + _LOCAL_HEADER + name_size + extra_size + offset, shape)
