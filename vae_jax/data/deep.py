"""Pixels of 16 bits, and floats, of pictures: Pillow gives half of the bits of colours. Imports no JAX."""

import sys

import numpy as np
from PIL import Image

GREY = ("I;16", "I;16B", "I;16L", "I;16N")
_COLOUR = ("RGB", "RGBX", "RGBA")
_GREY_ALPHA = "LA;16B"
_BITS_PER_SAMPLE = 258  # a tag of TIFF
# To keep the low byte of each number in place of the high one: what lies the other way round.
_OTHER_BYTE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_MOST = 65535


def is_deep(image: Image.Image) -> bool:
    """Whether a picture that was opened, and not yet loaded, has 16 bits a channel.

    Raises:
        ValueError: it has, in a form that is not read.
    """
    raw = _raw_mode(image)
    if image.mode in GREY or raw == _GREY_ALPHA or raw in {f"{mode};16{order}" for mode in _COLOUR for order in "BLN"}:
        return True
    bits = max(getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,)))
    if ";16" in raw or (bits > 8 and image.mode in _COLOUR):  # Pillow would drop half of them without a word
        raise ValueError("16 bits a channel of a kind that is not read")
    return False


def is_grey(image: Image.Image) -> bool:
    """Whether a picture of 16 bits is grey."""
    return image.mode in GREY or _raw_mode(image) == _GREY_ALPHA


def values(image: Image.Image, again: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """The values of a picture of 16 bits.

    Args:
        image: opened, and not yet loaded.
        again: the same, opened a second time: Pillow gives eight bits of colours at a time.

    Returns:
        uint16 [height, width, 1 or 3]; how opaque each pixel is, float32 [height, width] from 0 to 1.
    """
    raw, transparent = _raw_mode(image), image.info.get("transparency")
    if image.mode in GREY:
        found = np.asarray(image, np.uint16)[..., None]
    elif raw == _GREY_ALPHA:
        _set_raw_mode(image, "RGBA")  # four bytes a pixel, as they lie in the file
        parts = np.asarray(image, np.uint16)
        found = parts[..., ::2] * np.uint16(256) + parts[..., 1::2]
    else:
        _set_raw_mode(again, raw[:-1] + _OTHER_BYTE[raw[-1]])
        found = np.asarray(image, np.uint16) * np.uint16(256) + np.asarray(again)
    alpha = np.ones(found.shape[:2], np.float32)
    if found.shape[2] in (2, 4) and not raw.startswith("RGBX"):
        alpha[:] = found[..., -1].astype(np.float32) / _MOST
    found = found[..., : 1 if found.shape[2] < 3 else 3]
    if isinstance(transparent, int | tuple):
        alpha[(found == transparent).all(axis=-1)] = 0
    return found, alpha


def layers(values: np.ndarray, alpha: np.ndarray, levels: tuple[int, int], behind: float) -> list[Image.Image]:
    """A picture of mode F in [0, 1] for each channel.

    Args:
        values: uint16 [height, width, channels].
        alpha: how opaque each pixel is, [height, width].
        levels: the values that become 0 and 1; what lies outside is clipped.
        behind: what shows through, 0 or 1.
    """
    low, high = levels
    units = np.clip((values.astype(np.float32) - low) / max(1, high - low), 0, 1)
    units = behind + (units - behind) * alpha[..., None]
    return [Image.fromarray(np.ascontiguousarray(units[..., i])) for i in range(units.shape[2])]


def unit_floats(image: Image.Image) -> Image.Image:
    """A picture of floats.

    Raises:
        ValueError: they do not lie in [0, 1].
    """
    found = np.asarray(image)
    low, high = found.min(), found.max()  # NaN where there is one
    if not (low >= 0 and high <= 1):
        raise ValueError(f"floats from {low:g} to {high:g}, where [0, 1] is allowed: scale them")
    return image


def as_bytes(units: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1], and a little outside where they were filtered, as unsigned bytes."""
    return np.rint(np.clip(units, 0, 1) * 255).astype(np.uint8)


def _raw_mode(image: Image.Image) -> str:
    tiles = getattr(image, "tile", None) or [("", (), 0, "")]
    arguments = tiles[0][3]
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def _set_raw_mode(image: Image.Image, raw: str) -> None:
    def changed(arguments: object) -> object:
        return (raw, *arguments[1:]) if isinstance(arguments, tuple) else raw

    image.tile = [tile._replace(args=changed(tile.args)) for tile in image.tile]  # type: ignore[attr-defined]
