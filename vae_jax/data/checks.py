"""What is taken for images and labels, and how each type is converted to bytes."""

import numpy as np

from vae_jax.data.stored import Images, StoredImages, pieces
from vae_jax.errors import UsageError


def checked_images(images: Images, what: str) -> Images:
    """Images as unsigned bytes [n, height, width, channels], converted by their type; `what` names them in errors."""
    if images.ndim == 3:
        images = images.with_channel() if isinstance(images, StoredImages) else images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or 0 in images.shape:
        raise UsageError(
            f"{what} must be [n, height, width] or [n, height, width, 1 or 3], got {images.shape}.\n"
            "Reshape them, with the channels last; no size may be 0."
        )
    if images.dtype.kind in "iu" and _holds_only_zeros_and_ones(images):
        raise UsageError(
            f"{what} must use the range 0 to 255 where they are integers, got only 0 and 1.\n"
            "Multiply them by 255, or give booleans."
        )
    if isinstance(images, StoredImages) or images.dtype == np.uint8:
        return images
    if images.dtype.kind not in "biuf":
        raise UsageError(f"{what} must be uint8, integers, floats or booleans, got {images.dtype}. Convert them.")
    low, high = images.min(), images.max()  # NaN where there is one
    top = 255 if images.dtype.kind in "iu" else 1
    if not (low >= 0 and high <= top):
        raise UsageError(
            f"{what} of type {images.dtype} must lie in [0, {top}], got values from {low} to {high}.\n"
            "Scale them first, or give uint8; NaN and infinity are not allowed."
        )
    if top == 255:
        return images.astype(np.uint8)
    return np.rint(images.astype(np.float32) * 255).astype(np.uint8)


def _holds_only_zeros_and_ones(images: Images) -> bool:
    low, high = 1, 0
    for piece in pieces(images):
        low, high = min(low, int(piece.min())), max(high, int(piece.max()))
        if high > 1:
            return False
    return (low, high) == (0, 1)


def checked_labels(labels: np.ndarray | None, number: int, what: str) -> np.ndarray | None:
    """Labels as int32 [number]; `what` names them in errors."""
    if labels is None:
        return None
    if labels.shape != (number,) or labels.dtype.kind not in "iu":
        raise UsageError(
            f"{what} must be integers [{number}], one an image, got {labels.dtype} of shape {labels.shape}.\n"
            "Number the classes from 0, or leave the labels out."
        )
    converted = labels.astype(np.int32)
    if not np.array_equal(converted, labels):
        raise UsageError(f"{what} must fit into 32 bits, got up to {labels.max()}. Number the classes from 0.")
    return converted
