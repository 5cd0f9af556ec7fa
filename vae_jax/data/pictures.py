"""One picture: which files are pictures, and their pixels, upright, on a background, of one size. Imports no JAX."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from vae_jax import archives
from vae_jax.data import deep
from vae_jax.data.raw import Pictures

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")
_ENDINGS = {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff"}
# Pictures too, which have to be converted; passing them over would lose images.
_ENDINGS |= {".heic", ".heif", ".avif", ".jxl", ".jp2", ".psd", ".tga", ".svg", ".dng", ".cr2", ".nef"}
_ENDINGS |= {".ppm", ".pgm", ".pbm", ".pnm"}
_STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*")
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # not Pillow's exif_transpose, which fails where another tag is damaged
_LYING = (5, 6, 7, 8)
_GREY_MODES = ("1", "L", "LA", "La", "F", *deep.GREY)
_COLOUR_MODES = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
_DRAFT = 2  # a JPEG file is decoded at no less than so many times the size that it is scaled to
_GAP = 3.0  # what is larger by more than this is averaged down to it before it is filtered


class Look(NamedTuple):
    """What the header of a picture says."""

    size: tuple[int, int]
    """Height and width, when it stands upright."""
    is_grey: bool
    is_deep: bool
    """Whether it has 16 bits a channel."""
    is_book: bool
    """Whether it is a TIFF file of several pages, of which the first one is taken."""


def is_picture(path: Path) -> bool:
    """Whether a path names a picture, by its ending."""
    return path.suffix.lower() in _ENDINGS


def looks_like_picture(path: Path) -> bool:
    """Whether a file is to be read as a picture: by its ending, and by its content where it has none."""
    if path.suffix:
        return is_picture(path)
    try:
        with archives.BoundedReader(path) as file:
            start = file.read(12)
    except OSError:
        return False
    return start.startswith(_STARTS) or start[8:] == b"WEBP"


@contextlib.contextmanager
def tolerant() -> Iterator[None]:
    """What a reader of pictures makes do with is no error, and a picture that is too large to be one is.

    Around all that the functions below do, not within them: a filter of warnings holds for all threads.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def look(path: Path) -> Look:
    """What the header of a picture says.

    Raises:
        Exception: it can't be read, or is of a kind that is not taken; Pillow's readers raise many kinds.
    """
    with _opened(path) as image:
        is_deep = deep.is_deep(image)
        if image.mode not in (*_GREY_MODES, *_COLOUR_MODES):
            raise ValueError(f"pixels of mode {image.mode}, where 8 or 16 bits a channel, or floats, are allowed")
        size, is_book = (image.height, image.width), image.format == "TIFF" and getattr(image, "n_frames", 1) > 1
        is_grey = image.mode in _GREY_MODES or (is_deep and deep.is_grey(image))
        # A PNG file is decoded to find its orientation, which does not matter where it is square.
        lies = size[0] != size[1] and _orientation(image) in _LYING
        return Look(size[::-1] if lies else size, is_grey, is_deep, is_book)


def extent(path: Path) -> tuple[int, int]:
    """The least and the largest value of a picture of 16 bits, where it is not transparent."""
    with _opened(path) as image, _opened(path) as again:
        values, alpha = deep.values(image, again)
        seen = values[alpha > 0] if (alpha > 0).any() else np.zeros(1, np.uint16)
        return int(seen.min()), int(seen.max())


def read(path: Path | IO[bytes], how: Pictures, background: str) -> tuple[np.ndarray, bool, bool]:
    """The pixels of a picture; of an animation, of the first frame.

    Args:
        path: of the file, or the file itself where it has 8 bits.
        how: its size and channels, and what of 16 bits becomes 0 and 255.
        background: name of the colour behind transparent pixels, and around a picture that is padded.

    Returns:
        uint8 [height, width, channels]; whether any pixel is transparent; whether 16 bits were clipped.

    Raises:
        Exception: it can't be read.
    """
    if how.levels and isinstance(path, Path):
        return _read_deep(path, how, how.levels, background)
    with _opened(path) as image:
        if image.mode == "F":
            return _as_array([deep.unit_floats(image)], how, background), False, False
        if (image.height, image.width) != how.size:
            longest = _DRAFT * max(how.size)  # it may lie on its side
            image.draft(None, (longest, longest))
        found, is_transparent = flattened(image, background)
        return _as_array([found], how, background), is_transparent, False


