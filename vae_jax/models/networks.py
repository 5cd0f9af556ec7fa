"""Linen encoders and decoders for any image shape: deterministic, features and logits out.

An encoder maps images [batch, height, width, channels] to features [batch, features]; a decoder maps latents
[batch, latent] to the likelihood's parameters [batch, height, width, parameters].
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.config import Settings, hidden_sizes
from vae_jax.errors import UsageError
from vae_jax.models.layers import (
    Conv,
    ConvTranspose,
    DenseFromMaps,
    DenseToMaps,
    depth_to_space,
    on_maps,
    places_of,
    space_to_depth,
)

ImageShape = tuple[int, int, int]
Images: TypeAlias = Float[Array, "batch height width channels"]
Features: TypeAlias = Float[Array, "batch features"]
Latents: TypeAlias = Float[Array, "batch latent"]
Parameters: TypeAlias = Float[Array, "batch height width parameters"]
Networks = tuple[nn.Module, nn.Module]
"""An encoder and a decoder."""
PATCH = (4, 4)
"""Rows and columns of pixels of a patch of `PatchEncoder` and `PatchDecoder`."""


class Network(nn.Module):
    """What encoders and decoders share."""

    hidden_sizes: tuple[int, ...]
    """In the order of the layers."""
    activation: str

    def activate(self, h: Array) -> Array:
        """The nonlinearity, of each value."""
        return getattr(nn, self.activation)(h)

    def layer(self, h: Array, size: int) -> Array:
        """A hidden layer that is fully connected."""
        return self.activate(nn.Dense(size)(h))


class Encoder(Network):
    """Images in, features out."""

    features: int


class Decoder(Network):
    """Latents in, the likelihood's parameters out."""

    image_shape: ImageShape
    parameters: int = 1
    """Numbers that it gives for each value of an image."""
    fourier_features: int = 0

    @property
    def places(self) -> int:
        """Places of the map that it takes a latent for, each with its own part of it in turn; 1: it is a vector."""
        return 1

    def with_waves(self, z: Any) -> Any:
        """Latents, with sines and cosines of them where there are Fourier features (Tancik et al. 2020)."""
        # Dense layers alone learn fast changes over a plane only slowly. The frequencies are trained, from a standard
        # normal that suits latents of the prior's size.
        if self.fourier_features == 0:
            return z
        shape = (z.shape[-1], self.fourier_features)
        phases = z @ self.param("frequencies", nn.initializers.normal(1.0), shape)
        return jnp.concatenate([z, jnp.sin(phases), jnp.cos(phases)], axis=-1)


class MLPEncoder(Encoder):
    """Fully connected layers on the flattened image."""

    @nn.compact
    def __call__(self, x: Images) -> Features:
        """Encode images."""
        h = x.reshape(x.shape[0], -1)
        for size in self.hidden_sizes:
            h = self.layer(h, size)
        return nn.Dense(self.features)(h)


class MLPDecoder(Decoder):
    """Fully connected layers."""

    @nn.compact
    def __call__(self, z: Latents) -> Parameters:
        """Decode latents."""
        h = self.with_waves(z)
        for size in self.hidden_sizes:
            h = self.layer(h, size)
        height, width, channels = self.image_shape
        channels *= self.parameters
        return nn.Dense(height * width * channels)(h).reshape(-1, height, width, channels)


class Gated(Network):
    """(W h + b) * sigmoid(V h + c) for a hidden layer (Tomczak & Welling 2018, section 4.1, after Dauphin et al. 2017).

    One product gives both: the first half are the values, the second the gates.
    """

    def layer(self, h: Array, size: int) -> Array:
        """A hidden layer that is fully connected."""
        values, gates = jnp.split(nn.Dense(2 * size)(h), 2, axis=-1)
        return values * nn.sigmoid(gates)


class GatedEncoder(Gated, MLPEncoder):
    """Fully connected layers with gates on the flattened image."""


class GatedDecoder(Gated, MLPDecoder):
    """Fully connected layers with gates."""


class ConvEncoder(Encoder):
    """3x3 convolutions of stride 2 with the hidden sizes as channels, then a dense layer (Chollet 2020)."""

    dense_size: int

    @nn.compact
    def __call__(self, x: Images) -> Features:
        """Encode images."""
        h = x
        for channels in self.hidden_sizes:
            h = on_maps(self.activate, Conv(channels, stride=2)(h))
        if not self.dense_size:
            return DenseFromMaps(self.features)(h)
        return nn.Dense(self.features)(self.activate(DenseFromMaps(self.dense_size)(h)))


