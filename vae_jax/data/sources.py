"""Readers of files that give raw arrays: IDX, .npz, folders of images, embedded digits. Imports no JAX.

Nothing is checked here but that a file holds what it says; what makes a data set is in `vae_jax.data.dataset`.
"""

import gzip
import math
import struct
import warnings
import zlib
from io import BufferedIOBase, BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from vae_jax import archives
from vae_jax.data import stored
from vae_jax.data.stored import Images
from vae_jax.errors import UsageError

MNIST_FAMILY = ("mnist", "fashion_mnist", "kmnist")
IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_NPZ_KEYS = ("images", "labels", "test_images", "test_labels")
_NPZ_IMAGES = ("images", "test_images")
_IDX_DIMENSIONS = {2049: 1, 2051: 3}
_GREY_MODES = ("1", "L", "LA")
_PALETTE_MODES = ("P", "PA")
_COLOUR_MODES = ("RGB", "RGBA", "CMYK", "YCbCr")
_IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")


class Raw(NamedTuple):
    """Arrays as they were found, and the words for where that was."""

    source: str
    images: Images
    labels: np.ndarray | None = None
    test_images: Images | None = None
    test_labels: np.ndarray | None = None


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
    arrays = [read_idx(files[name]) for name in IDX_FILES]
    return Raw(f"IDX files in {files[IDX_FILES[0]].parent}", *arrays)


def read_npz(path: Path) -> Raw:
    """Read `images`, and `labels`, `test_images`, `test_labels` where they are, from an .npz file; no pickle.

    Large images of unsigned bytes stay in the file, where it is not compressed.

    Raises:
        UsageError: the file is unreadable, holds Python objects, or lacks a key.
    """
    try:
        _, names = archives.read_arrays(path, ())  # looks at every entry before anything of them is read
        opened = {key: stored.open_npz_member(path, key) for key in _NPZ_IMAGES if key in names}
        in_file = {key: images for key, images in opened.items() if images is not None}
        arrays: dict[str, Any] = dict(in_file)
        arrays |= archives.read_arrays(path, tuple(key for key in _NPZ_KEYS if key not in in_file))[0]
    except archives.UNREADABLE as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UsageError(
            f"{path} can't be read as an .npz file of plain arrays: {reason}\n"
            "Write it with numpy.savez(path, images=uint8 array [n, height, width, channels])."
        ) from error
    for key, needed in (("images", True), ("test_images", "test_labels" in arrays)):
        if needed and key not in arrays:
            raise UsageError(
                f"{path} must hold {key}, found the keys: {', '.join(names)[:200] or 'none'}.\n"
                f"Allowed are {', '.join(_NPZ_KEYS)}; all but images may be left out."
            )
    return Raw(source=str(path), **arrays)


def read_npy(path: Path) -> Raw:
    """The images of an .npy file of unsigned bytes, which stay in it if they are large; no pickle.

    Labels are those of the file beside it whose name ends in .labels.npy, where there is one.

    Raises:
        UsageError: a file is unreadable, or the images are of another type.
    """
    reading, labels = path, None
    try:
        images = stored.open_npy(path)
        beside = path.with_suffix(".labels.npy")
        if beside.is_file():
            reading = beside
            labels = archives.read_npy(beside)
    except archives.UNREADABLE as error:
        reason = str(error).partition("\n")[0]
        needed = "uint8 array [n, height, width, channels]" if reading == path else "integers [n]"
        raise UsageError(
            f"{reading} can't be read as an .npy file: {reason}.\nWrite it with numpy.save(path, {needed})."
        ) from error
    return Raw(str(path), images, labels)


def read_image_folder(folder: Path) -> Raw:
    """Read a folder of images of one size, or of one subfolder of them for each class, sorted by name.

    Grey if all are, otherwise RGB; alpha is dropped, and of an animation the first frame is taken.

    Raises:
        UsageError: a file is no image, sizes differ, or there is none.
    """
    entries = _visible(folder)
    classes = [entry for entry in entries if entry.is_dir()]
    files = [entry for entry in entries if not entry.is_dir()]
    if classes and files:
        raise UsageError(
            f"{folder} holds both subfolders ({classes[0].name}) and files ({files[0].name}).\n"
            "Put all images into it directly, or all into one subfolder for each class."
        )
    labelled = [(path, label) for label, one in enumerate(classes) for path in _visible(one)]
    paths = [path for path, _ in labelled] or files
    if not paths:
        raise UsageError(f"{folder} holds no images: put {', '.join(_IMAGE_FORMATS)} files there.")
    images: list[np.ndarray] = []
    for path in paths:
        image = _read_image(path)
        images.append(image)
        if image.shape[:2] != images[0].shape[:2]:
            raise UsageError(
                f"{path} is {_size(image)} pixels, but {paths[0]} is {_size(images[0])}.\n"
                "All images must have one size (width x height): scale or crop them first."
            )
        if len(paths) * images[0].nbytes > archives.MOST_BYTES:
            raise UsageError(
                f"{folder} holds {len(paths)} images of {_size(image)} pixels, more than {archives.MOST_BYTES} bytes.\n"
                "Give fewer images, or scale them down first."
            )
    channels = max(image.shape[2] for image in images)
    stacked = np.stack([np.broadcast_to(image, (*image.shape[:2], channels)) for image in images])
    labels = np.array([label for _, label in labelled], np.int32) if classes else None
    return Raw(f"images in {folder}", stacked, labels)


def read_digits() -> Raw:
    """The 1,797 handwritten 8x8 digits that scikit-learn carries; pixels 0..16 become 0..255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * 255 / 16).astype(np.uint8)
    return Raw("scikit-learn's embedded digits", images, digits.target)


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


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise UsageError(f"{folder} can't be read: {error.strerror}. Give a folder of images.") from error


def _read_image(path: Path) -> np.ndarray:
    try:
        with archives.BoundedReader(path) as file, warnings.catch_warnings():
            warnings.simplefilter("error")  # of a decompression bomb among others
            with Image.open(file, formats=_IMAGE_FORMATS) as image:
                return _pixels(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Warning) as error:
        raise UsageError(
            f"{path} can't be read as an image: {error}\n"
            f"Remove it or convert it; allowed are {', '.join(_IMAGE_FORMATS)} files."
        ) from error


def _pixels(image: Image.Image) -> np.ndarray:
    if image.mode in _GREY_MODES:
        return np.asarray(image.convert("L"))[:, :, None]
    if image.mode in _PALETTE_MODES:
        return np.asarray(image.convert("RGBA"))[:, :, :3]  # a palette may have transparent colours
    if image.mode in _COLOUR_MODES:
        return np.asarray(image.convert("RGB"))
    raise ValueError(f"pixels of mode {image.mode}, where 8 bits a channel are allowed")


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
