import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vae_jax.convolutions import (
    Conv3x3,
    ConvTranspose3x3,
    matmul_convolution,
    matmul_transposed_convolution,
    plain_convolution,
    plain_transposed_convolution,
)

shapes = st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3, 5]), st.sampled_from([1, 3, 4]))


def same_value_and_gradient(ours, reference, x, kernel):
    @jax.jit
    def both(x, kernel):
        def loss(x, kernel, function):
            y = function(x, kernel)
            return jnp.sum(jnp.sin(y)), y

        return [jax.value_and_grad(loss, (0, 1), has_aux=True)(x, kernel, f) for f in (ours, reference)]

    ((_, y), gradients), ((_, expected), expected_gradients) = both(x, kernel)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=2e-5)
    for a, b in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def draw(height, width, inputs, outputs):
    keys = jax.random.split(jax.random.key(height * 100 + width))
    kernel = jax.random.normal(keys[1], (3, 3, inputs, outputs))
    return jax.random.normal(keys[0], (2, height, width, inputs)), kernel


@settings(max_examples=8, deadline=None)
@given(shapes, st.sampled_from([1, 2]))
def test_convolution_equals_xla(shape, stride):
    x, kernel = draw(*shape)
    same_value_and_gradient(
        lambda x, k: matmul_convolution(x, k, stride), lambda x, k: plain_convolution(x, k, stride), x, kernel
    )


@settings(max_examples=8, deadline=None)
@given(shapes)
def test_transposed_convolution_equals_xla(shape):
    same_value_and_gradient(matmul_transposed_convolution, plain_transposed_convolution, *draw(*shape))


@pytest.mark.parametrize(
    ("ours", "flax"),
    [
        (Conv3x3(4, 2), nn.Conv(4, (3, 3), (2, 2))),
        (Conv3x3(1, 1), nn.Conv(1, (3, 3))),
        (ConvTranspose3x3(4), nn.ConvTranspose(4, (3, 3), (2, 2))),
    ],
    ids=["stride 2", "few outputs", "transposed"],
)
def test_modules_take_the_parameters_of_flax_and_give_its_values(ours, flax):
    x = jax.random.normal(jax.random.key(1), (2, 7, 6, 3))
    params = ours.init(jax.random.key(0), x)
    shapes = jax.tree.map(jnp.shape, params)
    assert shapes == jax.tree.map(jnp.shape, flax.init(jax.random.key(0), x))
    np.testing.assert_allclose(ours.apply(params, x), flax.apply(params, x), rtol=1e-5, atol=1e-5)
