"""What is taken for images and labels, from Python and from files, and how each type is converted. Imports no JAX."""

import re
import sys
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Int32

from vae_jax.data.stored import Images, StoredImages, pieces
from vae_jax.errors import UsageError

_MOST_CHANNELS = 4  # where an axis might as well be the height or the width
_CHANNELS_FIRST = "Their channels come first: transpose them with images.transpose(0, 2, 3, 1)"
_FEW_LEVELS = 32
_LOSS = 4  # different values that become one level
_SAMPLE = 2**20  # values that are looked at

ImageShape = tuple[int, int, int]
"""Height, width and channels."""


def as_images(images: Any, *, image_shape: ImageShape | None = None, what: str = "images") -> Images:
    """Images as unsigned bytes, converted by their type; uint8 arrays are given back as they are, also JAX's.

    Booleans become 0 and 255, floats in [0, 1] are scaled to 0..255 and rounded, integers keep their value.

    Args:
        images: an array, or what NumPy makes one of: [n, height, width, channels] or [n, height, width]; with
            `image_shape` also one image alone.
        image_shape: height, width and channels that they must have; None is any.
        what: names them in errors.

    Returns:
        uint8 [n, height, width, channels].

    Raises:
        UsageError: they are no images, or of another shape.
    """
    array = as_array(images, what)
    if image_shape and array.shape in (image_shape, image_shape[:2] if image_shape[2] == 1 else None):
        array = array[None]
    _check_shape(array.shape, image_shape, what)
    if len(array.shape) == 3:
        array = array.with_channel() if isinstance(array, StoredImages) else array[..., None]
    return _as_bytes(array, what)


def as_floats(values: Any, *, image_shape: ImageShape | None = None, what: str = "values") -> Any:
    """Values of any range as float32, neither scaled nor rounded; float32 arrays of JAX are given back as they are.

    Args:
        values: an array [n, height, width, channels], or what NumPy makes one of.
        image_shape: height, width and channels that they must have; None is any.
        what: names them in errors.

    Raises:
        UsageError: they are none, of another shape, or not finite in float32.
    """
    on_device = "jax" in sys.modules and isinstance(values, sys.modules["jax"].Array) and values.dtype == np.float32
    with np.errstate(over="ignore"):
        array = values if on_device else np.asarray(as_array(values, what), np.float32)
    if array.ndim != 4 or 0 in array.shape or array.shape[1:] != (image_shape or array.shape[1:]):
        wanted = "height, width, channels" if image_shape is None else str(image_shape)[1:-1]
        raise UsageError(f"{what} must be [n, {wanted}], got {array.shape}. Reshape them.")
    if not on_device and not np.isfinite(array).all():
        raise UsageError(f"{what} must be finite in float32, got NaN or numbers beyond it. Fill or scale them first.")
    return array


def as_labels(labels: Any, number: int, what: str = "labels") -> Int32[np.ndarray, " n"] | np.ndarray | None:
    """Labels as int32 [number], or as texts [number] where they are words.

    Args:
        labels: integers or words, one an image; None where there are none.
        number: of the images.
        what: names them in errors.

    Raises:
        UsageError: they are neither, or of another number.
    """
    if labels is None:
        return None
    array = np.asarray(labels)
    if array.dtype == object and all(isinstance(word, str) for word in array.flat):
        array = array.astype(str)
    if array.shape == (number, 1):
        array = array[:, 0]
    if array.shape != (number,) or array.dtype.kind not in "biuUS":
        one_hot = array.ndim == 2 and len(array) == number
        remedy = "Give labels.argmax(1)" if one_hot else "Number the classes from 0, or leave the labels out"
        raise UsageError(
            f"{what} must be integers or words [{number}], one an image, got {array.dtype} of shape {array.shape}.\n"
            f"{remedy}."
        )
    if array.dtype.kind == "S":
        return np.array([word.decode("utf-8", "replace") for word in array])
    if array.dtype.kind == "U":
        return array
    converted = array.astype(np.int32)
    if not np.array_equal(converted, array):
        raise UsageError(f"{what} must fit into 32 bits, got up to {array.max()}. Number the classes from 0.")
    return converted


def natural_sorted(names: Iterable[str]) -> list[str]:
    """In the order that people give: numbers within the names by their value, so 2 before 10."""

    def key(name: str) -> tuple[list[Any], str]:
        parts = re.split(r"([0-9]+)", name)
        parts[1::2] = [(len(digits), digits) for digits in (part.lstrip("0") for part in parts[1::2])]
        return parts, name

    return sorted(names, key=key)


