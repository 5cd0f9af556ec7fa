"""Images in, checked: where a data set comes from, its three splits, and what the model sees of a pixel."""

import hashlib
import os
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Int64, UInt8

from vae_jax.data import catalogue, sources
from vae_jax.data.checks import checked_images, checked_labels
from vae_jax.data.stored import Images, StoredImages, choose, pieces
from vae_jax.errors import UsageError

_FEWEST_IMAGES = 4  # two to train on, one to validate, one to test
_REMEDY = (
    f"To have it, put {', '.join(sources.IDX_FILES)} (.gz or not) into DIR and give --data-dir DIR or "
    "set VAE_JAX_DATA_DIR=DIR."
)


@dataclass(frozen=True, eq=False)
class Split:
    """Images and, where there are any, their labels.

    Raises:
        UsageError: the images are not unsigned bytes, or not [n, height, width, channels].
    """

    images: UInt8[np.ndarray | StoredImages, "n height width channels"]
    labels: Int32[np.ndarray, " n"] | None

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise UsageError(
                f"images must be uint8 [n, height, width, channels], got {self.images.dtype} of shape "
                f"{self.images.shape}.\nSave them as .npy and use load_dataset, or scale them to 0..255 and convert."
            )

    def __len__(self) -> int:
        return len(self.images)

    def positions(self, classes: tuple[int, ...] | None) -> Int64[np.ndarray, " chosen"]:
        """Where the images of these labels stand; None is all.

        Raises:
            UsageError: there are no labels, or no image of one of them.
        """
        if classes is None:
            return np.arange(len(self))
        if self.labels is None:
            raise UsageError(f"--classes {' '.join(map(str, classes))} needs labels, which the data set has not.")
        for label in classes:
            if label not in self.labels:
                known = ", ".join(map(str, np.unique(self.labels)[:20]))
                raise UsageError(f"--classes must be labels that occur, got {label}; they are {known}.")
        return np.flatnonzero(np.isin(self.labels, classes))

    def of_classes(self, classes: tuple[int, ...] | None) -> "Split":
        """The images of these labels only; None is all."""
        if classes is None:
            return self
        chosen = self.positions(classes)
        assert self.labels is not None
        return Split(choose(self.images, chosen), self.labels[chosen])


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three splits, and where they came from."""

    name: str
    train: Split
    validation: Split
    test: Split
    source: str
    sha256: str
    """Of all arrays, before they were split: their types, shapes and bytes."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels

    def of_classes(self, classes: tuple[int, ...] | None) -> "Dataset":
        """The images of these labels only, in every split; None is all."""
        if classes is None:
            return self
        splits = {name: getattr(self, name).of_classes(classes) for name in ("train", "validation", "test")}
        return replace(self, **splits)


def load_dataset(name: str | None = None, data_dir: str | Path | None = None, *, in_file: bool = False) -> Dataset:
    """Load a data set, check it and split it.

    Where the source has no test split, a fixed fifth of it is held out. For validation are the last tenth of
    the training images, or the last 5,000 of at least 50,000.

    Args:
        name: mnist, fashion_mnist, kmnist, digits, a prepared TFDS data set, or the path of an .npz or .npy
            file or of a folder of images. None is mnist, and digits with a warning where mnist can't be downloaded.
        data_dir: where the IDX files of the MNIST family lie, itself or a subfolder of the data set's name;
            by default the environment variable `VAE_JAX_DATA_DIR`.
        in_file: leave large images where they are, in an .npy or uncompressed .npz file of unsigned bytes, as
            `vae_jax.data.stored.StoredImages`; enough to train, to evaluate and to encode. Otherwise they are read.

    Raises:
        UsageError: there is no such data set, or it can't be trained on.
        DownloadError: it is named, is not here and can't be downloaded.
    """
    if name is not None:
        found, raw = _find(name, data_dir)
        return _checked(found, raw if in_file else _read(raw))
    try:
        return _checked(*_find("mnist", data_dir))
    except catalogue.DownloadError as error:
        warnings.warn(f"NOT MNIST: using scikit-learn's embedded 8x8 digits instead, because {error}", stacklevel=2)
    return _checked(*_find("digits", data_dir))


