"""Images in, checked: a data set with three splits, made of what a source found."""

import hashlib
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vae_jax.config import few_images_batch
from vae_jax.data import catalogue
from vae_jax.data.checks import ImageShape, as_images, as_labels, natural_sorted
from vae_jax.data.idx import MNIST_FAMILY
from vae_jax.data.raw import Pictures, Raw, Reading
from vae_jax.data.sources import check_effects, expanded, find_source, read_digits
from vae_jax.data.split import Classes, Split, held_out, joined
from vae_jax.data.stored import pieces
from vae_jax.domains import image_sides
from vae_jax.errors import UsageError, counted


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three splits, and where they came from.

    Raises:
        UsageError: a split is none, or the splits hold images of different shapes.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    source: str = "arrays"
    sha256: str = ""
    """Of all arrays, before they were split: their types, shapes and bytes; of those of the splits, where not given."""
    class_names: tuple[str, ...] | None = None
    """Of the labels 0, 1, ..., where they have names."""
    pictures: Pictures | None = None
    """How they became images, where they were pictures."""

    def __post_init__(self) -> None:
        for name, split in self.splits.items():
            if not isinstance(split, Split):
                raise UsageError(
                    f"{name} of a Dataset must be a Split, got {type(split).__name__}.\n"
                    f"Give Dataset(..., {name}=Split(images, labels), ...)."
                )
            if split.images.shape[1:] != self.train.images.shape[1:]:
                raise UsageError(
                    f"{name} images must have the shape {self.image_shape} of the training images, "
                    f"got {split.images.shape[1:]}. Scale or convert them first."
                )
        if not self.sha256:
            object.__setattr__(self, "sha256", digest_of(self.splits.values()))

    @property
    def splits(self) -> dict[str, Split]:
        """Train, validation and test, by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def image_shape(self) -> ImageShape:
        """Height, width and channels."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels

    def name_of(self, label: int) -> str:
        """The name of a class; its label, where it has none."""
        return self.class_names[label] if self.class_names and 0 <= label < len(self.class_names) else str(label)

    def labels_of(self, classes: Classes, *, words: bool = False) -> tuple[int, ...]:
        """The labels of classes that are given by label or by name.

        Args:
            classes: integers are labels, texts are names.
            words: whether an integer is the name, too, where a class is called so: on a command line both look alike.

        Raises:
            UsageError: no class has this name.
        """
        known = self.class_names or ()
        if words:
            classes = tuple(str(name) if str(name) in known else name for name in classes)
        for name in classes:
            if isinstance(name, str) and name not in known:
                names = f"they are {', '.join(known)[:200]}" if known else "the classes of this data set have no names"
                raise UsageError(f"--classes must be names of classes, got {name!r}; {names}.")
        return tuple(known.index(name) if isinstance(name, str) else name for name in classes)

    def of_classes(self, classes: Classes | None) -> "Dataset":
        """The images of these classes only, in every split; None is all.

        Raises:
            UsageError: there are no labels, no such class, or a split holds no image of one.
        """
        if classes is None:
            return self
        labels = self.labels_of(classes)
        for label in labels:
            numbers = {name: int((s.labels == label).sum()) for name, s in self.splits.items() if s.labels is not None}
            empty = [name for name, number in numbers.items() if not number]
            if empty and sum(numbers.values()):
                called = f" ({self.name_of(label)})" if self.class_names else ""
                raise UsageError(
                    f"--classes {label}{called} has no image in the {empty[0]} split, {sum(numbers.values())} in all.\n"
                    "Leave it out, or give more images of it."
                )
        train, validation, test = (split.of_classes(labels) for split in self.splits.values())
        return replace(self, train=train, validation=validation, test=test)