def as_array(images: Any, what: str = "images") -> Any:
    """An array of uint8, integers, floats or booleans; stored images and JAX's bytes as they are.

    Raises:
        UsageError: it is of another type, holds masked values, or NumPy makes no array of it.
    """
    jax = sys.modules.get("jax")  # who has a JAX array has imported it
    if isinstance(images, StoredImages) or (jax and isinstance(images, jax.Array) and images.dtype == np.uint8):
        return images
    if np.ma.is_masked(images):
        raise UsageError(f"{what} must have a value at each pixel, got masked ones. Fill them: images.filled(0).")
    try:
        array = np.asarray(images)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise UsageError(
            f"{what} must be one array, got {type(images).__name__} that NumPy makes none of: {reason}\n"
            "Give an array [n, height, width, channels]."
        ) from error
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    if array.dtype.kind not in "biuf":
        found = array.dtype if array.ndim else type(images).__name__
        remedy = "Give its .images." if hasattr(images, "images") else "Convert them."
        raise UsageError(f"{what} must be uint8, integers, floats or booleans, got {str(found)[:60]}. {remedy}")
    return array


def _check_shape(shape: tuple[int, ...], image_shape: ImageShape | None, what: str) -> None:
    remedy: str | None = None
    if image_shape is None:
        remedy = _remedy(shape)
    elif (shape if len(shape) == 4 else (*shape, 1))[1:] != image_shape:
        remedy = _CHANNELS_FIRST if (*shape[2:], *shape[1:2]) == image_shape else "Scale or convert them first"
    if remedy or 0 in shape:
        wanted = "height, width, channels] or [n, height, width" if image_shape is None else str(image_shape)[1:-1]
        raise UsageError(f"{what} must be [n, {wanted}], got {shape}.\n{remedy or 'No size may be 0'}.")


def _remedy(shape: tuple[int, ...]) -> str | None:
    match shape:
        case (_, _):
            return "One image alone is images[None]"
        case (height, width, 1 | 2 | 3 | 4 as channels) if min(height, width) >= 2 * _MOST_CHANNELS and (
            channels > 2 or height == width
        ):
            return f"One image of {channels} channels is images[None]; images {channels} wide are images[..., None]"
        case (_, 1 | 3, _, width) if width > _MOST_CHANNELS:
            return _CHANNELS_FIRST
        case (_, 2 | 4, height, width) if height > _MOST_CHANNELS and width > (4 if height == width else 16):
            return _CHANNELS_FIRST
        case (height, width, 3, number) if min(height, width, number) > _MOST_CHANNELS:
            return "Their number comes last: transpose them with images.transpose(3, 0, 1, 2)"
    return None if len(shape) in (3, 4) else "Reshape them, with the channels last"


def _as_bytes(images: Any, what: str) -> Images:
    in_memory = isinstance(images, np.ndarray)
    if images.dtype.kind in "iu" and (in_memory or isinstance(images, StoredImages)) and _only_zeros_and_ones(images):
        raise UsageError(
            f"{what} must use the range 0 to 255 where they are integers, got only 0 and 1.\n"
            "Multiply them by 255, or give booleans."
        )
    if images.dtype == np.uint8:
        return images
    low, high = images.min(), images.max()  # NaN where there is one
    top = 255 if images.dtype.kind in "iu" else 1
    if not (low >= 0 and high <= top):
        raise UsageError(
            f"{what} of type {images.dtype} must lie in [0, {top}], got values from {low} to {high}.\n"
            "Scale them first, or give uint8; NaN and infinity are not allowed."
        )
    if top == 255:
        return images.astype(np.uint8)
    converted = np.rint(images.astype(np.float32) * 255).astype(np.uint8)
    _warn_of_few_levels(images, converted, what)
    return converted


def _only_zeros_and_ones(images: Images) -> bool:
    low, high = 1, 0
    for piece in pieces(images):
        low, high = min(low, int(piece.min())), max(high, int(piece.max()))
        if high > 1:
            return False
    return (low, high) == (0, 1)


def _warn_of_few_levels(images: np.ndarray, converted: np.ndarray, what: str) -> None:
    step = max(1, images.size // _SAMPLE)
    levels = len(np.unique(converted.reshape(-1)[::step]))
    if levels < _FEW_LEVELS and len(np.unique(images.reshape(-1)[::step])) > _LOSS * levels:
        warnings.warn(
            f"{what} lie between {images.min():.4g} and {images.max():.4g}: of 256 levels they use {levels}.\n"
            "To keep what is between, stretch them first: (images - images.min()) / (images.max() - images.min()).",
            stacklevel=4,
        )