def read_images(path: str | Path, image_shape: tuple[int, int, int]) -> Split:
    """Read images for a model that takes images of this shape, with their labels where there are any; no split.

    Args:
        path: an .npz file with `images` (and `labels`), an .npy file of images, or a folder of images.
        image_shape: height, width and channels that the model was trained on.

    Raises:
        UsageError: they can't be read, or have another shape.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raw = sources.read_image_folder(path)
    else:
        raw = sources.read_npy(path) if path.suffix == ".npy" else sources.read_npz(path)
    images = np.asarray(checked_images(raw.images, f"images of {raw.source}"))
    if images.shape[1:] != image_shape:
        raise UsageError(
            f"images of {raw.source} must have the shape {image_shape} that the model was trained on, "
            f"got {images.shape[1:]}.\nScale or convert them first."
        )
    return Split(images, checked_labels(raw.labels, len(images), f"labels of {raw.source}"))


def check_batch_size(train: Split, batch_size: int) -> None:
    """Check that the training images fill a batch.

    Raises:
        UsageError: they do not.
    """
    if len(train) < batch_size:
        raise UsageError(f"--batch-size must be at most the {len(train)} training images, got {batch_size}.")


def _find(name: str, data_dir: str | Path | None) -> tuple[str, sources.Raw]:
    for what, folder in (("--data-dir", data_dir), ("VAE_JAX_DATA_DIR", os.environ.get("VAE_JAX_DATA_DIR"))):
        if folder and not Path(folder).expanduser().is_dir():
            raise UsageError(f"{what} must be a folder that exists, got {str(folder)!r}.")
    if name == "digits":
        return name, sources.read_digits()
    if name in sources.MNIST_FAMILY:
        return name, _find_in_family(name, data_dir or os.environ.get("VAE_JAX_DATA_DIR"))
    path = Path(os.path.expanduser(name))
    if path.suffix == ".npz":
        return path.stem, sources.read_npz(path)
    if path.suffix == ".npy":
        return path.stem, sources.read_npy(path)
    if name and os.path.isdir(path):
        return path.resolve().name, sources.read_image_folder(path)
    if "/" in name or os.sep in name:
        raise UsageError(
            f"--dataset must be an .npz or .npy file or a folder of images where it is a path, got {name!r}."
        )
    return name, catalogue.read_prepared(name)


def _read(raw: sources.Raw) -> sources.Raw:
    test_images = None if raw.test_images is None else np.asarray(raw.test_images)
    return raw._replace(images=np.asarray(raw.images), test_images=test_images)


def _find_in_family(name: str, data_dir: str | Path | None) -> sources.Raw:
    if data_dir is not None:
        files = sources.find_idx_folder(name, Path(data_dir).expanduser())
        if files:
            return sources.read_idx_files(files)
    cache = catalogue.data_dir() / "downloads" / "vae_jax" / name
    # An incomplete cache is no error: the download replaces what is there.
    if len(sources.idx_files(cache)) < len(sources.IDX_FILES):
        if catalogue.is_prepared(name):
            return catalogue.read_prepared(name)
        try:
            catalogue.download(catalogue.remote_files(name), cache)
        except catalogue.DownloadError as error:
            raise catalogue.DownloadError(f"{name} could not be downloaded: {error}.\n{_REMEDY}") from error
    return sources.read_idx_files(sources.idx_files(cache))


def _checked(name: str, raw: sources.Raw) -> Dataset:
    images = checked_images(raw.images, f"images of {raw.source}")
    labels = checked_labels(raw.labels, len(images), f"labels of {raw.source}")
    if len(images) < _FEWEST_IMAGES:
        raise UsageError(
            f"{raw.source} must hold at least {_FEWEST_IMAGES} images to split, got {len(images)}. Add some."
        )
    digest = _sha256(images, labels)  # as they lie there: a file is read from its beginning to its end
    if raw.test_images is None:
        whole = _permuted(Split(images, labels))
        train, test = _cut(whole, max(1, len(whole) // 5))
    else:
        train = Split(images, labels)
        test_images = checked_images(raw.test_images, f"test_images of {raw.source}")
        if test_images.shape[1:] != images.shape[1:]:
            raise UsageError(
                f"test_images of {raw.source} must have the shape {images.shape[1:]} of its training images, "
                f"got {test_images.shape[1:]}."
            )
        test_labels = checked_labels(raw.test_labels, len(test_images), f"test_labels of {raw.source}")
        test = Split(test_images, test_labels)
        digest = _sha256(test_images, test_labels, digest)
    if name not in sources.MNIST_FAMILY:
        train = _permuted(train)
    train, validation = _cut(train, 5000 if len(train) >= 50_000 else max(1, len(train) // 10))
    return Dataset(name, train, validation, test, raw.source, digest)


def _permuted(split: Split) -> Split:
    # Own images often come sorted by class, and a validation split of one class says nothing.
    order = np.random.default_rng(0).permutation(len(split))
    return Split(choose(split.images, order), None if split.labels is None else split.labels[order])


def _cut(split: Split, last: int) -> tuple[Split, Split]:
    parts = (slice(None, -last), slice(-last, None))
    first, second = (
        Split(choose(split.images, part), None if split.labels is None else split.labels[part]) for part in parts
    )
    return first, second


def _sha256(images: Images, labels: np.ndarray | None, before: str = "") -> str:
    digest = hashlib.sha256(before.encode())
    for array in (images, labels):
        if array is None:
            digest.update(b"none")
        else:
            digest.update(f"{array.dtype} {array.shape}".encode())
            for piece in pieces(array):
                digest.update(np.ascontiguousarray(piece).data)
    return digest.hexdigest()
