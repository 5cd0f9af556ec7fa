"""How good a model is in units in which models are compared: bits per dimension, PSNR of its reconstructions."""

import math
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, UInt8

Images: TypeAlias = UInt8[np.ndarray, "n height width channels"] | Float[np.ndarray, "n height width channels"]
"""Bytes, or floats whose clean pixels lie in [0, 1]."""


def bits_per_dim(model: Any, nats: Float[np.ndarray, "*shape"] | float) -> Any:
    """Nats per image as bits per value of an image: nats / (values * ln 2)."""
    return nats / (math.prod(model.image_shape) * math.log(2))


def has_bits_per_dim(model: Any) -> bool:
    """Whether bits per dimension mean something: the loss bounds -log p(x) of masses over the levels of a byte."""
    return model.stochastic and model.likelihood.levels == 256


def psnr(images: Images, others: Images, least_error: float = 0.0) -> Float[np.ndarray, " n"]:
    """Peak signal-to-noise ratio of each image in dB: 10 log10(range^2 / mean squared error), infinite for equal ones.

    Args:
        images: bytes, whose range is 255, or floats, whose range is 1.
        others: of the same shape and kind.
        least_error: what the squared error of an image, summed over its values, is taken for at least. 1 of bytes is
            one grey level in one value, and keeps equal images finite.
    """
    peak = 255 if images.dtype == np.uint8 else 1
    difference = np.asarray(others, np.float64) - images
    errors = np.maximum(np.sum(difference**2, axis=(1, 2, 3)), least_error)
    with np.errstate(divide="ignore"):
        return 10 * np.log10(peak**2 * images[0].size / errors)
