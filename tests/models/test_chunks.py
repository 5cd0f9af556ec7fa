"""Rows taken few at a time give what all of them at once give."""

import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.models.chunks import in_chunks


@pytest.mark.parametrize("size", [None, 1, 3, 5, 10, 12], ids=str)
def test_the_size_of_the_chunks_does_not_show(size):
    x = np.arange(20, dtype=np.float32).reshape(10, 2) + 1
    position = np.arange(10, dtype=np.int32)
    seen = []

    def product(x, position):
        seen.append(len(x))
        return x * position[:, None].astype(jnp.float32)

    y = in_chunks(product, size, jnp.asarray(x), jnp.asarray(position))
    np.testing.assert_array_equal(y, x * position[:, None].astype(np.float32))
    assert max(seen) <= (size or 10)
