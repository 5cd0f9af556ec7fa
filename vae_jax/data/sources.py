"""Where images come from, in one table: help texts and errors list it, `register_source` adds to it. Imports no JAX."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vae_jax.data import catalogue
from vae_jax.data.arrays import read_npy, read_npz
from vae_jax.data.folders import read_folder, read_picture
from vae_jax.data.idx import MNIST_FAMILY
from vae_jax.data.listed import list_of, read_list
from vae_jax.data.pictures import is_picture
from vae_jax.data.published import PUBLISHED, read_published
from vae_jax.data.raw import Raw, RawSplit, Reading
from vae_jax.data.sprites import asked_for, read_sprites
from vae_jax.errors import UsageError


@dataclass(frozen=True)
class Source:
    """A kind of place that a data set comes from."""

    name: str
    description: str
    """What the user gives, for help texts and errors: "an .npz file"."""
    matches: Callable[[str], bool]
    """Whether what the user gave is of this kind."""
    read: Callable[[str, Reading], Raw]
    is_path: bool = True
    """Whether the user gives a path; otherwise it is the name of a data set."""
    uses: tuple[str, ...] = Reading._fields
    """Fields of `Reading` that act on it, all where it does not say; others are refused where the user gave them."""


def register_source(source: Source) -> None:
    """Add a source, which is asked before all others.

    Raises:
        UsageError: there is one of this name.
    """
    if any(known.name == source.name for known in SOURCES):
        raise UsageError(f"A source called {source.name!r} is registered already. Choose another name.")
    SOURCES.insert(0, source)


def sources_in_words(*, paths_only: bool = False) -> str:
    """All that the user may give: "mnist, ..., an .npz file or a folder of images"."""
    words = [source.description for source in SOURCES if source.is_path or not paths_only]
    return f"{', '.join(words[:-1])} or {words[-1]}"


def find_source(given: str, *, paths_only: bool = False) -> Source:
    """The source that knows what the user gave.

    Raises:
        UsageError: none does, or nothing is there.
    """
    found = next((s for s in SOURCES if (s.is_path or not paths_only) and s.matches(given)), None)
    is_there = os.path.exists(expanded(given))
    if found and (is_there or not found.is_path):
        return found
    what, words = "images" if paths_only else "--dataset", sources_in_words(paths_only=paths_only)
    if is_there or not given:
        raise UsageError(f"{what} must be {words},\ngot {given!r}.")
    place = str(expanded(given).absolute())[-200:]
    raise UsageError(f"{what} must exist, got {given!r}.\nThere is no file or folder {place}; allowed are {words}.")


def check_effects(source: Source, given: str, reading: Reading) -> None:
    """Check that what the user says about the reading acts on this source.

    Raises:
        UsageError: a field that is not its default has no effect.
    """
    for field, default in Reading._field_defaults.items():
        value = getattr(reading, field)
        if value != default and field not in source.uses:
            users = " and ".join(other.description for other in SOURCES if field in other.uses)
            raise UsageError(
                f"--{field.replace('_', '-')} {value} has no effect on {given!r}, only on {users}.\nLeave it out."
            )


def expanded(given: str) -> Path:
    """The path that the user means by it."""
    return Path(os.path.expanduser(given))


def read_digits() -> Raw:
    """The 1,797 handwritten 8x8 digits that scikit-learn carries; pixels 0..16 become 0..255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * 255 / 16).astype(np.uint8)
    return Raw("scikit-learn's embedded digits", RawSplit(images, digits.target))


def _ends_in(ending: str) -> Callable[[str], bool]:
    return lambda given: expanded(given).suffix.lower() == ending


_OTHERS = tuple(name for name in PUBLISHED if name not in (*MNIST_FAMILY, "omniglot"))
_OF_PICTURES = ("background", "image_size", "fit", "before")
SOURCES = [
    Source(
        *("mnist", ", ".join(MNIST_FAMILY), MNIST_FAMILY.__contains__, read_published),
        is_path=False,
        uses=("data_dir",),
    ),
    Source("digits", "digits", "digits".__eq__, lambda *_: read_digits(), is_path=False, uses=()),
    Source(
        *("published", ", ".join(_OTHERS), _OTHERS.__contains__, read_published),
        is_path=False,
        uses=("data_dir",),
    ),
    Source(
        *("omniglot", "omniglot", "omniglot".__eq__, read_published),
        is_path=False,
        uses=("data_dir", "image_size", "fit"),
    ),
    Source(
        *("dsprites", "dsprites, dsprites-N", lambda given: asked_for(given) is not None),
        lambda given, _: read_sprites(given),
        is_path=False,
        uses=(),
    ),
    Source("npz", "an .npz file", _ends_in(".npz"), lambda given, _: read_npz(expanded(given)), uses=()),
    Source("npy", "an .npy file", _ends_in(".npy"), lambda given, _: read_npy(expanded(given)), uses=()),
    Source(
        "list",
        "a .csv file that lists images",
        lambda given: given != "" and list_of(expanded(given)) is not None,
        lambda given, reading: read_list(expanded(given), reading),
        uses=(*_OF_PICTURES, "skip_damaged"),
    ),
    Source(
        "folder",
        "a folder of images",
        lambda given: given != "" and os.path.isdir(expanded(given)),
        lambda given, reading: read_folder(expanded(given), reading),
        uses=(*_OF_PICTURES, "skip_damaged"),
    ),
    Source(
        "picture",
        "one picture",
        lambda given: is_picture(expanded(given)),
        lambda given, reading: read_picture(expanded(given), reading),
        uses=_OF_PICTURES,
    ),
    Source(
        "tfds",
        "the name of a data set that TFDS has prepared",
        lambda given: "/" not in given and os.sep not in given and catalogue.knows(given),
        lambda given, _: catalogue.read_prepared(given),
        is_path=False,
        uses=(),
    ),
]
