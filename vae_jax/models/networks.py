"""Linen encoders and decoders for any image shape: deterministic, features and logits out.

An encoder maps images [batch, height, width, channels] to features [batch, features]; a decoder maps latents
[batch, latent] to the likelihood's parameters [batch, height, width, parameters].
"""

from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.config import Settings, hidden_sizes
from vae_jax.errors import UsageError
from vae_jax.models.layers import Conv, ConvTranspose, DenseFromMaps, DenseToMaps, on_maps

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "gelu": nn.gelu,
    "relu": nn.relu,
    "silu": nn.silu,
    "tanh": nn.tanh,
}
ImageShape = tuple[int, int, int]
Networks = tuple[nn.Module, nn.Module]
"""An encoder and a decoder."""
PATCH_SIDE = 4
"""Pixels a side of a patch of `PatchEncoder` and `PatchDecoder`."""


class MLPEncoder(nn.Module):
    """Fully connected layers on the flattened image."""

    hidden_sizes: tuple[int, ...]
    features: int
    activation: str

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch features"]:
        """Encode images."""
        h = x.reshape(x.shape[0], -1)
        for size in self.hidden_sizes:
            h = ACTIVATIONS[self.activation](nn.Dense(size)(h))
        return nn.Dense(self.features)(h)


class MLPDecoder(nn.Module):
    """Fully connected layers, the hidden sizes in the order given."""

    hidden_sizes: tuple[int, ...]
    image_shape: tuple[int, int, int]
    activation: str
    fourier_features: int = 0
    parameters: int = 1

    @nn.compact
    def __call__(self, z: Float[Array, "batch latent"]) -> Float[Array, "batch height width parameters"]:
        """Decode latents."""
        h = _with_waves(self, z, self.fourier_features)
        for size in self.hidden_sizes:
            h = ACTIVATIONS[self.activation](nn.Dense(size)(h))
        height, width, channels = self.image_shape
        channels *= self.parameters
        return nn.Dense(height * width * channels)(h).reshape(-1, height, width, channels)


class ConvEncoder(nn.Module):
    """3x3 convolutions of stride 2 with the hidden sizes as channels, then a dense layer (Chollet 2020)."""

    hidden_sizes: tuple[int, ...]
    dense_size: int
    features: int
    activation: str

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch features"]:
        """Encode images."""
        h = x
        for channels in self.hidden_sizes:
            h = on_maps(ACTIVATIONS[self.activation], Conv(channels, stride=2)(h))
        if not self.dense_size:
            return DenseFromMaps(self.features)(h)
        return nn.Dense(self.features)(ACTIVATIONS[self.activation](DenseFromMaps(self.dense_size)(h)))


