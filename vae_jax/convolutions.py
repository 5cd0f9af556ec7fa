"""Convolutions, and the dense layers beside them: one set of parameters, two formulations.

XLA's own convolution runs on one thread inside `lax.scan` on the CPU (jax#12868), and its transposed form misses
every fast path there, so the CPU gets matrix products; other devices get the convolution they are good at.
Parameters are named and shaped as in `flax.linen.Conv` and `Dense`, whichever formulation runs.

The products work on maps with the batch last, [channels, height, width, batch]: shifting, striding and interleaving
then move whole rows of images, whatever the number of channels, and the transpositions between two layers cancel.
"""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

CHUNK = 64
"""Images to work on at a time on a CPU: their maps then stay in its cache."""
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def plain_convolution(
    x: Float[Array, "batch height width inputs"],
    kernel: Float[Array, "rows columns inputs outputs"],
    bias: Float[Array, " outputs"],
    stride: int,
) -> Float[Array, "batch out_height out_width outputs"]:
    """The convolution as XLA's own operation, padded so that the size is divided by the stride, rounded up."""
    y = jax.lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=_DIMENSIONS)
    return y + bias[None, None, None, :]


def plain_transposed_convolution(
    x: Float[Array, "batch height width inputs"],
    kernel: Float[Array, "rows columns inputs outputs"],
    bias: Float[Array, " outputs"],
    stride: int = 2,
) -> Float[Array, "batch times_height times_width outputs"]:
    """The transposed convolution as XLA's own operation, which multiplies the size by the stride."""
    y = jax.lax.conv_transpose(x, kernel, (stride, stride), "SAME", dimension_numbers=_DIMENSIONS)
    return y + bias[None, None, None, :]


def matmul_convolution(
    x: Float[Array, "batch height width inputs"],
    kernel: Float[Array, "rows columns inputs outputs"],
    bias: Float[Array, " outputs"],
    stride: int,
) -> Float[Array, "batch out_height out_width outputs"]:
    """The same values as `plain_convolution` by one matrix product."""
    rows, columns, inputs, outputs = kernel.shape
    size = x.shape[1:3]
    x = x.transpose(3, 1, 2, 0)
    if stride == 1 and outputs < inputs and rows % 2 and columns % 2:
        # To few outputs: all taps of every place first, then sums of shifted maps. The patches are never formed.
        return _finish(_fold(_taps(x, kernel[::-1, ::-1]), size, 1), bias)
    patches = _unfold(x, (rows, columns), stride)
    flat = jax.lax.dot(kernel.transpose(3, 0, 1, 2).reshape(outputs, -1), patches.reshape(rows * columns * inputs, -1))
    return _finish(flat.reshape(outputs, *patches.shape[-3:]), bias)


def matmul_transposed_convolution(
    x: Float[Array, "batch height width inputs"],
    kernel: Float[Array, "rows columns inputs outputs"],
    bias: Float[Array, " outputs"],
    stride: int = 2,
) -> Float[Array, "batch times_height times_width outputs"]:
    """The same values as `plain_transposed_convolution` by one matrix product to all taps, and sums of shifted maps."""
    _, height, width, _ = x.shape
    taps = _taps(x.transpose(3, 1, 2, 0), kernel[::-1, ::-1])
    return _finish(_fold(taps, (stride * height, stride * width), stride), bias)


def _finish(y: Array, bias: Array) -> Array:
    return _add_bias(y, bias).transpose(3, 1, 2, 0)


@jax.custom_vjp
def _add_bias(y: Array, bias: Array) -> Array:
    return y + bias[:, None, None, None]


def _add_bias_gradient(_: None, gradient: Array) -> tuple[Array, Array]:
    # As a product: XLA takes a sum through the transposition after the layer, and then transposes the whole map.
    flat = gradient.reshape(gradient.shape[0], -1)
    return gradient, jax.lax.dot(flat, jnp.ones((flat.shape[1], 1), flat.dtype))[:, 0]


_add_bias.defvjp(lambda y, bias: (_add_bias(y, bias), None), _add_bias_gradient)


def _taps(x: Array, kernel: Array) -> Array:
    # [rows, columns, outputs, height, width, batch]: what each tap of the kernel makes of each place.
    rows, columns, inputs, outputs = kernel.shape
    flat = jax.lax.dot(kernel.transpose(0, 1, 3, 2).reshape(-1, inputs), x.reshape(inputs, -1))
    return flat.reshape(rows, columns, outputs, *x.shape[1:])


