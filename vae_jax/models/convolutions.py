"""Convolutions in two formulations of equal value and gradient: XLA's own operation, and matrix products.

XLA's own convolution runs on one thread inside `lax.scan` on the CPU (jax#12868), and its transposed form misses
every fast path there; so the products are taken there, and the plain operation on other devices.

The products work on maps with the batch last, [channels, height, width, batch]: shifting, striding and interleaving
then move whole rows of images, whatever the number of channels, and the transpositions between two layers cancel.
"""

import functools
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

CHUNK = 64
"""Images to work on at a time on a CPU: their maps then stay in its cache."""
Maps: TypeAlias = Float[Array, "batch height width inputs"]
Kernel: TypeAlias = Float[Array, "rows columns inputs outputs"]
Bias: TypeAlias = Float[Array, " outputs"]


def convolution(x: Maps, kernel: Kernel, bias: Bias, stride: int) -> Float[Array, "batch out_height out_width outputs"]:
    """The convolution, padded so that the size is divided by the stride, rounded up."""
    return jax.lax.platform_dependent(
        *(x, kernel, bias),
        cpu=functools.partial(_by_products, stride=stride),
        default=functools.partial(_plain, jax.lax.conv_general_dilated, stride=stride),
    )


def transposed_convolution(
    x: Maps, kernel: Kernel, bias: Bias, stride: int
) -> Float[Array, "batch times_height times_width outputs"]:
    """The transposed convolution, which multiplies the size by the stride."""
    return jax.lax.platform_dependent(
        *(x, kernel, bias),
        cpu=functools.partial(_transposed_by_products, stride=stride),
        default=functools.partial(_plain, jax.lax.conv_transpose, stride=stride),
    )


def _plain(operation: Callable[..., Array], x: Array, kernel: Array, bias: Array, stride: int) -> Array:
    y = operation(x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return y + bias[None, None, None, :]


def _by_products(x: Array, kernel: Array, bias: Array, stride: int) -> Array:
    rows, columns, inputs, outputs = kernel.shape
    size = x.shape[1:3]
    x = x.transpose(3, 1, 2, 0)
    if stride == 1 and outputs < inputs and rows % 2 and columns % 2:
        # To few outputs: all taps of every place first, then sums of shifted maps. The patches are never formed.
        return _finish(_fold(_taps(x, kernel[::-1, ::-1]), size, 1), bias)
    patches = _unfold(x, (rows, columns), stride)
    flat = jax.lax.dot(kernel.transpose(3, 0, 1, 2).reshape(outputs, -1), patches.reshape(rows * columns * inputs, -1))
    return _finish(flat.reshape(outputs, *patches.shape[-3:]), bias)


def _transposed_by_products(x: Array, kernel: Array, bias: Array, stride: int) -> Array:
    # One product to all taps, and sums of shifted maps.
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

    def read(a: int, b: int) -> Array:
        return _shifted(_shifted(x, 1, a - pad[0], number[0], stride), 2, b - pad[1], number[1], stride)

    return jnp.stack([jnp.stack([read(a, b) for b in range(taps[1])]) for a in range(taps[0])])


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
