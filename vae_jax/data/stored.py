"""Images that stay in their file: unsigned bytes of an .npy or uncompressed .npz file, read when asked for. No JAX.

They are read, not mapped, so that memory holds no more of a file than what was asked for.
"""

import math
import os
import weakref
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.archives import BoundedReader, read_header
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
        positions = self._positions[chosen]
        images = np.empty((*positions.shape, *self._row_shape), np.uint8)
        self._read(positions.reshape(-1), images)
        return images

    def read_into(self, memory: np.ndarray, chosen: np.ndarray) -> None:
        """Read some of the rows to where there is room for them: uint8 [*chosen.shape, ...], C-contiguous."""
        assert memory.flags.c_contiguous
        assert memory.shape == (*chosen.shape, *self._row_shape)
        self._read(self._positions[chosen].reshape(-1), memory)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype)

    def rows(self, chosen: slice | np.ndarray) -> "StoredImages":
        """Some of the rows, in this order, not read yet."""
        return self._with(positions=self._positions[chosen])

    def with_channel(self) -> "StoredImages":
        """The same with a last axis of size 1."""
        return self._with(row_shape=(*self._row_shape, 1))

    def _with(self, **changes: Any) -> "StoredImages":
        other = object.__new__(StoredImages)
        other.__dict__.update(self.__dict__)
        other.__dict__.update({f"_{name}": value for name, value in changes.items()})
        return other

    def _read(self, positions: np.ndarray, images: np.ndarray) -> None:
        size, number = math.prod(self._row_shape), len(positions)
        # Neighbours in the file are read together.
        starts = np.concatenate([[0], np.flatnonzero(np.diff(positions.astype(np.int64)) != 1) + 1, [number]])
        offsets = (self._offset + positions[starts[:-1]].astype(np.int64) * size if number else starts[:0]).tolist()
        memory, starts = images.reshape(-1).data, (starts * size).tolist()
        for offset, start, stop in zip(offsets, starts, starts[1:], strict=False):
            self._fill(memory[start:stop], offset)

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
    """The array of an .npy file: unsigned bytes, rows one after another.

    Raises:
        OSError, ValueError: it can't be read, or is of another kind; in words.
    """
    with BoundedReader(path) as file:
        shape, fortran_order, dtype = read_header(path.name, file)
        offset, size = file.tell(), math.prod(shape)
        found = path.stat().st_size - offset
    if dtype != np.uint8:
        raise ValueError(f"it holds {dtype}, where uint8 is needed")
    if fortran_order:
        raise ValueError("it is in Fortran order, where C order is needed: numpy.ascontiguousarray makes that")
    if not shape:
        raise ValueError("it holds a single number")
    if found != size:
        raise ValueError(f"its header declares {size} bytes of data, found {found}")
    return _small_in_memory(StoredImages(path, offset, shape))


def open_npz_member(path: Path, name: str) -> StoredImages | None:
    """An array of an .npz file, where it is large, uncompressed, of unsigned bytes and in C order; else None.

    Raises:
        OSError, ValueError, zipfile.BadZipFile: the file is no .npz file, or damaged.
    """
    with BoundedReader(path) as file, zipfile.ZipFile(file) as archive:
        member = next((member for member in archive.infolist() if member.filename == f"{name}.npy"), None)
        encrypted = member is not None and member.flag_bits & 1
        if member is None or encrypted or member.compress_type != zipfile.ZIP_STORED:
            return None
        if member.file_size < SMALLEST_BYTES:
            return None
        file.seek(member.header_offset)
        header = file.read(_LOCAL_HEADER)
        name_size, extra_size = (int.from_bytes(header[i : i + 2], "little") for i in (26, 28))
        start = member.header_offset + _LOCAL_HEADER + name_size + extra_size
        file.seek(start)
        shape, fortran_order, dtype = read_header(name, file)
        offset = file.tell()
        if dtype != np.uint8 or fortran_order or not shape:
            return None
        if offset - start + math.prod(shape) != member.file_size:
            raise ValueError(f"{name} declares {math.prod(shape)} bytes of data, found {member.file_size}")
        file.seek(start)
        checksum, left = 0, member.file_size
        while left and (piece := file.read(min(left, PIECE_BYTES))):
            checksum, left = zlib.crc32(piece, checksum), left - len(piece)
    if checksum != member.CRC:
        raise ValueError(f"{name} is damaged: its checksum differs")
    return StoredImages(path, offset, shape)


def _small_in_memory(images: StoredImages) -> Images:
    return images if images.nbytes >= SMALLEST_BYTES else images[:]
