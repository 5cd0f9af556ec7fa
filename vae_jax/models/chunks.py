"""A function of many rows, worked out few rows at a time within one compiled program: bounded memory, one shape."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

ROWS = 500
"""Images to work on at a time where nothing asks for fewer."""
_PIXELS = 2**19
"""Of all images that are worked on at a time, so that large ones do not fill the memory."""
_FEWEST = 4
"""Images that are worked on at a time, however large: products of fewer rows are slow."""


def rows_at_once(image_shape: tuple[int, int, int], most: int) -> int:
    """How many images of this shape to work on at a time: `most`, or fewer large ones."""
    height, width, _ = image_shape
    return min(most, max(_FEWEST, _PIXELS // (height * width)))


def in_chunks(
    function: Callable[..., Float[Array, "chunk ..."]], size: int | None, *arrays: Shaped[Array, "rows ..."]
) -> Float[Array, "rows ..."]:
    """What the function makes of the rows of the arrays, `size` of them at a time; None is all at once.

    Rows of zeros fill the last chunk, and what becomes of them is dropped: no row may depend on another.
    """
    number = arrays[0].shape[0]
    # A symbolic number of rows, as of jax.export, can't be cut.
    if size is None or not isinstance(number, int) or number <= size:
        return function(*arrays)

    def split(x: Array) -> Array:
        padded = jnp.pad(x, [(0, -number % size), *[(0, 0)] * (x.ndim - 1)])
        return padded.reshape(-1, size, *x.shape[1:])

    y = jax.lax.map(lambda chunk: function(*chunk), tuple(map(split, arrays)))
    return y.reshape(-1, *y.shape[2:])[:number]


def in_pieces(
    function: Callable[..., Float[Array, "size ..."]], size: int, *arrays: Shaped[np.ndarray, "rows ..."]
) -> Float[np.ndarray, "rows ..."]:
    """The same of a compiled function from host to host: whatever the number of rows, it is compiled for `size` only.

    The last row fills the last piece, and what becomes of it is dropped.
    """
    number = len(arrays[0])
    if not number:
        return np.asarray(function(*arrays))
    places = np.minimum(np.arange(-(-number // size) * size), number - 1).reshape(-1, size)
    parts = [np.asarray(function(*(array[rows] for array in arrays))) for rows in places]
    return np.concatenate(parts)[:number]
