from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vae_jax.convolutions import (
    Conv3x3,
    ConvTranspose3x3,
    matmul_convolution,
    matmul_transposed_convolution,
    on_maps,
    plain_convolution,
    plain_transposed_convolution,
)

sides = st.tuples(st.integers(1, 9), st.integers(1, 9))
few = settings(max_examples=10, deadline=None, derandomize=True)


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


@few
@given(sides, st.sampled_from([(3, 3), (1, 4), (5, 1), (4, 3)]), st.sampled_from([1, 2]), st.sampled_from([1, 3]))
@example((28, 28), (3, 3), 2, 1)
@example((7, 5), (3, 3), 1, 4)  # four inputs, two outputs: by taps
@example((5, 6), (3, 5), 1, 3)
def test_convolution_equals_xla(sides, kernel_sides, stride, inputs):
    same_value_and_gradient(
        partial(matmul_convolution, stride=stride),
        partial(plain_convolution, stride=stride),
        sides,
        kernel_sides,
        inputs,
        2,
    )


@few
@given(sides, st.sampled_from([(3, 3), (1, 4), (5, 1), (4, 3)]), st.sampled_from([1, 2]), st.sampled_from([1, 3]))
@example((7, 6), (3, 3), 2, 3)
def test_transposed_convolution_equals_xla(sides, kernel_sides, stride, outputs):
    same_value_and_gradient(
        partial(matmul_transposed_convolution, stride=stride),
        partial(plain_transposed_convolution, stride=stride),
        sides,
        kernel_sides,
        2,
        outputs,
    )


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="The products run on the CPU only.")
def test_no_layer_transposes_a_whole_map_on_the_cpu():
    # What makes the products fast: between two layers the batch stays last, forward and backward.
    def loss(params, x):
        h = on_maps(nn.gelu, layers[0].apply(params[0], x))
        return jnp.sum(layers[1].apply(params[1], on_maps(nn.gelu, layers[2].apply(params[2], h))) ** 2)

    layers = (Conv3x3(4, 2), Conv3x3(1, 1), ConvTranspose3x3(6))
    inputs = [jax.ShapeDtypeStruct((16, *shape), jnp.float32) for shape in ((8, 8, 1), (8, 8, 6), (4, 4, 4))]
    params = [jax.eval_shape(layer.init, jax.random.key(0), x) for layer, x in zip(layers, inputs, strict=True)]
    program = jax.jit(jax.grad(loss)).lower(params, inputs[0]).compile().as_text()
    assert "f32[4,4,4,16]{3,2,1,0}" in program  # the map of the first layer, with its batch last
    for batch_first in ("f32[16,4,4,4]{3,2,1,0}", "f32[16,8,8,6]{3,2,1,0}"):
        assert batch_first not in program


def test_a_function_on_maps_is_the_function():
    def residual(x, change):
        return x + nn.gelu(change) * x

    def value_and_gradients(function):
        return jax.tree.leaves(jax.value_and_grad(lambda *maps: jnp.sum(function(*maps) ** 2), (0, 1))(*maps))

    maps = list(jnp.float32(np.random.default_rng(0).normal(size=(2, 3, 5, 4, 2))))
    np.testing.assert_allclose(on_maps(residual, *maps), residual(*maps), rtol=1e-6)
    for a, b in zip(value_and_gradients(partial(on_maps, residual)), value_and_gradients(residual), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


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
    rng = np.random.default_rng(0)
    x = jnp.float32(rng.normal(size=(2, 7, 6, 3)))
    shapes = jax.eval_shape(ours.init, jax.random.key(0), x)
    assert shapes == jax.eval_shape(flax.init, jax.random.key(0), x)
    params = jax.tree.map(lambda leaf: jnp.float32(rng.normal(size=leaf.shape)), shapes)
    np.testing.assert_allclose(ours.apply(params, x), flax.apply(params, x), rtol=1e-5, atol=1e-5)
