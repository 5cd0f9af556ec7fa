"""Rows taken few at a time give what all of them at once give."""

import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.models.chunks import ROWS, in_chunks, in_pieces, rows_at_once


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


@pytest.mark.parametrize("number", [0, 1, 4, 5, 9])
def test_pieces_have_one_shape_and_give_each_row_its_own(number):
    x, y, seen = np.arange(2.0 * number).reshape(number, 2), np.arange(number), []

    def product(x, y):
        seen.append(len(x))
        return jnp.asarray(x * y[:, None], jnp.float32)

    np.testing.assert_array_equal(in_pieces(product, 4, x, y), x * y[:, None])
    assert seen == [4] * -(-number // 4) or (number, seen) == (0, [0])


def test_large_images_are_worked_on_few_at_a_time_and_small_ones_as_many_as_ever():
    for shape in ((1, 1, 1), (28, 28, 1), (32, 32, 3), (1, 784, 1)):
        assert (rows_at_once(shape, ROWS), rows_at_once(shape, 64)) == (500, 64)
    assert [rows_at_once((side, side, 3), 64) for side in (64, 128, 256, 512, 4096)] == [64, 32, 8, 4, 4]
