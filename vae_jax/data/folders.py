"""Folders of pictures: which files are taken, and what their folders say of splits and classes. Imports no JAX."""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vae_jax.data import cache
from vae_jax.data.checks import natural_sorted
from vae_jax.data.decoding import decode, noted
from vae_jax.data.pictures import FORMATS, looks_like_picture
from vae_jax.data.raw import Raw, RawSplit, Reading
from vae_jax.data.stored import choose
from vae_jax.errors import UsageError

SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
"""What splits are called, and which they are."""
SPLITS |= dict.fromkeys(("validation", "val", "valid", "dev", "eval"), "validation")
# What file managers and other programs leave beside images; so is all that begins with a dot.
_HABITS = {"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "system volume information"}
_DEEPEST = 8

Places = dict[str, tuple[str, str | None]]
"""The split and the class of each picture."""


def read_folder(folder: Path, reading: Reading) -> Raw:
    """Read a folder of pictures.

    Subfolders called train, validation (val, valid, dev, eval) and test are the splits. In a split, or in the folder
    itself, are pictures, or a subfolder of them for each class, which may lie in others: "animals/cats" is the name of
    a class. Classes are numbered in natural order. What is no picture is passed over. All are grey if each of them is,
    otherwise RGB; of an animation the first frame is taken.

    Raises:
        UsageError: a picture can't be read, folders can't be understood, or there is no picture.
    """
    entries = list(_walk(folder, ""))
    names = [name for name, is_taken in entries if is_taken]
    if not names:
        raise UsageError(f"{folder} holds no images: put {', '.join(FORMATS)} files there.")
    passed_over = noted("passed over, no image", [name for name, is_taken in entries if not is_taken])
    return read_listed(folder, _places(folder, names), f"images in {folder}", reading, passed_over)


def read_listed(folder: Path, places: Places, source: str, reading: Reading, notes: list[str]) -> Raw:
    """Read pictures whose split and class are known.

    Args:
        folder: where they lie.
        places: by their names as seen from there.
        source: where they were found, in words.
        reading: what the user says.
        notes: what is said once they are read.

    Raises:
        UsageError: one can't be read, or a split holds none.
    """
    kept = cache.decoded(folder, list(places), reading)
    decoded = kept.decoded
    for note in (*decoded.notes, *notes):
        warnings.warn(f"{folder}: {note}", stacklevel=2)
    class_names = natural_sorted({name for _, name in places.values() if name is not None})
    numbers = {name: number for number, name in enumerate(class_names)}
    splits = {}
    for split in dict.fromkeys(split for split, _ in places.values()):
        chosen = [i for i, name in enumerate(decoded.names) if places[name][0] == split]
        if not chosen:  # held out of train, it would be another one without a word
            raise UsageError(f"{folder} holds no {split} image that can be read. Mend some, or remove their folder.")
        files = tuple(decoded.names[i] for i in chosen)
        labels = [numbers[name] for _, name in map(places.__getitem__, files) if name is not None]
        rows = slice(chosen[0], chosen[-1] + 1) if len(chosen) == chosen[-1] - chosen[0] + 1 else np.array(chosen)
        splits[split] = RawSplit(choose(decoded.images, rows), labels or None, files)
    return Raw(
        source,
        splits["train"],
        splits.get("validation"),
        splits.get("test"),
        class_names=tuple(class_names) or None,
        pictures=decoded.how,
        sha256=kept.sha256,
        remember=kept.remember,
    )


def read_picture(path: Path, reading: Reading) -> Raw:
    """Read one picture: a set of one.

    Raises:
        UsageError: it can't be read.
    """
    decoded = decode(path.parent, [path.name], reading, alone=True)
    for note in decoded.notes:
        warnings.warn(f"{path.parent}: {note}", stacklevel=2)
    return Raw(str(path), RawSplit(decoded.images, files=(path.name,)), pictures=decoded.how)


def _walk(folder: Path, inside: str, depth: int = 0) -> Iterator[tuple[str, bool]]:
    # What lies in a folder and below, in natural order of the folders; whether it is taken for a picture.
    try:
        with os.scandir(folder / inside) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise UsageError(f"{folder / inside} can't be read: {error.strerror}. Give a folder of images.") from error
    folders = []
    for entry in entries:
        name = inside + entry.name
        if entry.name.startswith(".") or entry.name.lower() in _HABITS:
            yield name, False
        elif entry.is_dir():
            folders.append(entry.name)
        else:
            yield name, looks_like_picture(folder / name)
    if folders and depth == _DEEPEST:
        raise UsageError(
            f"{folder / inside} holds subfolders, {_DEEPEST + 1} below another.\n"
            "Put images into folders of splits and, in these, of classes."
        )
    for subfolder in natural_sorted(folders):
        yield from _walk(folder, f"{inside}{subfolder}/", depth + 1)


def _places(folder: Path, names: list[str]) -> Places:
    # By the folders that they lie in.
    above = {name: name.rpartition("/")[0] for name in names}
    tops = list(dict.fromkeys(path.partition("/")[0] for path in above.values() if path))
    splits = {top: SPLITS[top.lower()] for top in tops if top.lower() in SPLITS}
    others = [top for top in tops if top not in splits]
    if not splits or (others and set(splits.values()) == {"validation"}):  # classes may be called valid and invalid
        for path in above.values():
            if inner := next(
                (part for part in path.lower().split("/")[1:] if SPLITS.get(part) in ("train", "test")), ""
            ):
                raise UsageError(
                    f"{folder} holds a folder {inner} below another: {path[:120]}.\n"
                    "Give the folder that holds the splits itself, with the folders of classes in these."
                )
        return _classes(folder, above, "train")
    others = [name for name, path in above.items() if not path] + others
    if others or "train" not in splits.values() or len(set(splits.values())) < len(splits):
        known = ", ".join(splits)
        raise UsageError(
            f"{folder} holds the splits {known}{f' and beside them {others[0][:60]}' if others else ''}.\n"
            f"Splits are called {', '.join(SPLITS)}, one folder each; train is needed. If {known} is a class, put the "
            "folders of all classes into one called train."
        )
    places: Places = {}
    for top, split in splits.items():
        inside = {name: path.partition("/") for name, path in above.items()}
        places |= _classes(
            folder / top, {name: path for name, (first, _, path) in inside.items() if first == top}, split
        )
    return places


def _classes(folder: Path, above: dict[str, str], split: str) -> Places:
    first = {path: name for name, path in reversed(above.items())}
    for path in first:
        parents = [""] * bool(path) + [path[:i] for i, letter in enumerate(path) if letter == "/"]
        for mixed in (parent for parent in parents if parent in first):
            raise UsageError(
                f"{folder / mixed} must hold images, or a subfolder of them for each class, found "
                f"{first[mixed][-120:]} and {first[path][-120:]}.\n"
                "Put all images into it directly, or all into the folders of their classes."
            )
    return {name: (split, path or None) for name, path in above.items()}
