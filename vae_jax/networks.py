"""Linen encoders and decoders for any image shape: deterministic, features and logits out.

An encoder maps images [batch, height, width, channels] to features [batch, features]; a decoder maps latents
[batch, latent] to the likelihood's parameters [batch, height, width, parameters].
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.convolutions import Conv3x3, ConvTranspose3x3

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "gelu": nn.gelu,
    "relu": nn.relu,
    "silu": nn.silu,
    "tanh": nn.tanh,
}


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
    learned_sigma: bool = False

    @nn.compact
    def __call__(self, z: Float[Array, "batch latent"]) -> Float[Array, "batch height width parameters"]:
        """Decode latents."""
        h = z
        for size in self.hidden_sizes:
            h = ACTIVATIONS[self.activation](nn.Dense(size)(h))
        height, width, channels = self.image_shape
        logits = nn.Dense(height * width * channels)(h).reshape(-1, height, width, channels)
        return _append_log_sigma(self, logits) if self.learned_sigma else logits


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
            h = ACTIVATIONS[self.activation](Conv3x3(channels, stride=2)(h))
        h = h.reshape(h.shape[0], -1)
        if self.dense_size:
            h = ACTIVATIONS[self.activation](nn.Dense(self.dense_size)(h))
        return nn.Dense(self.features)(h)


class ConvDecoder(nn.Module):
    """A dense layer to the smallest map, transposed convolutions of stride 2, and one convolution to the image.

    The hidden sizes are the channels in the order given; a map that came from an odd size is cropped to it.
    """

    hidden_sizes: tuple[int, ...]
    image_shape: tuple[int, int, int]
    activation: str
    learned_sigma: bool = False

    @nn.compact
    def __call__(self, z: Float[Array, "batch latent"]) -> Float[Array, "batch height width parameters"]:
        """Decode latents."""
        activation = ACTIVATIONS[self.activation]
        *image_size, image_channels = self.image_shape
        sizes = [tuple(image_size)]
        for _ in self.hidden_sizes:
            sizes.append(tuple(-(-side // 2) for side in sizes[-1]))
        height, width = sizes.pop()
        h = activation(nn.Dense(height * width * self.hidden_sizes[0])(z))
        h = h.reshape(-1, height, width, self.hidden_sizes[0])
        for channels in self.hidden_sizes:
            height, width = sizes.pop()
            h = activation(ConvTranspose3x3(channels)(h)[:, :height, :width])
        logits = Conv3x3(image_channels, stride=1)(h)
        return _append_log_sigma(self, logits) if self.learned_sigma else logits


def _append_log_sigma(module: nn.Module, mean: Any) -> Any:
    # One scalar for all pixels: the optimal one is the root mean squared error (Rybkin et al. 2021).
    log_sigma = module.param("log_sigma", nn.initializers.zeros_init(), ())
    return jnp.concatenate([mean, jnp.broadcast_to(log_sigma, mean.shape)], axis=-1)


def make_networks(
    arch: str,
    image_shape: tuple[int, int, int],
    hidden_sizes: tuple[int, ...],
    dense_size: int,
    activation: str,
    features: int,
    learned_sigma: bool,
) -> tuple[nn.Module, nn.Module]:
    """Encoder and mirrored decoder of an architecture; a new one is one more row here.

    Args:
        arch: mlp or conv.
        image_shape: (height, width, channels).
        hidden_sizes: the encoder's, in its order.
        dense_size: units of the conv encoder's dense layer, 0 for none.
        activation: a key of ACTIVATIONS.
        features: length of the encoder's output.
        learned_sigma: whether the decoder appends log sigma.
    """
    mirrored = hidden_sizes[::-1]
    if arch == "conv":
        return (
            ConvEncoder(hidden_sizes, dense_size, features, activation),
            ConvDecoder(mirrored, image_shape, activation, learned_sigma),
        )
    return (
        MLPEncoder(hidden_sizes, features, activation),
        MLPDecoder(mirrored, image_shape, activation, learned_sigma),
    )
