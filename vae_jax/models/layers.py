"""Layers on maps and the dense layers beside them: one set of parameters, computed as suits the device.

Parameters are named and shaped as in `flax.linen.Conv` and `Dense`, so that a checkpoint moves between devices. On the
CPU each layer takes and gives maps with the batch last, as the matrix products of `vae_jax.models.convolutions` have
them, and the transpositions between two layers cancel.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from vae_jax.errors import UsageError
from vae_jax.models.convolutions import Maps, convolution, transposed_convolution


def on_maps(function: Callable[..., Array], *maps: Maps) -> Maps:
    """A function of each value by itself, such as an activation, of the maps that these convolutions give and take.

    On the CPU it sees them with the batch last, as the products have them. Else XLA copies every map from one layout to
    the other, twice, as soon as the function or its gradient uses a value more than once.
    """

    def batch_last(*maps: Array) -> Array:
        return function(*(x.transpose(3, 1, 2, 0) for x in maps)).transpose(3, 1, 2, 0)

    return jax.lax.platform_dependent(*maps, cpu=batch_last, default=function)


def places_of(size: tuple[int, int], block: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of blocks of pixels that cover an image of this height and width."""
    return -(-size[0] // block[0]), -(-size[1] // block[1])


def space_to_depth(x: Maps, block: tuple[int, int]) -> Float[Array, "batch rows columns outputs"]:
    """The pixels of each block as channels of one place; zeros fill the last blocks."""
    (down, across), (rows, columns) = block, places_of(x.shape[1:3], block)
    pads = ((0, 0), (0, rows * down - x.shape[1]), (0, columns * across - x.shape[2]), (0, 0))
    x = jnp.pad(x, pads).reshape(-1, rows, down, columns, across, x.shape[3])
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, rows, columns, down * across * x.shape[-1])


def depth_to_space(x: Maps, block: tuple[int, int]) -> Float[Array, "batch out_height out_width outputs"]:
    """The inverse of `space_to_depth`, without a crop (Shi et al. 2016, pixel shuffle)."""
    (down, across), (_, rows, columns, depth) = block, x.shape
    x = x.reshape(-1, rows, columns, down, across, depth // (down * across)).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(-1, rows * down, columns * across, x.shape[-1])


class Conv(nn.Module):
    """Convolution with bias; the output's sides are the input's divided by the stride, rounded up.

    With a kernel of side 1 it is a dense layer at every place.
    """

    channels: int
    stride: int = 1
    side: int = 3
    """Pixels a side of the kernel."""
    gain: float = 1.0
    """Of the kernel as it begins, where 1 keeps the variance of the values."""
    middle: float = 0.0
    """Of the inputs: where all of them have it, the outputs begin at 0."""

    @nn.compact
    def __call__(self, x: Maps) -> Float[Array, "batch out_height out_width outputs"]:
        """Convolve."""
        shape = (self.side, self.side, x.shape[-1], self.channels)
        return convolution(x, *_parameters(self, shape, self.gain, self.middle), self.stride)


class ConvTranspose(nn.Module):
    """3x3 transposed convolution of stride 2 with bias; it doubles the sides."""

    channels: int

    @nn.compact
    def __call__(self, x: Maps) -> Float[Array, "batch twice_height twice_width outputs"]:
        """Convolve."""
        return transposed_convolution(x, *_parameters(self, (3, 3, x.shape[-1], self.channels)), stride=2)


class DenseFromMaps(nn.Module):
    """A dense layer of all values of a map, which on the CPU stays as the convolutions before give it."""

    size: int

    @nn.compact
    def __call__(self, x: Maps) -> Float[Array, "batch size"]:
        """Flatten and multiply."""
        kernel, bias = _parameters(self, (math.prod(x.shape[1:]), self.size))

        def batch_last(x: Array, kernel: Array) -> Array:
            # The kernel's rows are moved whole, as in a loop over chunks XLA does it for each of them anew.
            channels_first = kernel.reshape(*x.shape[1:], self.size).transpose(2, 0, 1, 3).reshape(kernel.shape)
            flat = x.transpose(3, 1, 2, 0).reshape(-1, x.shape[0])
            return jax.lax.dot_general(flat, channels_first, (((0,), (0,)), ((), ())))

        def plain(x: Array, kernel: Array) -> Array:
            return x.reshape(x.shape[0], -1) @ kernel

        return jax.lax.platform_dependent(x, kernel, cpu=batch_last, default=plain) + bias[None]


class DenseToMaps(nn.Module):
    """A dense layer to all values of a map [height, width, channels], on the CPU as the convolutions after take it."""

    shape: tuple[int, int, int]

    @nn.compact
    def __call__(self, x: Float[Array, "batch inputs"]) -> Float[Array, "batch height width channels"]:
        """Multiply and form the map."""
        kernel, bias = _parameters(self, (x.shape[1], math.prod(self.shape)))

        def batch_last(x: Array, kernel: Array, bias: Array) -> Array:
            # The gradient of the bias sums the last axis alone, so it needs no `_add_bias`.
            channels_first = kernel.reshape(-1, *self.shape).transpose(3, 1, 2, 0)
            y = jax.lax.dot(channels_first.reshape(kernel.T.shape), x.T).reshape(*channels_first.shape[:3], -1)
            return (y + bias.reshape(self.shape).transpose(2, 0, 1)[..., None]).transpose(3, 1, 2, 0)

        def plain(x: Array, kernel: Array, bias: Array) -> Array:
            return (x @ kernel + bias[None]).reshape(-1, *self.shape)

        return jax.lax.platform_dependent(x, kernel, bias, cpu=batch_last, default=plain)


def _parameters(
    module: nn.Module, shape: tuple[int, ...], gain: float = 1.0, middle: float = 0.0
) -> tuple[Array, Array]:
    kernel = module.param("kernel", nn.initializers.variance_scaling(gain**2, "fan_in", "truncated_normal"), shape)
    return kernel, module.param("bias", lambda _: -middle * jnp.sum(kernel.reshape(-1, shape[-1]), axis=0))


def begun(network: nn.Module, key: Key[Array, ""], shape: tuple[int, ...]) -> Any:
    """The initial parameters of a network that takes arrays [batch, *shape].

    Raises:
        UsageError: it has something else beside parameters.
    """
    drawn = network.init(key, jnp.zeros((1, *shape)))
    if others := sorted(set(drawn) - {"params"}):
        raise UsageError(
            f"{type(network).__name__} must have trained parameters only, got the collection {others[0]!r}, "
            "as of BatchNorm.\nUse nn.GroupNorm or nn.LayerNorm, which need no statistics of the batch."
        )
    return drawn.get("params", {})


def applied(network: nn.Module, params: Any, x: Any, precision: str) -> Any:
    """What a network makes of x, computed with that precision, in float32."""

    def cast(leaf: Any) -> Any:
        # A lone scalar costs nothing, and its gradient is a sum over all pixels.
        return leaf.astype(precision) if leaf.ndim else leaf

    x = jnp.asarray(x)
    result: Any = network.apply({"params": jax.tree.map(cast, params)}, x.astype(precision))
    return result.astype(jnp.float32)
