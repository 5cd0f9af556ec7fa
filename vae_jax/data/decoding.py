"""Many pictures to one array: their size, channels and range decided over all, then decoded side by side. No JAX."""

import dataclasses
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from vae_jax import archives
from vae_jax.data import stored
from vae_jax.data.pictures import FORMATS, Look, extent, look, read, tolerant
from vae_jax.data.raw import Pictures, Reading
from vae_jax.domains import image_sides
from vae_jax.errors import UsageError, counted

SIZE = (64, 64)
"""Height and width, where sizes differ and none is given."""
_THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
_AT_ONCE = 16
_TOGETHER = 512  # pictures that are decoded before their pixels are put in their place
_TOGETHER_BYTES = 2**28
_NAMED = 10  # of the files that a message is about


class Decoded(NamedTuple):
    """What pictures became."""

    images: stored.Images
    """uint8 [n, height, width, channels]."""
    names: list[str]
    """The files that they are of."""
    how: Pictures
    notes: list[str]
    """What the user should know."""
    left_out: list[str]
    """The files that can't be read."""


def decode(
    folder: Path, names: Sequence[str], reading: Reading, *, alone: bool = False, spill: Path | None = None
) -> Decoded:
    """Decode pictures to one size, all grey if each of them is, otherwise RGB.

    Args:
        folder: where they lie.
        names: of the files, as seen from there.
        reading: what the user says.
        alone: whether it is one picture that was given, and no folder.
        spill: of an .npy file to which large images go, and where they stay.

    Raises:
        UsageError: one can't be read, they are too many, or do not go together.
    """
    title = f"reading {folder.name}"
    with tolerant(), tqdm(desc=title, total=2 * len(names), unit="", disable=None, delay=2) as bar:
        looks, damaged = _each(look, folder, names, bar)
        while looks:
            how, found = _decided(folder, looks, reading, bar)
            if not found:
                images, notes, found = _pixels(folder, list(looks), how, reading.background, bar, spill)
            damaged |= found
            looks = {name: seen for name, seen in looks.items() if name not in found}
            if not found or not reading.skip_damaged:
                break
    if damaged and not reading.skip_damaged:
        raise _refusal(folder, names, damaged, alone)
    if not looks:
        raise UsageError(f"{folder} holds no image that can be read, out of {len(names)}. Give {', '.join(FORMATS)}.")
    if how.channels == 3 and reading.before and reading.before.channels == 1 and _is_grey(images):
        images, how = np.asarray(images)[..., :1], how._replace(channels=1)
    left_out = [name for name in names if name in damaged]
    said = noted("left out, as they can't be read", left_out)
    return Decoded(images, list(looks), how, [*said, *_notes_of(looks, how, reading), *notes], left_out)


def noted(what: str, names: Iterable[str]) -> list[str]:
    """A line that says something of files, and which they are; none, where there are none."""
    names = list(names)
    return [f"{what} ({len(names)}): {named(names)}."] if names else []