def _padding(size: int, taps: int, stride: int) -> int:
    # Zeros before the first place, as in XLA's SAME.
    return max((-(-size // stride) - 1) * stride + taps - size, 0) // 2


def _shifted(x: Array, axis: int, start: int, number: int, stride: int = 1) -> Array:
    # x[start], x[start + stride], ... along an axis, `number` of them, zeros where there is no such place.
    size = x.shape[axis]
    config = [(0, 0, 0)] * x.ndim
    config[axis] = (-start, start + (number - 1) * stride + 1 - size, 0)
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), config)
    return jax.lax.slice_in_dim(x, 0, None, stride, axis)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _unfold(x: Array, taps: tuple[int, int], stride: int) -> Array:
    # [rows, columns, channels, out_height, out_width, batch]: the place that each tap reads, for each output.
    number = [-(-side // stride) for side in x.shape[1:3]]
    pad = [_padding(side, k, stride) for side, k in zip(x.shape[1:3], taps, strict=True)]
    return jnp.stack(
        [
            jnp.stack(
                [
                    _shifted(_shifted(x, 1, a - pad[0], number[0], stride), 2, b - pad[1], number[1], stride)
                    for b in range(taps[1])
                ]
            )
            for a in range(taps[0])
        ]
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _fold(taps: Array, size: tuple[int, int], stride: int) -> Array:
    # The transpose of `_unfold`: [channels, height, width, batch], each tap added to the place that it reads.
    pads = [_padding(side, k, stride) for side, k in zip(size, taps.shape[:2], strict=True)]
    number = [-(-side // stride) for side in size]

    def readers(phase: int, axis: int) -> list[tuple[int, int]]:
        # (tap, shift) of every tap that reads the places phase, phase + stride, ...
        first = phase + pads[axis]
        return [(tap, (first - tap) // stride) for tap in range(first % stride, taps.shape[axis], stride)]

    def phase_map(p: int, q: int) -> Array:
        views = [
            _shifted(_shifted(taps[a, b], 1, i, number[0]), 2, j, number[1])
            for a, i in readers(p, 0)
            for b, j in readers(q, 1)
        ]
        return functools.reduce(jnp.add, views) if views else jnp.zeros_like(taps[0, 0])

    if stride == 1:
        return phase_map(0, 0)
    rows = [jnp.stack([phase_map(p, q) for q in range(stride)], axis=3) for p in range(stride)]
    phases = jnp.stack(rows, axis=2)
    merged = phases.reshape(taps.shape[2], stride * number[0], stride * number[1], taps.shape[-1])
    return merged[:, : size[0], : size[1]]


_unfold.defvjp(
    lambda x, taps, stride: (_unfold(x, taps, stride), x.shape[1:3]),
    lambda taps, stride, size, patches: (_fold(patches, size, stride),),
)
_fold.defvjp(
    lambda taps, size, stride: (_fold(taps, size, stride), taps.shape[:2]),
    lambda size, stride, taps, x: (_unfold(x, taps, stride),),
)


def on_maps(
    function: Callable[..., Array], *maps: Float[Array, "batch height width channels"]
) -> Float[Array, "batch height width channels"]:
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
    def __call__(
        self, x: Float[Array, "batch height width inputs"]
    ) -> Float[Array, "batch out_height out_width outputs"]:
        """Convolve."""
        kernel, bias = _parameters(self, (self.side, self.side, x.shape[-1], self.channels))
        return jax.lax.platform_dependent(
            x,
            kernel,
            bias,
            cpu=functools.partial(matmul_convolution, stride=self.stride),
            default=functools.partial(plain_convolution, stride=self.stride),
        )


class ConvTranspose(nn.Module):
    """3x3 transposed convolution of stride 2 with bias; it doubles the sides."""

    channels: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width inputs"]
    ) -> Float[Array, "batch twice_height twice_width outputs"]:
        """Convolve."""
        kernel, bias = _parameters(self, (3, 3, x.shape[-1], self.channels))
        return jax.lax.platform_dependent(
            x, kernel, bias, cpu=matmul_transposed_convolution, default=plain_transposed_convolution
        )


class DenseFromMaps(nn.Module):
    """A dense layer of all values of a map, which on the CPU stays as the convolutions before give it."""

    size: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch size"]:
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