class ConvDecoder(nn.Module):
    """A dense layer to the smallest map, transposed convolutions of stride 2, and one convolution to the image.

    The hidden sizes are the channels in the order given; a map that came from an odd size is cropped to it.
    """

    on_maps: ClassVar[bool] = True
    """Whether a CPU works on few images at a time, whose maps then stay in its cache."""
    hidden_sizes: tuple[int, ...]
    image_shape: tuple[int, int, int]
    activation: str
    fourier_features: int = 0
    parameters: int = 1

    @nn.compact
    def __call__(self, z: Float[Array, "batch latent"]) -> Float[Array, "batch height width parameters"]:
        """Decode latents."""
        activation = ACTIVATIONS[self.activation]
        *image_size, image_channels = self.image_shape
        sizes = [tuple(image_size)]
        for _ in self.hidden_sizes:
            sizes.append(tuple(-(-side // 2) for side in sizes[-1]))
        height, width = sizes.pop()
        h = _with_waves(self, z, self.fourier_features)
        h = on_maps(activation, DenseToMaps((height, width, self.hidden_sizes[0]))(h))
        for channels in self.hidden_sizes:
            height, width = sizes.pop()
            h = on_maps(activation, ConvTranspose(channels)(h))[:, :height, :width]
        return Conv(image_channels * self.parameters)(h)


class PatchEncoder(nn.Module):
    """A code for each patch of 4x4 pixels, as long as one likes: for denoising, which needs no bottleneck.

    The pixels of a patch are its channels; 3x3 convolutions over the patches, residual where the width stays, then a
    dense layer at each of them.
    """

    hidden_sizes: tuple[int, ...]
    features: int
    activation: str

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch features"]:
        """Encode images."""
        rows, columns = patch_places(*x.shape[1:3])
        pads = ((0, 0), (0, rows * PATCH_SIDE - x.shape[1]), (0, columns * PATCH_SIDE - x.shape[2]), (0, 0))
        h = jnp.pad(x, pads).reshape(-1, rows, PATCH_SIDE, columns, PATCH_SIDE, x.shape[3])
        h = h.transpose(0, 1, 3, 2, 4, 5).reshape(-1, rows, columns, PATCH_SIDE**2 * x.shape[3])
        for size in self.hidden_sizes:
            h = _convolve(h, size, self.activation)
        return Conv(self.features // (rows * columns), side=1)(h).reshape(-1, self.features)


class PatchDecoder(nn.Module):
    """The mirror of `PatchEncoder`, the hidden sizes in the order given: from the code at every place to its patch."""

    on_maps: ClassVar[bool] = True
    hidden_sizes: tuple[int, ...]
    image_shape: tuple[int, int, int]
    activation: str
    parameters: int = 1

    @nn.compact
    def __call__(self, z: Float[Array, "batch latent"]) -> Float[Array, "batch height width parameters"]:
        """Decode latents."""
        height, width, channels = self.image_shape
        channels *= self.parameters
        rows, columns = patch_places(height, width)
        h = z.reshape(z.shape[0], rows, columns, -1)
        for size in self.hidden_sizes[:1]:  # mirrors the encoder's dense layer at each place
            h = on_maps(ACTIVATIONS[self.activation], Conv(size, side=1)(h))
        for size in self.hidden_sizes[1:]:
            h = _convolve(h, size, self.activation)
        patches = Conv(PATCH_SIDE**2 * channels)(h)
        patches = patches.reshape(-1, rows, columns, PATCH_SIDE, PATCH_SIDE, channels).transpose(0, 1, 3, 2, 4, 5)
        return patches.reshape(-1, rows * PATCH_SIDE, columns * PATCH_SIDE, channels)[:, :height, :width]


def patch_places(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of patches that cover an image of so many pixels."""
    return -(-height // PATCH_SIDE), -(-width // PATCH_SIDE)


def _convolve(h: Any, size: int, activation: str) -> Any:
    change, function = Conv(size)(h), ACTIVATIONS[activation]
    if h.shape[-1] != size:
        return on_maps(function, change)
    return on_maps(lambda h, change: h + function(change), h, change)


def _with_waves(module: nn.Module, z: Any, number: int) -> Any:
    # Sines and cosines beside the latent: dense layers alone learn fast changes over a plane only slowly (Tancik et
    # al. 2020). The frequencies are trained, from a standard normal that suits latents of the prior's size.
    if number == 0:
        return z
    frequencies = module.param("frequencies", nn.initializers.normal(1.0), (z.shape[-1], number))
    phases = z @ frequencies
    return jnp.concatenate([z, jnp.sin(phases), jnp.cos(phases)], axis=-1)


def mlp(settings: Settings, image_shape: ImageShape, features: int, parameters: int) -> Networks:
    """Fully connected networks.

    As every architecture that `vae_jax.registry.ARCHITECTURES` names:

    Args:
        settings: hidden sizes, activation and what else the architecture uses.
        image_shape: (height, width, channels).
        features: length of the encoder's output.
        parameters: numbers that the decoder gives for each value of an image, channels * parameters in all.
    """
    sizes, activation = hidden_sizes(settings), settings.activation
    return (
        MLPEncoder(sizes, features, activation),
        MLPDecoder(sizes[::-1], image_shape, activation, settings.fourier_features, parameters),
    )


def conv(settings: Settings, image_shape: ImageShape, features: int, parameters: int) -> Networks:
    """Convolutions of stride 2, as in the Keras tutorial; arguments as of `mlp`."""
    sizes, activation = hidden_sizes(settings), settings.activation
    return (
        ConvEncoder(sizes, settings.dense_size, features, activation),
        ConvDecoder(sizes[::-1], image_shape, activation, settings.fourier_features, parameters),
    )


def patch(settings: Settings, image_shape: ImageShape, features: int, parameters: int) -> Networks:
    """A code for each patch of 4x4 pixels; arguments as of `mlp`.

    Raises:
        UsageError: the latent can't be shared out among the patches.
    """
    rows, columns = patch_places(*image_shape[:2])
    if features % (rows * columns):
        raise UsageError(
            f"--latent-dim must be a multiple of {rows * columns} for --arch patch, one code for each of the "
            f"{rows} x {columns} patches, got {features}."
        )
    sizes, activation = hidden_sizes(settings), settings.activation
    return (
        PatchEncoder(sizes, features, activation),
        PatchDecoder(sizes[::-1], image_shape, activation, parameters),
    )
