"""3x3 convolutions of stride 1 and 2, and the transposed one of stride 2: one set of parameters, two formulations.

XLA's own convolution runs on one thread inside `lax.scan` on the CPU (jax#12868), and its transposed form misses
every fast path there, so the CPU gets matrix products; other devices get the convolution they are good at.
Parameters are named and shaped as in `flax.linen.Conv`, whichever formulation runs.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def plain_convolution(
    x: Float[Array, "batch height width inputs"], kernel: Float[Array, "3 3 inputs outputs"], stride: int
) -> Float[Array, "batch out_height out_width outputs"]:
    """The convolution as XLA's own operation, padded so that the size is divided by the stride, rounded up."""
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=_DIMENSIONS)


def matmul_convolution(
    x: Float[Array, "batch height width inputs"], kernel: Float[Array, "3 3 inputs outputs"], stride: int
) -> Float[Array, "batch out_height out_width outputs"]:
    """The same values by matrix products: over gathered patches, or from many inputs to few outputs by taps."""
    inputs, outputs = kernel.shape[2:]
    if outputs < inputs:
        # One product to all nine taps, then nine shifted views summed: the patches are never formed.
        taps = x @ kernel.transpose(2, 0, 1, 3).reshape(inputs, 9 * outputs)
        views = _shifted_views(taps, stride)
        return sum(view[..., t * outputs : (t + 1) * outputs] for t, view in enumerate(views))
    patches = jnp.concatenate(_shifted_views(x, stride), axis=-1)
    return patches @ kernel.reshape(9 * inputs, outputs)


def plain_transposed_convolution(
    x: Float[Array, "batch height width inputs"], kernel: Float[Array, "3 3 inputs outputs"]
) -> Float[Array, "batch twice_height twice_width outputs"]:
    """The transposed convolution of stride 2 as XLA's own operation, which doubles the size."""
    return jax.lax.conv_transpose(x, kernel, (2, 2), "SAME", dimension_numbers=_DIMENSIONS)


def matmul_transposed_convolution(
    x: Float[Array, "batch height width inputs"], kernel: Float[Array, "3 3 inputs outputs"]
) -> Float[Array, "batch twice_height twice_width outputs"]:
    """The same values by one matrix product from 2x2 patches to the four output phases.

    An even output row 2j is x[j-1] k[0] + x[j] k[2], an odd one x[j] k[1]; columns alike.
    """
    batch, height, width, inputs = x.shape
    outputs = kernel.shape[3]
    padded = jnp.pad(x, ((0, 0), (1, 0), (1, 0), (0, 0)))
    patches = jnp.concatenate([padded[:, i : i + height, j : j + width] for i in (0, 1) for j in (0, 1)], axis=-1)
    # [tap, offset, phase]: tap 0 reads offset 0 into phase 0, tap 2 offset 1 into phase 0, tap 1 offset 1 into phase 1.
    place = jnp.zeros((3, 2, 2), kernel.dtype).at[(0, 2, 1), (0, 1, 1), (0, 0, 1)].set(1.0)
    blocks = jnp.einsum("aip,bjq,abco->ijcpqo", place, place, kernel)
    phases = patches @ blocks.reshape(4 * inputs, 4 * outputs)
    phases = phases.reshape(batch, height, width, 2, 2, outputs).transpose(0, 1, 3, 2, 4, 5)
    return phases.reshape(batch, 2 * height, 2 * width, outputs)


def _shifted_views(x: Array, stride: int) -> list[Array]:
    # The nine inputs of a 3x3 window, each as a map of the output's size; padding as in XLA's SAME.
    pads = []
    for side in x.shape[1:3]:
        total = max((-(-side // stride) - 1) * stride + 3 - side, 0)
        pads.append((total // 2, total - total // 2))
    height, width = (-(-side // stride) for side in x.shape[1:3])
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    return [
        padded[:, i : i + stride * (height - 1) + 1 : stride, j : j + stride * (width - 1) + 1 : stride]
        for i in range(3)
        for j in range(3)
    ]


class Conv3x3(nn.Module):
    """3x3 convolution with bias; the output's sides are the input's divided by the stride, rounded up."""

    channels: int
    stride: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width inputs"]
    ) -> Float[Array, "batch out_height out_width outputs"]:
        """Convolve."""
        kernel, bias = _parameters(self, x.shape[-1], self.channels)
        y = jax.lax.platform_dependent(
            x,
            kernel,
            cpu=lambda x, k: matmul_convolution(x, k, self.stride),
            default=lambda x, k: plain_convolution(x, k, self.stride),
        )
        return y + bias[None, None, None, :]


class ConvTranspose3x3(nn.Module):
    """3x3 transposed convolution of stride 2 with bias; it doubles the sides."""

    channels: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width inputs"]
    ) -> Float[Array, "batch twice_height twice_width outputs"]:
        """Convolve."""
        kernel, bias = _parameters(self, x.shape[-1], self.channels)
        y = jax.lax.platform_dependent(
            x, kernel, cpu=matmul_transposed_convolution, default=plain_transposed_convolution
        )
        return y + bias[None, None, None, :]


def _parameters(module: nn.Module, inputs: int, outputs: int) -> tuple[Array, Array]:
    kernel = module.param("kernel", nn.linear.default_kernel_init, (3, 3, inputs, outputs))
    return kernel, module.param("bias", nn.initializers.zeros_init(), (outputs,))
