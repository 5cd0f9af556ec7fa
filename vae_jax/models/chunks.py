"""A function of many rows, worked out few rows at a time within one compiled program: bounded memory, one shape."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

ROWS = 500
"""Images to work on at a time where nothing asks for fewer."""


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
