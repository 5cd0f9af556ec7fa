"""What a source gives: arrays as they were found, and the words for where that was. Imports no JAX."""

from pathlib import Path
from typing import Any, NamedTuple


class RawSplit(NamedTuple):
    """Images as `vae_jax.data.checks.as_images` takes them, and what belongs to each of them."""

    images: Any
    labels: Any = None
    """One an image: integers, or words, which become the names of the classes."""
    files: tuple[str, ...] | None = None
    """The file that each image came from."""


class Raw(NamedTuple):
    """A data set as it was found; a split that is missing is held out of train."""

    source: str
    """Where it was found, in words."""
    train: RawSplit
    validation: RawSplit | None = None
    test: RawSplit | None = None
    class_names: tuple[str, ...] | None = None
    """Of the labels 0, 1, ..., where they are integers and have names."""


class Reading(NamedTuple):
    """What the user says about how a source is read."""

    data_dir: Path | None = None
    """Where the files of data sets lie that are given by name."""
    background: str = "white"
    """What stands behind transparent pictures: "white" or "black"."""
    skip_damaged: bool = False
    """Leave out pictures that can't be read, rather than refuse the folder."""
    channels: int | None = None
    """Of the images that a model takes: pictures are made grey or colour for it, where nothing is lost by that."""
