"""A data set: three splits, and where they came from."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from vae_jax.config import few_images_batch
from vae_jax.data.checks import ImageShape
from vae_jax.data.raw import Pictures
from vae_jax.data.split import Classes, Split
from vae_jax.data.stored import pieces
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
    factor_names: tuple[str, ...] | None = None
    """Of the columns of the splits' factors, where the images were made by some."""

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
