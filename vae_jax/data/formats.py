"""The archives that data sets are published in, read as they are, within limits. Imports no JAX."""

import contextlib
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np

from vae_jax import archives
from vae_jax.data.pictures import read, tolerant
from vae_jax.data.raw import Pictures, Raw, RawSplit, Reading
from vae_jax.domains import image_sides
from vae_jax.errors import UsageError

CIFAR = "cifar-10-binary.tar.gz"
SVHN = ("train_32x32.mat", "test_32x32.mat")
AMAT = ("binarized_mnist_train.amat", "binarized_mnist_valid.amat", "binarized_mnist_test.amat")
OMNIGLOT = ("images_background.zip", "images_evaluation.zip")
_CIFAR_SHAPE = (3, 32, 32)
_CIFAR_BATCHES = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}
_AMAT_SIDE = 28
_AMAT_KINDS = np.full(256, 3, np.uint8)
"""0 and 1 of these letters, 2 of spaces, 3 of all others."""
_AMAT_KINDS[list(b"01 \r\n\t")] = [0, 1, 2, 2, 2, 2]
_OMNIGLOT_SIZE = (105, 105)
_MOST_PICTURE = 2**20  # bytes that are unpacked
_MOST_BATCH = 2**26


def read_cifar(files: dict[str, Path], _: Reading) -> Raw:
    """CIFAR-10 of its binary version: records of a label and three planes of 32x32.

    Raises:
        UsageError: the archive is broken.
    """
    path, size = files[CIFAR], 1 + int(np.prod(_CIFAR_SHAPE))
    with _reading(path), archives.BoundedReader(path) as raw, tarfile.open(fileobj=raw, mode="r:gz") as archive:
        found = {member.name.rpartition("/")[2]: member for member in archive if member.isfile()}

        def content(name: str) -> bytes:
            member, file = found[name], archive.extractfile(found[name])
            if file is None or member.size > _MOST_BATCH:
                raise ValueError(f"{name} declares {member.size} bytes")
            return file.read()

        splits = {}
        for split, batches in _CIFAR_BATCHES.items():
            records = np.frombuffer(b"".join(map(content, batches)), np.uint8).reshape(-1, size)
            images = records[:, 1:].reshape(-1, *_CIFAR_SHAPE).transpose(0, 2, 3, 1)
            splits[split] = RawSplit(np.ascontiguousarray(images), records[:, 0])
        names = tuple(content("batches.meta.txt").decode().split())
    if not all(split.labels.max(initial=0) < len(names) for split in splits.values()):
        raise _broken(path, f"a label has no name among {len(names)}")
    return Raw(f"CIFAR-10 in {path}", splits["train"], test=splits["test"], class_names=names)


def read_svhn(files: dict[str, Path], _: Reading) -> Raw:
    """The cropped digits of SVHN, train and test without the extra ones; the label 10 of the files is the digit 0.

    Raises:
        UsageError: a file is broken.
    """
    from scipy.io import loadmat

    splits = []
    for name in SVHN:
        path = files[name]
        with _reading(path), archives.BoundedReader(path) as file:
            arrays: dict[str, Any] = loadmat(file, variable_names=("X", "y"))
            images, labels = arrays["X"], arrays["y"].reshape(-1)
            if images.dtype != np.uint8 or images.ndim != 4 or labels.dtype.kind not in "iu" or not _are_digits(labels):
                raise ValueError(f"X is {images.dtype} {images.shape}, y {labels.dtype} {labels.shape}")
        splits.append(RawSplit(np.ascontiguousarray(images.transpose(3, 0, 1, 2)), labels % 10))
    return Raw(f"SVHN in {path.parent}", splits[0], test=splits[1])


def read_amat(files: dict[str, Path], _: Reading) -> Raw:
    """Binarised MNIST with the splits of Larochelle: text of zeros and ones, a line of 784 an image.

    Raises:
        UsageError: a file is broken.
    """
    splits = []
    for name in AMAT:
        with _reading(files[name]):
            content = np.frombuffer(archives.read_bytes(files[name], archives.MOST_BYTES), np.uint8)
            kinds = _AMAT_KINDS[content]
            if not (kinds < 2).any() or (kinds > 2).any():
                raise ValueError("it must hold numbers 0 and 1, and no other text")
            splits.append(RawSplit(kinds[kinds < 2].reshape(-1, _AMAT_SIDE, _AMAT_SIDE).astype(bool)))
    train, validation, test = splits
    return Raw(f"binarised MNIST in {files[AMAT[0]].parent}", train, validation, test)


def read_omniglot(files: dict[str, Path], reading: Reading) -> Raw:
    """Omniglot: the background set to train, the evaluation set, of other alphabets, to test; a class a character.

    The ink is white, as in MNIST, and not black as in the files. Images are 105x105, or as `--image-size` says.

    Raises:
        UsageError: a file is broken.
    """
    how = Pictures(image_sides(reading.image_size) or _OMNIGLOT_SIZE, reading.fit, 1)
    splits = []
    for name in OMNIGLOT:
        images, labels, paths = [], [], []
        with _reading(files[name]), archives.BoundedReader(files[name]) as raw, ZipFile(raw) as archive, tolerant():
            for entry in sorted(archive.infolist(), key=lambda entry: entry.filename):
                parts = entry.filename.split("/")
                if parts[0] == "__MACOSX" or not parts[-1].endswith(".png"):
                    continue
                if entry.file_size > _MOST_PICTURE:
                    raise ValueError(f"{entry.filename[:60]} declares {entry.file_size} bytes")
                with archive.open(entry) as file:
                    images.append(255 - read(file, how, "white")[0])
                labels.append("/".join(parts[-3:-1]))
                paths.append(entry.filename)
            if not images:
                raise ValueError("it holds no .png file")
            splits.append(RawSplit(np.stack(images), np.array(labels), tuple(paths)))
    return Raw(f"Omniglot, white ink, in {files[OMNIGLOT[0]].parent}", splits[0], test=splits[1])


def _are_digits(labels: np.ndarray) -> bool:
    return bool(((labels >= 0) & (labels <= 10)).all())


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    # Of Pillow and SciPy, too, who raise many kinds.
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        raise _broken(path, str(error).partition("\n")[0][:150] or type(error).__name__) from error


def _broken(path: Path, reason: str) -> UsageError:
    return UsageError(f"{path} can't be read: {reason}.\nIt is not as it was published: delete it and fetch it again.")