def load_dataset(
    name: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    in_file: bool = False,
    background: str = "white",
    skip_damaged: bool = False,
    image_size: str | int | None = None,
    fit: str = "crop",
    stratify: bool = True,
) -> Dataset:
    """Load a data set, check it and split it.

    A split that the source has not is held out of its training images: for test a fifth, for validation the last
    tenth, or the last 5,000 of at least 50,000.

    Args:
        name: what `vae_jax.data.sources.sources_in_words` lists. None is mnist, and digits with a warning where
            mnist can't be downloaded.
        data_dir: where the files of a data set lie that is given by its name, itself or a subfolder of that name;
            by default the environment variable `VAE_JAX_DATA_DIR`.
        in_file: leave large images where they are, in an .npy or uncompressed .npz file of unsigned bytes, as
            `vae_jax.data.stored.StoredImages`; enough to train, to evaluate and to encode. Otherwise they are read.
            Those of pictures are in the user's cache directory, or in that which `VAE_JAX_CACHE_DIR` names.
        background: what stands behind transparent pictures, "white" or "black".
        skip_damaged: leave out pictures that can't be read, with a warning, rather than refuse the folder.
        image_size: pixels of the images that pictures become, N or "HxW"; None is the size that all of them have, or
            64x64 with a warning where sizes differ.
        fit: how a picture of another shape gets that size: "crop" scales it so that the short side fits, and crops it
            from the middle; "pad" scales it so that the long side fits, and pads it.
        stratify: where a class of at least five images would be missing from a split that is held out, hold out of
            each class by itself.

    Raises:
        UsageError: there is no such data set, or it can't be trained on.
        DownloadError: it is named, is not here and can't be downloaded.
    """
    for what, folder in (("--data-dir", data_dir), ("VAE_JAX_DATA_DIR", os.environ.get("VAE_JAX_DATA_DIR"))):
        if folder and not Path(folder).expanduser().is_dir():
            raise UsageError(f"{what} must be a folder that exists, got {str(folder)!r}.")
    size = None if image_size is None else str(image_size)
    if size is not None and image_sides(size) is None:
        raise UsageError(f"--image-size must be N or HxW (height x width), such as 64 or 48x64, got {size[:60]!r}.")
    _check_one_of("background", background, "white", "black")
    _check_one_of("fit", fit, "crop", "pad")
    reading = Reading(Path(data_dir) if data_dir else None, background, skip_damaged, size, fit)
    if not isinstance(name, str | os.PathLike | None):
        raise UsageError(f"--dataset must be a name or a path, got {str(name)[:60]}. An array goes into a Split.")
    given = "mnist" if name is None else os.fspath(name)
    source = find_source(given)
    check_effects(source, given, reading)
    try:
        raw = source.read(given, reading)
    except catalogue.DownloadError as error:
        if name is not None:
            raise
        warnings.warn(f"NOT MNIST: using scikit-learn's embedded 8x8 digits instead, because {error}", stacklevel=2)
        given, raw = "digits", read_digits()
    path = expanded(given)
    title = path.resolve().name if path.is_dir() else path.stem
    return _checked(title if source.is_path else given, raw, in_file, stratify)


def read_images(
    path: str | os.PathLike[str],
    image_shape: ImageShape,
    *,
    pictures: Pictures | None = None,
    background: str = "white",
    skip_damaged: bool = False,
) -> tuple[Split, tuple[str, ...] | None]:
    """Read images for a model, with their labels and files where there are any; splits one after another.

    Gives also the names of the classes, where they have names: their labels are numbered by what is read, which need
    not hold the classes that the model was trained on.

    Pictures that are stored grey become colour for a model of colour images, and the other way where they are grey.

    Args:
        path: of what `load_dataset` takes as a path.
        image_shape: height, width and channels that the model was trained on.
        pictures: how pictures became the images that it was trained on, as its run has it: those given are made images
            in the same way. Without it they must have that size, and 8 bits a channel.
        background: as in `load_dataset`; that of the model's run, so it may be without effect.
        skip_damaged: as in `load_dataset`.

    Raises:
        UsageError: they can't be read, or have another shape.
    """
    given = os.fspath(path)
    source = find_source(given, paths_only=True)
    check_effects(source, given, Reading(skip_damaged=skip_damaged))
    _check_one_of("background", background, "white", "black")
    height, width, channels = image_shape
    before = pictures or Pictures((height, width), "none", channels)
    raw = source.read(given, Reading(None, background, skip_damaged, before=before))
    splits, class_names = _as_splits(raw, image_shape, in_file=False)
    return joined(list(splits.values())), class_names


