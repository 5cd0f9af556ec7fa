"""What a source gives: arrays as they were found, and the words for where that was. Imports no JAX."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class Pictures(NamedTuple):
    """How pictures became images: kept with a run, for the pictures that come later."""

    size: tuple[int, int]
    """Height and width."""
    fit: str
    """"crop": scaled so that the short side fits, and cropped from the middle; "pad": scaled so that the long side
    fits, and padded; "none": what is of another size is refused."""
    channels: int
    """1 where all of them are grey, else 3."""
    is_scaled: bool = False
    """Whether some of them were of another size."""
    levels: tuple[int, int] | None = None
    """Of 16 bits: the values that became 0 and 255."""

    @classmethod
    def of(cls, record: dict[str, Any]) -> "Pictures":
        """Of what `_asdict` gave, by way of JSON."""
        levels = record["levels"] and tuple(record["levels"])
        return cls(**{**record, "size": tuple(record["size"]), "levels": levels})


class RawSplit(NamedTuple):
    """Images as `vae_jax.data.checks.as_images` takes them, and what belongs to each of them."""

    images: Any
    labels: Any = None
    """One an image: integers, or words, which become the names of the classes."""
    files: tuple[str, ...] | None = None
    """The file that each image came from."""
    factors: Any = None
    """What each image was made by, where that is known: integers [n, factors]."""


class Raw(NamedTuple):
    """A data set as it was found; a split that is missing is held out of train."""

    source: str
    """Where it was found, in words."""
    train: RawSplit
    validation: RawSplit | None = None
    test: RawSplit | None = None
    class_names: tuple[str, ...] | None = None
    """Of the labels 0, 1, ..., where they are integers and have names."""
    pictures: Pictures | None = None
    """How they became images, where they were pictures."""
    sha256: str = ""
    """The digest of all arrays, where it was remembered."""
    remember: Callable[[str], None] | None = None
    """Is given that digest."""
    factor_names: tuple[str, ...] | None = None
    """Of what the images were made by, where that is known."""


class Reading(NamedTuple):
    """What the user says about how a source is read."""

    data_dir: Path | None = None
    """Where the files of data sets lie that are given by name."""
    background: str = "white"
    """What stands behind transparent pictures: "white" or "black"."""
    skip_damaged: bool = False
    """Leave out pictures that can't be read, rather than refuse the folder."""
    image_size: str | None = None
    """Of pictures: "N" or "HxW" in pixels; None is that which all of them have, and 64 where they differ."""
    fit: str = "crop"
    """How a picture of another shape gets that size, "crop" or "pad"."""
    before: Pictures | None = None
    """How those became images that a model was trained on: as those, also in grey or colour where nothing is lost."""
