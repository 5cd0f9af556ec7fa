"""Readers of .npz and .npy files. Imports no JAX."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from vae_jax import archives
from vae_jax.data import stored
from vae_jax.data.raw import Raw, RawSplit
from vae_jax.errors import UsageError

# What others call the images and labels of a split: Keras, MedMNIST.
_NPZ_KEYS = {
    "train": (("images", "labels"), ("x_train", "y_train"), ("train_images", "train_labels")),
    "validation": (
        ("validation_images", "validation_labels"),
        ("val_images", "val_labels"),
        ("x_val", "y_val"),
        ("x_validation", "y_validation"),
    ),
    "test": (("test_images", "test_labels"), ("x_test", "y_test")),
}
_FORMAT = "uint8 array [n, height, width, channels]"


def read_npz(path: Path) -> Raw:
    """Read images, and labels, validation and test split where they are, from an .npz file; no pickle.

    Large images of unsigned bytes stay in the file, where it is not compressed.

    Raises:
        UsageError: the file is unreadable, holds Python objects, lacks a key, or has two for one split.
    """
    with _read_as("an .npz file of plain arrays", path, f"numpy.savez(path, images={_FORMAT})"):
        names = archives.read_arrays(path, ())[1]
        chosen = {part: _chosen_keys(path, pairs, names) for part, pairs in _NPZ_KEYS.items()}
        keys = [key for pair in chosen.values() if pair for key in pair if key in names]
        arrays = {key: stored.open_npz_member(path, key) for key in keys}
    if chosen["train"] is None:
        raise UsageError(
            f"{path} must hold images, found the keys: {', '.join(names)[:200] or 'none'}.\n"
            f"Allowed are {', '.join(key for pairs in _NPZ_KEYS.values() for pair in pairs for key in pair)}."
        )
    splits = {part: RawSplit(arrays[pair[0]], arrays.get(pair[1])) for part, pair in chosen.items() if pair}
    return Raw(str(path), splits["train"], splits.get("validation"), splits.get("test"))


def read_npy(path: Path) -> Raw:
    """The images of an .npy file, which stay in it if they are large and of unsigned bytes; no pickle.

    Labels are those of the file beside it whose name ends in .labels.npy, where there is one.

    Raises:
        UsageError: a file is unreadable.
    """
    labels, beside = None, path.with_suffix(".labels.npy")
    with _read_as("an .npy file", path, f"numpy.save(path, {_FORMAT})"):
        images = stored.open_npy(path)
    if beside.is_file():
        with _read_as("an .npy file", beside, "numpy.save(path, integers [n])"):
            labels = archives.read_npy(beside)
    return Raw(str(path), RawSplit(images, labels))


@contextlib.contextmanager
def _read_as(kind: str, path: Path, remedy: str) -> Iterator[None]:
    try:
        yield
    except UsageError:
        raise
    except archives.UNREADABLE as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UsageError(f"{path} can't be read as {kind}: {reason}\nWrite it with {remedy}.") from error


def _chosen_keys(path: Path, pairs: tuple[tuple[str, str], ...], names: list[str]) -> tuple[str, str] | None:
    there = [pair for pair in pairs if set(pair) & set(names)]
    if len(there) > 1:
        raise UsageError(
            f"{path} must hold one of {there[0][0]} and {there[1][0]}, found both.\nWrite it again without the other."
        )
    if there and there[0][0] not in names:
        raise UsageError(f"{path} must hold {there[0][0]} where it holds {there[0][1]}. Add them, or leave both out.")
    return there[0] if there else None
