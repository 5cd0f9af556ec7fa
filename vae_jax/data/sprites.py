"""Shapes that are drawn here, by five factors that are known of each image. Imports no JAX.

As of dSprites (Matthey et al. 2017): 3 shapes x 6 scales x 40 orientations x 32 x 32 positions are 737,280 images of
64x64 pixels, white on black. The shapes are ours, all of one area. A centre moves from pixel to pixel, so that 720
drawings, each placed at 1,024 positions, are all of them.
"""

import functools
import math
import re

import numpy as np
from jaxtyping import Bool, Int, UInt8

from vae_jax.data.raw import Raw, RawSplit
from vae_jax.errors import UsageError

FACTORS = {"shape": 3, "scale": 6, "orientation": 40, "x": 32, "y": 32}
"""The number of values of each factor, in the order of the images: the last one changes first."""
SHAPES = ("square", "ellipse", "heart")
NUMBER = math.prod(FACTORS.values())
DEFAULT_NUMBER = NUMBER // 10
"""Of images, where the user names none: 302 MB."""
SIDE = 64
AREA = 400.0
"""Of each shape at scale 1, in square pixels."""
_WINDOW = 33  # pixels a side of a drawing, whose middle one holds the centre
_POINTS = 8  # a side of a pixel, at which coverage is measured
_TURNS = {"square": 4, "ellipse": 2, "heart": 1}  # after which part of a turn a shape looks the same
_LONG = math.sqrt(2 * AREA / math.pi)  # semi-axis of the ellipse, twice the other
_HEART = math.sqrt(AREA / (1 + math.pi / 4))  # side of the square below its half discs
_HEART_CENTROID = _HEART * math.sqrt(0.5) * (0.5 + 2 / (3 * math.pi)) / (1 + 4 / math.pi)  # above that square's centre


def asked_for(given: str) -> int | None:
    """How many images "dsprites" or "dsprites-N" asks for; None of another text."""
    found = re.fullmatch(r"dsprites(?:-([0-9]{1,9}))?", given)
    return None if found is None else DEFAULT_NUMBER if found[1] is None else int(found[1])


def read_sprites(given: str) -> Raw:
    """So many of the images, drawn by lot but always the same ones; fewer of them are the first of more.

    Raises:
        UsageError: more than there are, or too few for three splits.
    """
    number = asked_for(given)
    if number is None or not 10 <= number <= NUMBER:
        raise UsageError(f"--dataset dsprites-N must have an N from 10 to {NUMBER}, got {given!r}.")
    chosen = np.random.default_rng(0).permutation(NUMBER)[:number]
    values = factors_of(chosen)
    train = RawSplit(draw(values), values[:, 0], factors=values)
    return Raw(f"{number:,} of {NUMBER:,} drawn shapes", train, class_names=SHAPES, factor_names=tuple(FACTORS))


def factors_of(indices: Int[np.ndarray, " n"]) -> Int[np.ndarray, "n 5"]:
    """The values of all factors, each from 0 on, of the images at these places of all 737,280."""
    return np.stack(np.unravel_index(indices, tuple(FACTORS.values())), axis=1).astype(np.int32)


def draw(factors: Int[np.ndarray, "n 5"]) -> UInt8[np.ndarray, "n 64 64"]:
    """The images of these values: white where a shape covers at least half of a pixel, black elsewhere.

    Scales go from one half to 1 in equal steps; orientations counter-clockwise in fortieths of a turn about the
    centroid; x to the right and y down from pixel to pixel, the centroid from the middle of pixel 16 to that of 47.
    """
    images = np.zeros((len(factors), SIDE, SIDE), np.uint8)
    for image, (shape, scale, orientation, x, y) in zip(images, factors.tolist(), strict=True):
        # What looks the same is the same, to the last pixel.
        turn = orientation % (FACTORS["orientation"] // _TURNS[SHAPES[shape]])
        image[y : y + _WINDOW, x : x + _WINDOW] = _drawing(SHAPES[shape], scale, turn)
    return images


@functools.lru_cache(FACTORS["shape"] * FACTORS["scale"] * FACTORS["orientation"])
def _drawing(shape: str, scale: int, turn: int) -> UInt8[np.ndarray, "33 33"]:
    places = (np.arange(_WINDOW * _POINTS) + 0.5) / _POINTS - _WINDOW / 2
    right, up = places[None, :], -places[:, None]
    angle, size = 2 * math.pi * turn / FACTORS["orientation"], 0.5 + 0.5 * scale / (FACTORS["scale"] - 1)
    cosine, sine = math.cos(angle) / size, math.sin(angle) / size
    covered = _covers(shape, cosine * right + sine * up, cosine * up - sine * right)
    shares = covered.reshape(_WINDOW, _POINTS, _WINDOW, _POINTS).mean(axis=(1, 3))
    return np.uint8(255) * (shares >= 0.5)


def _covers(shape: str, right: np.ndarray, up: np.ndarray) -> Bool[np.ndarray, "rows columns"]:
    # Whether points, as seen from the centroid, lie within the shape at scale 1.
    if shape == "square":
        return np.maximum(abs(right), abs(up)) <= math.sqrt(AREA) / 2
    if shape == "ellipse":
        return (right / _LONG) ** 2 + (2 * up / _LONG) ** 2 <= 1
    # A square on its corner, and a half disc on each of its upper sides.
    right, up = abs(right), up + _HEART_CENTROID
    middle = _HEART * math.sqrt(0.125)
    return (right + abs(up) <= 2 * middle) | ((right - middle) ** 2 + (up - middle) ** 2 <= (_HEART / 2) ** 2)
