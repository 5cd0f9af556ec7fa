from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vae_jax.models.convolutions import _by_products, _plain, _transposed_by_products

sides = st.tuples(st.integers(1, 9), st.integers(1, 9))
few = settings(max_examples=6, deadline=None, derandomize=True)


def same_value_and_gradient(ours, reference, sides, kernel_sides, inputs, outputs):
    rng = np.random.default_rng(sides[0] * 100 + sides[1])

    def draw(*shape):
        return rng.normal(size=shape).astype(np.float32)

    arguments = draw(2, *sides, inputs), draw(*kernel_sides, inputs, outputs), draw(outputs)
    cotangent = draw(*jax.eval_shape(reference, *arguments).shape)

    @jax.jit
    def value_and_gradients(cotangent, *arguments):
        ys, pullbacks = zip(*(jax.vjp(function, *arguments) for function in (ours, reference)), strict=True)
        return [(y, pullback(cotangent)) for y, pullback in zip(ys, pullbacks, strict=True)]

    ours, reference = map(jax.tree.leaves, value_and_gradients(cotangent, *arguments))
    for a, b in zip(ours, reference, strict=True):
        # Rounding is relative to the summands, so to the largest value and not to each.
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * max(1.0, np.abs(b).max()))


kernels = st.sampled_from([(3, 3), (1, 1), (1, 4), (5, 1), (4, 3)])


@pytest.mark.parametrize("name", ["convolution", "transposed"])
@few
@given(sides, kernels, st.sampled_from([1, 2]), st.sampled_from([(1, 2), (3, 2), (2, 1), (2, 3)]))
@example((28, 28), (3, 3), 2, (1, 2))
@example((7, 5), (1, 1), 1, (4, 2))
@example((7, 5), (3, 3), 1, (4, 2))  # four inputs, two outputs: by taps
@example((5, 6), (3, 5), 1, (3, 2))
@example((7, 6), (3, 3), 2, (2, 3))
def test_the_products_equal_xlas_operation(name, sides, kernel_sides, stride, channels):
    ours, operation = {
        "convolution": (_by_products, jax.lax.conv_general_dilated),
        "transposed": (_transposed_by_products, jax.lax.conv_transpose),
    }[name]
    reference = partial(_plain, operation, stride=stride)
    same_value_and_gradient(partial(ours, stride=stride), reference, sides, kernel_sides, *channels)
