"""Images that stay in their file: unsigned bytes of an .npy or uncompressed .npz file, read when asked for. No JAX.

They are read, not mapped by NumPy: a file of 502 MB that was gone through in random order left 508 MB resident as a map
and 19 MB here, and one that becomes shorter is an error with its name, where a map ends the process. A choice of rows
is not read before it is asked for, where that of a map is a copy.
"""

import math
import os
import struct
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import numpy as np

from vae_jax.archives import BoundedReader, read_arrays, read_header, read_npy
from vae_jax.errors import RunError

SMALLEST_BYTES = 2**26
"""Files with fewer bytes of images are read into memory, which is quicker."""
PIECE_BYTES = 2**24
"""About so much is read at a time by what goes through all images."""
_LOCAL_HEADER = 30  # bytes before the name in a zip file's header of a member


class _Descriptor:
    # A file opened for reading that is closed when the last of those who read from it is gone.
    def __init__(self, path: Path):
        self.path, self.number = path, os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.number)


@dataclass(frozen=True, eq=False)
class StoredImages:
    """A uint8 array [n, ...] in a file, or a choice of its rows; indexing reads, and gives NumPy arrays."""

    file: _Descriptor
    offset: int
    """Of the first row, in bytes."""
    row_shape: tuple[int, ...]
    positions: np.ndarray
    """Of the rows in the file."""
    dtype = np.dtype(np.uint8)

    @property
    def shape(self) -> tuple[int, ...]:
        """As of an array."""
        return (len(self.positions), *self.row_shape)

    @property
    def nbytes(self) -> int:
        """As of an array."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, chosen: Any) -> np.ndarray:
        images = np.empty((*self.positions[chosen].shape, *self.row_shape), np.uint8)
        self.read_into(images, chosen)
        return images

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype)

    def rows(self, chosen: slice | np.ndarray) -> "StoredImages":
        """Some of the rows, in this order, not read yet."""
        return replace(self, positions=self.positions[chosen])

    def with_channel(self) -> "StoredImages":
        """The same with a last axis of size 1."""
        return replace(self, row_shape=(*self.row_shape, 1))

    def read_into(self, memory: np.ndarray, chosen: Any) -> None:
        """Read some of the rows to where there is room for them: uint8 [*chosen.shape, ...], C-contiguous."""
        positions = self.positions[chosen].reshape(-1).astype(np.int64)
        size, number = math.prod(self.row_shape), len(positions)
        assert memory.flags.c_contiguous
        assert memory.size == number * size
        # Neighbours in the file are read together.
        starts = np.concatenate([[0], np.flatnonzero(np.diff(positions) != 1) + 1, [number]])
        offsets = (self.offset + positions[starts[:-1]] * size if number else starts[:0]).tolist()
        content, starts = memory.reshape(-1).data, (starts * size).tolist()
        for offset, start, stop in zip(offsets, starts, starts[1:], strict=False):
            self._fill(content[start:stop], offset)

    def _fill(self, memory: memoryview, offset: int) -> None:
        path, done = self.file.path, 0
        while done < len(memory):  # a system reads 2 GB at a time at most
            try:
                read = os.preadv(self.file.number, [memory[done:]], offset + done)
            except OSError as error:
                raise RunError(f"{path} can't be read: {error.strerror}.") from error
            if not read:
                raise RunError(f"{path} has become shorter since it was opened. Leave it as it is, or copy it.")
            done += read


Images = np.ndarray | StoredImages
"""Images in memory or in a file."""


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
        found = _stored(path, path.name, file, 0, file.size)
    return read_npy(path) if found is None else found


def write_npy(path: Path, shape: tuple[int, ...], blocks: Iterable[np.ndarray]) -> None:
    """Write unsigned bytes of that shape to an .npy file, block by block in order, so that no more is in memory.

    Raises:
        OSError: the disk refuses.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for block in blocks:
            file.write(np.ascontiguousarray(block).data)


def open_npz_member(path: Path, name: str) -> Images:
    """An array of an .npz file, which stays there if it is large, uncompressed, of unsigned bytes and in C order.

    Raises:
        those of `vae_jax.archives.UNREADABLE`: the file is no .npz file, or damaged.
    """
    with BoundedReader(path) as file, ZipFile(file) as archive:
        member = archive.NameToInfo.get(f"{name}.npy")
        if member is not None and member.compress_type == ZIP_STORED:
            file.seek(member.header_offset)
            name_size, extra_size = struct.unpack("<26x2H", file.read(_LOCAL_HEADER))
            start = member.header_offset + _LOCAL_HEADER + name_size + extra_size
            with archive.open(member) as content:
                found = _stored(path, name, content, start, member.file_size)
                while found is not None and content.read(PIECE_BYTES):  # at its end the checksum is compared
                    pass
            if found is not None:
                return found
    return read_arrays(path, (name,))[0][name]


def _stored(path: Path, name: str, file: Any, start: int, size: int) -> StoredImages | None:
    # The array whose header comes next, if it can stay in the file, where that header lies `start` bytes into it.
    shape, column_major, dtype = read_header(name, file, size)
    if dtype != np.uint8 or column_major or not shape or size < SMALLEST_BYTES:
        return None
    positions = np.arange(shape[0], dtype=np.uint32 if shape[0] < 2**32 else np.uint64)
    return StoredImages(_Descriptor(path), start + file.tell(), shape[1:], positions)
