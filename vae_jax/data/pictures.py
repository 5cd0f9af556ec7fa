"""One picture: which files are pictures, and their pixels, upright and on a background. Imports no JAX."""

import contextlib
import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from vae_jax import archives

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
_ENDINGS = {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".dib", ".gif", ".webp"}
# Pictures too, which have to be converted; passing them over would lose images.
_ENDINGS |= {".tif", ".tiff", ".heic", ".heif", ".avif", ".jxl", ".jp2", ".psd", ".tga", ".svg", ".dng", ".cr2", ".nef"}
_ENDINGS |= {".ppm", ".pgm", ".pbm", ".pnm"}
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_BITS = 24  # where a PNG file says how many bits a channel has
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # not Pillow's exif_transpose, which fails where another tag is damaged
_GREY_MODES = ("1", "L", "LA", "La")
_COLOUR_MODES = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")


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
    return start.startswith((_PNG, b"\xff\xd8\xff", b"GIF8")) or start[8:] == b"WEBP"


def read_pixels(path: Path, background: str) -> tuple[np.ndarray, bool]:
    """The pixels of a picture file as `pixels` gives them; of an animation, of the first frame.

    Raises:
        Exception: it can't be read; Pillow's readers raise many kinds.
    """
    with archives.BoundedReader(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a reader makes do with is no error
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        start = file.read(_PNG_BITS + 1)
        if start.startswith(_PNG) and start[_PNG_BITS:] == b"\x10":  # Pillow would drop half of them without a word
            raise ValueError("16 bits a channel, where 8 are allowed")
        file.seek(0)
        try:
            with Image.open(file, formats=FORMATS) as image:
                return pixels(image, background)
        except UnidentifiedImageError:
            raise ValueError(f"no {' or '.join(FORMATS)} file") from None


def pixels(image: Image.Image, background: str) -> tuple[np.ndarray, bool]:
    """The pixels of a picture, upright as its orientation tag says, and whether some of them are transparent.

    Args:
        image: of any mode with 8 bits a channel.
        background: name of the colour behind transparent pixels.

    Returns:
        uint8 [height, width, 1 if it is grey, otherwise 3], whether any pixel is transparent.

    Raises:
        ValueError: another mode.
    """
    if image.mode not in (*_GREY_MODES, *_COLOUR_MODES):
        raise ValueError(f"pixels of mode {image.mode}, where 8 bits a channel are allowed")
    grey, is_transparent = image.mode in _GREY_MODES, False
    image.load()
    orientation = 1
    with contextlib.suppress(Exception):  # damaged EXIF data damage no pixels
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
    if image.has_transparency_data:
        image = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
        is_transparent = bool((np.asarray(image.getchannel("A")) < 255).any())
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
    array = np.asarray(image.convert("RGB"))
    return (array[:, :, :1] if grey else array), is_transparent
