"""Files that others wrote, read within limits: regular files only, arrays without pickle. Imports no JAX.

What a file declares is checked against its size before anything is allocated or unpacked.
"""

import io
import math
import os
import struct
import zlib
from pathlib import Path
from tokenize import TokenError
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np

MOST_BYTES = 2**31
"""Of one array that was unpacked from something smaller."""
DEFLATE_RATIO = 1100
"""Deflate shrinks by 1,032 at most."""
UNREADABLE = (OSError, ValueError, EOFError, RuntimeError, MemoryError, BadZipFile, zlib.error, struct.error)
"""What `read_arrays` and `read_npy` raise."""


class BoundedReader(io.BufferedReader):
    """A regular file; reading more than is left of it allocates no more than that, whatever a header asks for."""

    def __init__(self, path: Path):
        """Open it.

        Raises:
            OSError: it is not there, or no file with an end, such as a pipe, which might never be opened.
        """
        if not (path.is_file() or path.is_dir()) and path.exists():
            raise OSError(22, "Not a regular file", str(path))
        super().__init__(io.FileIO(path))
        self.size = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """So many bytes, or all that are left."""
        left = max(0, self.size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


def read_bytes(path: Path, most: int) -> bytes:
    """The content of a regular file of at most so many bytes.

    Raises:
        OSError: it can't be read, or is larger.
    """
    with BoundedReader(path) as file:
        if file.size > most:
            raise OSError(27, f"File too large: more than {most:,} bytes", str(path))
        return file.read()


def read_arrays(path: Path, names: tuple[str, ...] | None = None) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays of these names (all, where none are given) in an .npz file, and the names of all that it holds.

    Raises:
        OSError: the file can't be read.
        ValueError: it is no archive of plain arrays, or declares what can't be.
        others of UNREADABLE: it is damaged.
    """
    with BoundedReader(path) as opened, ZipFile(opened) as archive:
        found = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
        arrays = {}
        for name, entry in found.items():
            if names is None or name in names:
                _check_size(entry)
                with archive.open(entry) as file:
                    arrays[name] = _read_array(name, file, entry.file_size)
        return arrays, list(found)


def read_npy(path: Path) -> np.ndarray:
    """The array of an .npy file.

    Raises:
        OSError, ValueError, EOFError: it can't be read, or is no array of plain values.
    """
    with BoundedReader(path) as file:
        return _read_array(path.name, file, file.size)


def read_header(name: str, file: Any, size: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether columns lie together (Fortran order), and type of the array that an .npy header declares.

    Args:
        name: of the array, for errors.
        file: at its beginning; afterwards at that of the values.
        size: bytes of the whole, header and values.

    Raises:
        ValueError: it is none, is damaged, declares Python objects, or another number of bytes than there are.
    """
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"the array {name} is of format version {version}, where (1, 0) and (2, 0) are allowed")
    try:
        shape, column_major, dtype = readers[version](file)
    except (TypeError, SyntaxError, RecursionError, OverflowError, TokenError) as error:
        raise ValueError(f"the array {name} has a damaged header") from error
    if min(shape, default=0) < 0:
        raise ValueError(f"the array {name} declares the shape {shape}")
    if dtype.hasobject:
        raise ValueError(f"the array {name} holds Python objects, and pickles are never read (allow_pickle=False)")
    declared, left = math.prod(shape) * dtype.itemsize, size - file.tell()
    if declared != left:
        raise ValueError(f"the array {name} declares {declared} bytes in its header, found {left}")
    return shape, column_major, dtype


def _check_size(entry: ZipInfo) -> None:
    if entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise ValueError(f"the entry {entry.filename[:60]!r} is neither stored nor deflated")
    # What is stored as it is can't be larger than the file.
    limit = entry.compress_size
    if entry.compress_type != ZIP_STORED:
        limit = min(MOST_BYTES, DEFLATE_RATIO * entry.compress_size)
    if entry.file_size > limit:
        raise ValueError(
            f"the entry {entry.filename[:60]!r} declares {entry.file_size} bytes, where {limit} are possible"
        )


def _read_array(name: str, file: Any, size: int) -> np.ndarray:
    shape, column_major, dtype = read_header(name, file, size)
    declared = math.prod(shape) * dtype.itemsize
    content = file.read(declared + 1)
    if len(content) != declared:
        raise EOFError(f"the array {name} ends after {len(content)} of {declared} bytes")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if column_major else "C")