class ConvDecoder(Decoder):
    """A dense layer to the smallest map, transposed convolutions of stride 2, and one convolution to the image.

    The hidden sizes are the channels; a map that came from an odd size is cropped to it.
    """

    on_maps: ClassVar[bool] = True
    """Whether a CPU works on few images at a time, whose maps then stay in its cache."""

    @nn.compact
    def __call__(self, z: Latents) -> Parameters:
        """Decode latents."""
        *image_size, image_channels = self.image_shape
        sizes = [tuple(image_size)]
        for _ in self.hidden_sizes:
            sizes.append(tuple(-(-side // 2) for side in sizes[-1]))
        height, width = sizes.pop()
        h = on_maps(self.activate, DenseToMaps((height, width, self.hidden_sizes[0]))(self.with_waves(z)))
        for channels in self.hidden_sizes:
            height, width = sizes.pop()
            h = on_maps(self.activate, ConvTranspose(channels)(h))[:, :height, :width]
        return Conv(image_channels * self.parameters)(h)


class PatchEncoder(Encoder):
    """A code for each patch of 4x4 pixels, as long as one likes: for denoising, which needs no bottleneck.

    The pixels of a patch are its channels; 3x3 convolutions over the patches, residual where the width stays, then a
    dense layer at each of them.
    """

    @nn.compact
    def __call__(self, x: Images) -> Features:
        """Encode images."""
        h = space_to_depth(x, PATCH)
        rows, columns = h.shape[1:3]
        for size in self.hidden_sizes:
            h = _convolve(h, size, self.activate)
        return Conv(self.features // (rows * columns), side=1)(h).reshape(-1, self.features)


class PatchDecoder(Decoder):
    """The mirror of `PatchEncoder`: from the code at every place to its patch."""

    on_maps: ClassVar[bool] = True

    @property
    def places(self) -> int:
        """Of the map of codes."""
        return math.prod(places_of(self.image_shape[:2], PATCH))

    @nn.compact
    def __call__(self, z: Latents) -> Parameters:
        """Decode latents."""
        height, width, channels = self.image_shape
        channels *= self.parameters
        rows, columns = places_of((height, width), PATCH)
        h = z.reshape(z.shape[0], rows, columns, -1)
        for size in self.hidden_sizes[:1]:  # mirrors the encoder's dense layer at each place
            h = on_maps(self.activate, Conv(size, side=1)(h))
        for size in self.hidden_sizes[1:]:
            h = _convolve(h, size, self.activate)
        return depth_to_space(Conv(PATCH[0] * PATCH[1] * channels)(h), PATCH)[:, :height, :width]


def _convolve(h: Array, size: int, activate: Callable[[Array], Array]) -> Array:
    change = Conv(size)(h)
    if h.shape[-1] != size:
        return on_maps(activate, change)
    return on_maps(lambda h, change: h + activate(change), h, change)


def mlp(settings: Settings, image_shape: ImageShape, features: int, parameters: int) -> Networks:
    """Fully connected networks.

    As every architecture that `vae_jax.registry.ARCHITECTURES` names:

    Args:
        settings: hidden sizes, activation and what else the architecture uses.
        image_shape: (height, width, channels).
        features: length of the encoder's output.
        parameters: numbers that the decoder gives for each value of an image, channels * parameters in all.
    """
    return _connected(settings, image_shape, features, parameters, MLPEncoder, MLPDecoder)


def gated(settings: Settings, image_shape: ImageShape, features: int, parameters: int) -> Networks:
    """Fully connected networks with gates in place of activations; arguments as of `mlp`."""
    return _connected(settings, image_shape, features, parameters, GatedEncoder, GatedDecoder)


def _connected(settings: Settings, shape: ImageShape, features: int, parameters: int, *kinds: Any) -> Networks:
    (encoder, decoder), sizes, activation = kinds, hidden_sizes(settings), settings.activation
    return (
        encoder(sizes, activation, features),
        decoder(sizes[::-1], activation, shape, parameters, settings.fourier_features),
    )


def conv(settings: Settings, image_shape: ImageShape, features: int, parameters: int) -> Networks:
    """Convolutions of stride 2, as in the Keras tutorial; arguments as of `mlp`."""
    sizes, activation = hidden_sizes(settings), settings.activation
    decoder = ConvDecoder(sizes[::-1], activation, image_shape, parameters, settings.fourier_features)
    return ConvEncoder(sizes, activation, features, settings.dense_size), decoder


def patch(settings: Settings, image_shape: ImageShape, features: int, parameters: int) -> Networks:
    """A code for each patch of 4x4 pixels; arguments as of `mlp`.

    Raises:
        UsageError: the latent can't be shared out among the patches.
    """
    rows, columns = places_of(image_shape[:2], PATCH)
    if features % (rows * columns):
        raise UsageError(
            f"--latent-dim must be a multiple of {rows * columns} for --arch patch, one code for each of the "
            f"{rows} x {columns} patches, got {features}."
        )
    sizes, activation = hidden_sizes(settings), settings.activation
    return PatchEncoder(sizes, activation, features), PatchDecoder(sizes[::-1], activation, image_shape, parameters)