def _read_deep(path: Path, how: Pictures, levels: tuple[int, int], background: str) -> tuple[np.ndarray, bool, bool]:
    with _opened(path) as image, _opened(path) as again:
        values, alpha = deep.values(image, again)
        orientation = _orientation(image)  # of a PNG file it is known once that is loaded
    clips = bool(((values < levels[0]) | (values > levels[1]))[alpha > 0].any())
    layers = deep.layers(values, alpha, levels, 1.0 if background == "white" else 0.0)
    upright = [_upright(layer, orientation) for layer in layers]
    return _as_array(upright, how, background), bool((alpha < 1).any()), clips


def _as_array(layers: list[Image.Image], how: Pictures, background: str) -> np.ndarray:
    # One picture, or one of floats for each channel.
    arrays = [np.asarray(_fitted(layer, how, background)).reshape(*how.size, -1) for layer in layers]
    array = np.concatenate(arrays, axis=-1)
    return np.broadcast_to(deep.as_bytes(array) if array.dtype != np.uint8 else array, (*how.size, how.channels))


def flattened(image: Image.Image, background: str) -> tuple[Image.Image, bool]:
    """A picture upright as its orientation tag says, and whether some of its pixels are transparent.

    Args:
        image: of any mode with 8 bits a channel.
        background: name of the colour behind transparent pixels.

    Returns:
        the picture, of mode L where it is grey, otherwise RGB; whether any pixel is transparent.
    """
    is_grey, is_transparent = image.mode in _GREY_MODES, False
    image.load()
    image = _upright(image, _orientation(image))
    if image.has_transparency_data:
        image = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
        is_transparent = bool((np.asarray(image.getchannel("A")) < 255).any())
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
    colour = image.convert("RGB")
    return (colour.getchannel(0) if is_grey else colour), is_transparent


@contextlib.contextmanager
def _opened(path: Path | IO[bytes]) -> Iterator[Image.Image]:
    with archives.BoundedReader(path) if isinstance(path, Path) else contextlib.nullcontext(path) as file:
        try:
            image = Image.open(file, formats=FORMATS)
        except UnidentifiedImageError:
            raise ValueError(f"no {' or '.join(FORMATS)} file") from None
        with image:
            yield image


def _orientation(image: Image.Image) -> int:
    if image.format == "TIFF":
        return 1  # Pillow has turned it
    with contextlib.suppress(Exception):  # damaged EXIF data damage no pixels
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _fitted(image: Image.Image, how: Pictures, background: str) -> Image.Image:
    (height, width), lanczos = how.size, Image.Resampling.LANCZOS
    if image.size == (width, height):
        return image
    shares = width / image.width, height / image.height
    if how.fit == "crop":
        across, down = (
            min(side, wanted / max(shares)) for side, wanted in zip(image.size, (width, height), strict=True)
        )
        left, top = (image.width - across) / 2, (image.height - down) / 2
        box = (left, top, left + across, top + down)
        return image.resize((width, height), lanczos, box, reducing_gap=_GAP)
    inside = tuple(max(1, round(side * min(shares))) for side in image.size)
    fill = (1.0 if image.mode == "F" else "white") if background == "white" else 0
    frame = Image.new(image.mode, (width, height), fill)
    place = (width - inside[0]) // 2, (height - inside[1]) // 2
    frame.paste(image.resize(inside, lanczos, reducing_gap=_GAP), place)  # type: ignore[arg-type]
    return frame