def named(names: Sequence[str]) -> str:
    """The first of these files, for messages."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(name[-60:] for name in names[:_NAMED])[:250] + more


def _each(
    function: Callable[[Path], Any], folder: Path, names: Sequence[str], bar: Any
) -> tuple[dict[str, Any], dict[str, str]]:
    # What it gives for each file, and why it failed, by name. Threads: Pillow's decoders leave the lock of Python.
    done: dict[str, Any] = {}
    failed: dict[str, str] = {}

    def try_all(part: Sequence[str]) -> None:
        for name in part:
            try:
                done[name] = function(folder / name)
            except Exception as error:  # of Pillow's readers
                failed[name] = str(error).partition("\n")[0] or type(error).__name__
            bar.update()

    # A few at a time: to hand a picture over takes as long as to read its header.
    parts = [names[start : start + _AT_ONCE] for start in range(0, len(names), _AT_ONCE)]
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(try_all, parts))
    return {name: done[name] for name in names if name in done}, failed


def _decided(folder: Path, looks: dict[str, Look], reading: Reading, bar: Any) -> tuple[Pictures, dict[str, str]]:
    # How they become images; and which of them turned out to be damaged.
    before, deep = reading.before, [name for name, seen in looks.items() if seen.is_deep]
    sizes = Counter(seen.size for seen in looks.values())
    size = before.size if before else image_sides(reading.image_size) or (SIZE if len(sizes) > 1 else next(iter(sizes)))
    fit = before.fit if before else reading.fit
    for name, seen in looks.items() if fit == "none" else ():
        if seen.size != size:
            raise UsageError(
                f"{folder / name} is {_words(seen.size)} pixels (height x width), but the model takes {_words(size)}.\n"
                "Scale or crop the images to that first: the run does not say how it is done."
            )
    if deep and len(deep) < len(looks):
        other = next(name for name, seen in looks.items() if not seen.is_deep)
        raise UsageError(
            f"{folder / deep[0]} has 16 bits a channel, but {other[-60:]} has not: one range can't be found for both.\n"
            "Convert all to 8 bits, or give them apart."
        )
    if before and bool(deep) != bool(before.levels):
        raise UsageError(
            f"{folder / next(iter(looks))} has {16 if deep else 8} bits a channel, where the run was trained on "
            f"{8 if deep else 16}: it does not say what they mean.\nConvert the images to what it was trained on."
        )
    levels, failed = before.levels if before else None, dict[str, str]()
    if deep and not before:
        bar.total += len(deep)
        found, failed = _each(extent, folder, deep, bar)
        levels = (min(low for low, _ in found.values()), max(high for _, high in found.values())) if found else (0, 1)
    is_colour = (before and before.channels == 3) or not all(seen.is_grey for seen in looks.values())
    return Pictures(size, fit, 3 if is_colour else 1, set(sizes) != {size}, levels), failed


def _pixels(
    folder: Path, names: list[str], how: Pictures, background: str, bar: Any, spill: Path | None
) -> tuple[stored.Images, list[str], dict[str, str]]:
    shape, notes = (len(names), *how.size, how.channels), list[str]()
    seen = _Seen()
    blocks = partial(_blocks, folder, names, how, background, bar)
    if spill and math.prod(shape) >= stored.SMALLEST_BYTES:
        try:
            stored.write_npy(spill, shape, blocks(seen))
            return stored.open_npy(spill), seen.notes(how, background), seen.failed
        except OSError as error:
            notes = [f"not kept for the next start in {spill.parent}: {error.strerror or error}."]
            seen = _Seen()
    if math.prod(shape) > archives.MOST_BYTES:
        raise UsageError(
            f"{folder} holds {counted(len(names), 'image')} of {_words(how.size)} pixels, more than "
            f"{archives.MOST_BYTES:,} bytes{', '.join(['', *notes]).rstrip('.')}.\n"
            "Give fewer images, or scale them down by --image-size."
        )
    images, start = np.empty(shape, np.uint8), 0
    for block in blocks(seen):
        images[start : start + len(block)] = block
        start += len(block)
    return images, notes + seen.notes(how, background), seen.failed


@dataclasses.dataclass
class _Seen:
    # What was found while pictures were decoded.
    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    transparent: list[str] = dataclasses.field(default_factory=list)
    clipped: list[str] = dataclasses.field(default_factory=list)

    def notes(self, how: Pictures, background: str) -> list[str]:
        outside = f"with values outside {how.levels} that the run was trained on, clipped"
        return noted(f"transparent, shown on {background} by --background", self.transparent) + noted(
            outside, self.clipped
        )


def _blocks(
    folder: Path, names: list[str], how: Pictures, background: str, bar: Any, seen: _Seen
) -> Iterator[np.ndarray]:
    # The pixels of some pictures at a time; of one that can't be read, zeros.
    row = (*how.size, how.channels)
    step = max(1, min(_TOGETHER, _TOGETHER_BYTES // math.prod(row)))
    one = partial(read, how=how, background=background)
    for start in range(0, len(names), step):
        part = names[start : start + step]
        done, bad = _each(one, folder, part, bar)
        seen.failed |= bad
        block = np.zeros((len(part), *row), np.uint8)
        for place, name in enumerate(part):
            if name in done:
                block[place], is_transparent, clips = done[name]
                seen.transparent += [name] * is_transparent
                seen.clipped += [name] * clips
        yield block


def _notes_of(looks: dict[str, Look], how: Pictures, reading: Reading) -> list[str]:
    done = f"scaled to {_words(how.size)} and {'cropped' if how.fit == 'crop' else 'padded'}"
    others, notes = [name for name, seen in looks.items() if seen.size != how.size], list[str]()
    if reading.before and not reading.before.is_scaled:
        notes = noted(f"of another size than the pictures of the run, {done}", others)
    elif not reading.before and reading.image_size is None:
        notes = noted(f"of different sizes, {done}; --image-size N or HxW sets another size", others)
    return notes + noted("of several pages, the first is taken", [name for name, seen in looks.items() if seen.is_book])


def _is_grey(images: stored.Images) -> bool:
    return all((image == image[..., :1]).all() for image in stored.pieces(images))


def _words(size: tuple[int, int]) -> str:
    return "x".join(map(str, size))


def _refusal(folder: Path, names: Sequence[str], damaged: dict[str, str], alone: bool) -> UsageError:
    bad = [name for name in names if name in damaged]
    first, reason = bad[0], damaged[bad[0]][:120]
    allowed = f"allowed are {', '.join(FORMATS)} files of 8 or 16 bits a channel."
    if alone:
        return UsageError(f"{folder / first} can't be read: {reason}.\nConvert it; {allowed}")
    return UsageError(
        f"{folder}: {len(bad)} of {counted(len(names), 'image')} can't be read: {named(bad)} "
        f"({first.rpartition('/')[2][-60:]}: {reason}).\n"
        f"Remove or convert them, or leave them out by --skip-damaged; {allowed}"
    )
