"""Folders of pictures: which files are taken, and what their folders say of splits and classes. Imports no JAX."""

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vae_jax import archives
from vae_jax.data.checks import natural_sorted
from vae_jax.data.pictures import FORMATS, looks_like_picture, read_pixels
from vae_jax.data.raw import Raw, RawSplit, Reading
from vae_jax.errors import UsageError, counted

_SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
_SPLITS |= dict.fromkeys(("validation", "val", "valid", "dev", "eval"), "validation")
# What file managers and other programs leave beside images; so is all that begins with a dot.
_HABITS = {"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "system volume information"}
_DEEPEST = 3
_NAMED = 10  # of the files that a message is about


def read_folder(folder: Path, reading: Reading) -> Raw:
    """Read a folder of pictures of one size.

    Subfolders called train, validation (val, valid, dev, eval) and test are the splits. In a split, or in the folder
    itself, are pictures, or one subfolder of them for each class; classes are numbered in natural order. What is no
    picture is passed over. All are grey if each of them is, otherwise RGB; of an animation the first frame is taken.

    Raises:
        UsageError: a picture can't be read, sizes differ, folders can't be understood, or there is no picture.
    """
    entries = list(_walk(folder))
    places = _places(folder, [path for path, is_taken in entries if is_taken])
    if not places:
        raise UsageError(f"{folder} holds no images: put {', '.join(FORMATS)} files there.")
    images = _read_all(folder, list(places), reading)
    class_names = natural_sorted({name for _, name in places.values() if name is not None})
    splits = {}
    for split in dict.fromkeys(split for split, _ in places.values()):
        paths = [path for path in images if places[path][0] == split]
        if not paths:  # held out of train, it would be another one without a word
            raise UsageError(f"{folder} holds no {split} image that can be read. Mend some, or remove their folder.")
        labels = [class_names.index(name) for _, name in map(places.__getitem__, paths) if name is not None]
        files = tuple(path.relative_to(folder).as_posix() for path in paths)
        splits[split] = RawSplit(np.stack([images[path] for path in paths]), labels or None, files)
    _say(folder, "passed over, no image", [path for path, is_taken in entries if not is_taken])
    return Raw(f"images in {folder}", **splits, class_names=tuple(class_names) or None)


def read_picture(path: Path, reading: Reading) -> Raw:
    """Read one picture: a set of one.

    Raises:
        UsageError: it can't be read.
    """
    images = _read_all(path.parent, [path], reading, alone=True)
    return Raw(str(path), RawSplit(images[path][None], files=(path.name,)))


def _walk(folder: Path, depth: int = 0) -> Iterator[tuple[Path, bool]]:
    # What lies in a folder and below, in natural order of the folders; whether it is taken for a picture.
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise UsageError(f"{folder} can't be read: {error.strerror}. Give a folder of images.") from error
    folders = {}
    for entry in entries:
        if entry.name.startswith(".") or entry.name.lower() in _HABITS:
            yield entry, False
        elif entry.is_dir():
            folders[entry.name] = entry
        else:
            yield entry, looks_like_picture(entry)
    if folders and depth == _DEEPEST:
        raise UsageError(f"{folder} holds subfolders.\nPut images into folders of splits and, in these, of classes.")
    for name in natural_sorted(folders):
        yield from _walk(folders[name], depth + 1)


def _places(folder: Path, paths: list[Path]) -> dict[Path, tuple[str, str | None]]:
    # The split and the class of each picture, by the folders that it lies in.
    above = {path: path.relative_to(folder).parts[:-1] for path in paths}
    tops = list(dict.fromkeys(folders[0] for folders in above.values() if folders))
    splits = {top: _SPLITS[top.lower()] for top in tops if top.lower() in _SPLITS}
    others = [top for top in tops if top not in splits]
    if not splits or (others and set(splits.values()) == {"validation"}):  # classes may be called valid and invalid
        return _classes(folder, above, "train")
    others = [path.name for path in paths if not above[path]] + others
    if others or "train" not in splits.values() or len(set(splits.values())) < len(splits):
        names = ", ".join(splits)
        raise UsageError(
            f"{folder} holds the splits {names}{f' and beside them {others[0][:60]}' if others else ''}.\n"
            f"Splits are called {', '.join(_SPLITS)}, one folder each; train is needed. If {names} is a class, put the "
            "folders of all classes into one called train."
        )
    places: dict[Path, tuple[str, str | None]] = {}
    for top, split in splits.items():
        places |= _classes(folder / top, {p: folders[1:] for p, folders in above.items() if folders[0] == top}, split)
    return places


def _classes(folder: Path, above: dict[Path, tuple[str, ...]], split: str) -> dict[Path, tuple[str, str | None]]:
    inside = {len(folders): path for path, folders in above.items()}
    if len(inside) > 1 or max(inside, default=0) > 1:
        found = [inside[depth].relative_to(folder).as_posix() for depth in sorted(inside)]
        raise UsageError(
            f"{folder} must hold images, or one subfolder of them for each class, found {' and '.join(found)[:300]}.\n"
            "Put all images into it directly, or all into the folders of their classes."
        )
    return {path: (split, folders[0] if folders else None) for path, folders in above.items()}


def _read_all(folder: Path, paths: list[Path], reading: Reading, *, alone: bool = False) -> dict[Path, np.ndarray]:
    # The pictures that can be read, [height, width, channels] with the same channels.
    images: dict[Path, np.ndarray] = {}
    damaged: dict[Path, str] = {}
    see_through = []
    for path in tqdm(paths, f"reading {folder.name}", disable=None, delay=2):
        try:
            image, is_see_through = read_pixels(path, reading.background)
        except Exception as error:  # of Pillow's readers
            damaged[path] = str(error).partition("\n")[0] or type(error).__name__
            continue
        first = next(iter(images), path)
        images[path] = image
        _check_sizes(folder, len(paths), first, path, images)
        see_through += [path] if is_see_through else []
    if damaged and not reading.skip_damaged:
        first, reason = next(iter(damaged.items()))
        allowed = f"allowed are {', '.join(FORMATS)} files of 8 bits a channel."
        if alone:
            raise UsageError(f"{first} can't be read: {reason[:120]}.\nConvert it; {allowed}")
        raise UsageError(
            f"{folder}: {len(damaged)} of {counted(len(paths), 'image')} can't be read: {_names(folder, damaged)} "
            f"({first.name[-60:]}: {reason[:120]}).\n"
            f"Remove or convert them, or leave them out by --skip-damaged; {allowed}"
        )
    if not images:
        raise UsageError(f"{folder} holds no image that can be read, out of {len(paths)}. Give {', '.join(FORMATS)}.")
    _say(folder, "left out, as they can't be read", damaged)
    _say(folder, f"transparent, shown on {reading.background} by --background", see_through)
    channels = max(image.shape[2] for image in images.values())
    if reading.channels == 1 and all((image == image[..., :1]).all() for image in images.values()):
        return {path: image[..., :1] for path, image in images.items()}
    shape = (*next(iter(images.values())).shape[:2], 3 if reading.channels == 3 else channels)
    return {path: np.broadcast_to(image, shape) for path, image in images.items()}


def _check_sizes(folder: Path, number: int, first: Path, path: Path, images: dict[Path, np.ndarray]) -> None:
    (height, width), (first_height, first_width) = images[path].shape[:2], images[first].shape[:2]
    if (height, width) != (first_height, first_width):
        raise UsageError(
            f"{path} is {width}x{height} pixels, but {first} is {first_width}x{first_height}.\n"
            "All images must have one size (width x height): scale or crop them first."
        )
    if number * images[first].nbytes > archives.MOST_BYTES:
        raise UsageError(
            f"{folder} holds {number:,} images of {width}x{height} pixels, more than {archives.MOST_BYTES:,} bytes.\n"
            "Give fewer images, or scale them down first."
        )


def _names(folder: Path, paths: Iterable[Path]) -> str:
    names = [path.relative_to(folder).as_posix() for path in paths]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(name[-60:] for name in names[:_NAMED])[:250] + more


def _say(folder: Path, what: str, paths: Iterable[Path]) -> None:
    if paths := list(paths):
        warnings.warn(f"{folder}: {what} ({len(paths)}): {_names(folder, paths)}.", stacklevel=2)