def check_batch_size(train: Split, batch_size: int) -> None:
    """Check that the training images fill a batch.

    Raises:
        UsageError: they do not.
    """
    if len(train) < batch_size:
        raise UsageError(
            f"--batch-size must be at most the {counted(len(train), 'training image')}, got {batch_size}.\n"
            f"Give --batch-size {few_images_batch(len(train))}, or more images."
        )


def _check_one_of(name: str, value: str, *allowed: str) -> None:
    if value not in allowed:
        raise UsageError(f"--{name} must be {' or '.join(allowed)}, got {value!r}.")


def _as_splits(
    raw: Raw, image_shape: ImageShape | None, in_file: bool
) -> tuple[dict[str, Split], tuple[str, ...] | None]:
    # The splits that there are, checked, and the names of the classes.
    images, labels, class_names = {}, {}, raw.class_names
    for part in ("train", "test", "validation"):
        if (found := getattr(raw, part)) is not None:
            prefix = "" if part == "train" else f"{part}_"
            checked = as_images(found.images, image_shape=image_shape, what=f"{prefix}images of {raw.source}")
            image_shape = checked.shape[1:]  # type: ignore[assignment]
            images[part] = checked if in_file else np.asarray(checked)
            labels[part] = as_labels(found.labels, len(checked), f"{prefix}labels of {raw.source}")
    words = {part: array.tolist() for part, array in labels.items() if array is not None and array.dtype.kind == "U"}
    if words:  # one number for a word in all splits
        if len(words) < sum(array is not None for array in labels.values()):
            raise UsageError(f"labels of {raw.source} must be words in all splits or in none, got both.")
        class_names = tuple(natural_sorted(set().union(*words.values())))
        places = {name: index for index, name in enumerate(class_names)}
        labels |= {part: np.array([places[name] for name in names], np.int32) for part, names in words.items()}
    return {part: Split(images[part], labels[part], getattr(raw, part).files) for part in images}, class_names


def _checked(name: str, raw: Raw, in_file: bool, stratify: bool) -> Dataset:
    given, class_names = _as_splits(raw, None, in_file)
    digest = raw.sha256 or digest_of(given.values())  # as they lie there: a file is read from its beginning to its end
    if raw.remember:
        raw.remember(digest)
    fewest = 2 + ("test" not in given) + ("validation" not in given)  # two to train on
    if len(given["train"]) < fewest:
        raise UsageError(
            f"{raw.source} must hold at least {fewest} images to split, got {len(given['train'])}. Add some."
        )
    splits = held_out(given, in_order=name in MNIST_FAMILY, stratify=stratify)
    return Dataset(name, **splits, source=raw.source, sha256=digest, class_names=class_names, pictures=raw.pictures)


def digest_of(splits: Iterable[Split], *, chained: bool = True) -> str:
    """The SHA-256 of all arrays of splits: their types, shapes and bytes, in turn.

    Args:
        splits: what to hash.
        chained: begin each split's hash with that of the split before it; otherwise there is one hash of all.
    """
    digest = hashlib.sha256()
    for number, split in enumerate(splits):
        if chained and number:
            digest = hashlib.sha256(digest.hexdigest().encode())
        for array in (split.images, split.labels):
            if array is None:
                digest.update(b"none")
                continue
            digest.update(f"{array.dtype} {array.shape}".encode())
            for piece in pieces(array):
                digest.update(np.ascontiguousarray(piece).data)
    return digest.hexdigest()
