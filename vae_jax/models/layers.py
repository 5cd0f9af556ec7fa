"""Layers on maps and the dense layers beside them: one set of parameters, computed as suits the device.

Parameters are named and shaped as in `flax.linen.Conv` and `Dense`, so that a checkpoint moves between devices. On the
CPU each layer takes and gives maps with the batch last, as the matrix products of `vae_jax.models.convolutions` have
them, and the transpositions between two layers cancel.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from vae_jax.models.convolutions import Maps, convolution, transposed_convolution


def on_maps(function: Callable[..., Array], *maps: Maps) -> Maps:
    """A function of each value by itself, such as an activation, of the maps that these convolutions give and take.

    On the CPU it sees them with the batch last, as the products have them. Else XLA copies every map from one layout to
    the other, twice, as soon as the function or its gradient uses a value more than once.
    """

    def batch_last(*maps: Array) -> Array:
        return function(*(x.transpose(3, 1, 2, 0) for x in maps)).transpose(3, 1, 2, 0)

    return jax.lax.platform_dependent(*maps, cpu=batch_last, default=function)


class Conv(nn.Module):
    """Convolution with bias; the output's sides are the input's divided by the stride, rounded up.

    With a kernel of side 1 it is a dense layer at every place.
    """

    channels: int
    stride: int = 1
    side: int = 3
    """Pixels a side of the kernel."""

    @nn.compact
    def __call__(self, x: Maps) -> Float[Array, "batch out_height out_width outputs"]:
        """Convolve."""
        return convolution(x, *_parameters(self, (self.side, self.side, x.shape[-1], self.channels)), self.stride)


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


def _parameters(module: nn.Module, shape: tuple[int, ...]) -> tuple[Array, Array]:
    kernel = module.param("kernel", nn.linear.default_kernel_init, shape)
    return kernel, module.param("bias", nn.initializers.zeros_init(), shape[-1:])
