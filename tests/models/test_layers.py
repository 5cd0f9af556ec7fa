import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.models.layers import Conv, ConvTranspose, DenseFromMaps, DenseToMaps, on_maps
from vae_jax.models.networks import make_networks

pytestmark = pytest.mark.optimised


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="The products run on the CPU only.")
@pytest.mark.parametrize(
    ("arch", "sizes", "maps"),
    [("conv", (4, 6), ["4,4,4", "2,2,6", "4,4,6", "8,8,4"]), ("patch", (5, 6, 6), ["2,2,5", "2,2,6"])],
)
def test_no_network_transposes_a_map_between_convolutions_on_the_cpu(arch, sizes, maps):
    # What makes the products fast: the batch stays last, forward and backward, also around the activations.
    encoder, decoder = make_networks(arch, (8, 8, 1), sizes, 3, "gelu", 12, learned_sigma=False)

    def loss(params, x, z):
        return jnp.sum(encoder.apply(params[0], x) ** 2) + jnp.sum(decoder.apply(params[1], z) ** 2)

    x, z = jax.ShapeDtypeStruct((16, 8, 8, 1), jnp.float32), jax.ShapeDtypeStruct((16, 12), jnp.float32)
    params = [jax.eval_shape(net.init, jax.random.key(0), of) for net, of in ((encoder, x), (decoder, z))]
    program = jax.jit(jax.grad(loss)).lower(params, x, z).compile().as_text()
    for shape in maps:
        height, width, channels = map(int, shape.split(","))
        assert f"f32[{channels},{height},{width},16]{{3,2,1,0}}" in program, shape
        assert f"f32[16,{shape}]{{3,2,1,0}}" not in program, shape
        assert f"f32[16,{height * width * channels}]" not in program, shape


class _Dense(nn.Module):
    shape: tuple[int, ...]

    @nn.compact
    def __call__(self, x):
        return nn.Dense(math.prod(self.shape), name="dense")(x.reshape(x.shape[0], -1)).reshape(-1, *self.shape)


@pytest.mark.parametrize(
    ("ours", "shape"),
    [(DenseFromMaps(6), (3, 5, 2)), (DenseToMaps((3, 5, 2)), (4,))],
    ids=["from maps", "to maps"],
)
def test_a_dense_layer_beside_maps_is_that_of_flax(ours, shape):
    rng = np.random.default_rng(0)
    x = jnp.float32(rng.normal(size=(7, *shape)))
    flax = _Dense((6,) if isinstance(ours, DenseFromMaps) else ours.shape)
    shapes = jax.eval_shape(ours.init, jax.random.key(0), x)["params"]
    assert shapes == jax.eval_shape(flax.init, jax.random.key(0), x)["params"]["dense"]
    params = jax.tree.map(lambda leaf: jnp.float32(rng.normal(size=leaf.shape)), shapes)

    def value_and_gradients(apply):
        gradients = jax.value_and_grad(lambda params, x: jnp.sum(apply(params, x) ** 2), (0, 1))
        return jax.tree.leaves(jax.jit(lambda *of: (apply(*of), gradients(*of)))(params, x))

    reference = value_and_gradients(lambda params, x: flax.apply({"params": {"dense": params}}, x))
    for a, b in zip(value_and_gradients(lambda params, x: ours.apply({"params": params}, x)), reference, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4)


def test_a_function_on_maps_is_the_function():
    def residual(x, change):
        return x + nn.gelu(change) * x

    def value_and_gradients(function):
        value = jax.value_and_grad(lambda *maps: jnp.sum(function(*maps) ** 2), (0, 1))
        return jax.tree.leaves(jax.jit(lambda *maps: (function(*maps), value(*maps)))(*maps))

    maps = list(jnp.float32(np.random.default_rng(0).normal(size=(2, 3, 5, 4, 2))))
    for a, b in zip(value_and_gradients(partial(on_maps, residual)), value_and_gradients(residual), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("ours", "flax"),
    [
        (Conv(4, 2), nn.Conv(4, (3, 3), (2, 2))),
        (Conv(1), nn.Conv(1, (3, 3))),
        (Conv(4, side=1), nn.Conv(4, (1, 1))),
        (ConvTranspose(4), nn.ConvTranspose(4, (3, 3), (2, 2))),
    ],
    ids=["stride 2", "few outputs", "at each place", "transposed"],
)
def test_modules_take_the_parameters_of_flax_and_give_its_values(ours, flax):
    rng = np.random.default_rng(0)
    x = jnp.float32(rng.normal(size=(2, 7, 6, 3)))
    shapes = jax.eval_shape(ours.init, jax.random.key(0), x)
    assert shapes == jax.eval_shape(flax.init, jax.random.key(0), x)
    params = jax.tree.map(lambda leaf: jnp.float32(rng.normal(size=leaf.shape)), shapes)
    np.testing.assert_allclose(ours.apply(params, x), flax.apply(params, x), rtol=1e-5, atol=1e-5)
