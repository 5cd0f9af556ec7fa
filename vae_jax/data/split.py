"""Images with what belongs to each of them, and how splits are held out."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32, Int64, UInt8

from vae_jax.data.checks import as_floats, as_images, as_labels
from vae_jax.data.stored import StoredImages, choose
from vae_jax.errors import UsageError, counted

Classes = tuple[int | str, ...]
"""Labels, or names of classes, which a `Dataset` knows and a `Split` does not."""
UNKNOWN = -1
"""The label of an image whose class is not known, where a model infers it."""
_OF_CLASS = 4  # images of a class, from which one can be held out


@dataclass(frozen=True, eq=False)
class Split:
    """Images and, where there are any, their labels and the files that they came from.

    Images are taken and converted by `vae_jax.data.checks.as_images`.

    Raises:
        UsageError: the images are none, or labels, files or factors are not one an image.
    """

    images: UInt8[np.ndarray | StoredImages, "n height width channels"] | Float32[np.ndarray, "n height width channels"]
    labels: Int32[np.ndarray, " n"] | None = None
    files: tuple[str, ...] | None = None
    """The name of each image's file, as seen from the folder that was given."""
    factors: Int32[np.ndarray, "n factors"] | None = None
    """What each image was made by, where that is known: of each factor a value that is counted from 0."""

    def __post_init__(self) -> None:
        images = as_images(self.images)
        labels = as_labels(self.labels, len(images))
        if labels is not None and labels.dtype.kind == "U":
            raise UsageError("labels of a Split must be integers, got words. Number the classes, alike in all splits.")
        if self.files is not None and len(self.files) != len(images):
            raise UsageError(f"files must be one an image, got {len(self.files)} for {counted(len(images), 'image')}.")
        factors = None if self.factors is None else np.asarray(self.factors, np.int32)
        if factors is not None and (factors.ndim != 2 or len(factors) != len(images)):
            raise UsageError(f"factors must be [{len(images)}, factors], a row an image, got {factors.shape}.")
        vars(self).update(images=images, labels=labels, factors=factors)

    @classmethod
    def of_floats(cls, values: Any) -> "Split":
        """Values of any range [n, height, width, channels] in place of images, for `Inputs(floats=True)`.

        They are taken and converted by `vae_jax.data.checks.as_floats`.
        """
        split = cls.__new__(cls)
        vars(split).update(images=as_floats(values), labels=None, files=None, factors=None)
        return split

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, chosen: slice | Int64[np.ndarray, " chosen"]) -> "Split":
        """The images at these positions, in this order, with what belongs to them."""
        other = copy.copy(self)  # what was checked is not checked again
        files = None if self.files is None else tuple(self.files[i] for i in np.arange(len(self))[chosen])
        labels = None if self.labels is None else self.labels[chosen]
        factors = None if self.factors is None else self.factors[chosen]
        vars(other).update(images=choose(self.images, chosen), labels=labels, files=files, factors=factors)
        return other

    def positions(self, classes: Classes | None) -> Int64[np.ndarray, " chosen"]:
        """Where the images of these labels stand; None is all.

        Raises:
            UsageError: there are no labels, or no image of one of them.
        """
        if classes is None:
            return np.arange(len(self))
        if self.labels is None:
            raise UsageError(f"--classes {' '.join(map(str, classes))} needs labels, which the data set has not.")
        for label in classes:
            if isinstance(label, str) or label not in self.labels:
                known = ", ".join(map(str, np.unique(self.labels)[:20]))
                raise UsageError(f"--classes must be labels that occur, got {label!r}; they are {known}.")
        return np.flatnonzero(np.isin(self.labels, classes))

    def of_classes(self, classes: Classes | None) -> "Split":
        """The images of these labels only; None is all."""
        chosen = self.positions(classes)
        return self if len(chosen) == len(self) else self.rows(chosen)

    def labelled(self, number: int | None, seed: int) -> "Split":
        """The same with the labels of `number` images only, as many of each class; the others' are UNKNOWN. None: all.

        Raises:
            UsageError: there are no labels, too few of a class, or the number can't be shared out among the classes.
        """
        if number is None:
            return self
        if self.labels is None:
            raise UsageError(f"--labels {number} needs labels, which the data set has not.")
        every = np.random.default_rng(seed).permutation(len(self))
        places = [every[self.labels[every] == label] for label in np.unique(self.labels) if label != UNKNOWN]
        each, rest = divmod(number, max(1, len(places)))
        fewest = min(map(len, places), default=0)
        if rest or not 0 < each <= fewest:
            raise UsageError(
                f"--labels must be a multiple of the {counted(len(places), 'class')}, at most {fewest} of each, "
                f"got {number}."
            )
        labels = np.full(len(self), UNKNOWN, np.int32)
        chosen = np.concatenate([of_class[:each] for of_class in places])
        labels[chosen] = self.labels[chosen]
        other = copy.copy(self)
        vars(other).update(labels=labels)
        return other


def joined(splits: list[Split]) -> Split:
    """The images of all splits, one after another, in memory; labels and files where all of them have some.

    Factors are those of images that were made, which come in one split.
    """
    if len(splits) == 1:
        return splits[0]
    images, labels = [split.images for split in splits], [s.labels for s in splits if s.labels is not None]
    files = [file for split in splits for file in split.files or ()]
    return Split(
        np.concatenate(images),
        np.concatenate(labels) if len(labels) == len(splits) else None,
        tuple(files) if len(files) == sum(map(len, splits)) else None,
    )


def held_out(given: dict[str, Split], *, in_order: bool, stratify: bool) -> dict[str, Split]:
    """All three splits: what was not given is cut off train.

    Args:
        given: train, and validation and test where they are there.
        in_order: cut the validation images off the end of train as it is, not at random.
        stratify: where a class of at least five images would be missing from what is cut off, cut off of each class
            by itself.
    """
    splits = _held_out(given, in_order, by_class=False)
    if stratify and _lacks_class(given["train"], [split for part, split in splits.items() if part not in given]):
        return _held_out(given, in_order, by_class=True)
    return splits


def _held_out(given: dict[str, Split], in_order: bool, by_class: bool) -> dict[str, Split]:
    train, test, validation = given["train"], given.get("test"), given.get("validation")
    if test is None:
        train, test = _cut(_permuted(train), max(1, len(train) // 5), by_class)
    if validation is None:
        train = train if in_order else _permuted(train)
        train, validation = _cut(train, 5000 if len(train) >= 50_000 else max(1, len(train) // 10), by_class)
    return {"train": train, "validation": validation, "test": test}


def _lacks_class(whole: Split, parts: Iterable[Split]) -> bool:
    if whole.labels is None:
        return False
    labels, numbers = np.unique(whole.labels, return_counts=True)
    large = set(labels[numbers > _OF_CLASS].tolist())
    return any(part.labels is not None and not large <= set(part.labels.tolist()) for part in parts)


def _permuted(split: Split) -> Split:
    # Own images often come sorted by class, and a validation split of one class says nothing.
    return split.rows(np.random.default_rng(0).permutation(len(split)))


def _cut(split: Split, last: int, by_class: bool) -> tuple[Split, Split]:
    if not by_class:
        return split.rows(slice(None, -last)), split.rows(slice(-last, None))
    assert split.labels is not None
    held = np.zeros(len(split), bool)
    for label in np.unique(split.labels):
        places = np.flatnonzero(split.labels == label)
        number = max(round(len(places) * last / len(split)), int(len(places) >= _OF_CLASS))
        held[places[len(places) - number :]] = True
    return split.rows(np.flatnonzero(~held)), split.rows(np.flatnonzero(held))
