"""Residual networks at few places: the pixels of a place are its channels, so that depth is cheap.

For photographs. The latent is a map, with some dimensions for each place, or one vector.
"""

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, TypeAlias

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from vae_jax.config import Settings, hidden_sizes
from vae_jax.errors import UsageError
from vae_jax.models.layers import Conv, DenseFromMaps, DenseToMaps, depth_to_space, on_maps, places_of, space_to_depth
from vae_jax.models.networks import Decoder, Encoder, Features, Images, ImageShape, Latents, Networks, Parameters

Block: TypeAlias = tuple[int, int]
MOST_PLACES = 16
"""Of a map, along a side: a larger image has larger blocks of pixels."""
INITIAL_LOGVAR = -1.0
"""Of each latent: at the prior's own, 0, a map of many latents tells the decoder little at first."""
MIDDLE, CONTRAST = 0.5, 4.0
"""The first layer begins as if pixels had a mean of 0 and a deviation of 1; else most latents of a map die early."""


def block_of(height: int, width: int) -> Block:
    """Rows and columns of pixels that make a place: 4, doubled until a map has few places; or the side of the image."""
    side = 4
    while side * MOST_PLACES < max(height, width):
        side *= 2
    return min(side, height), min(side, width)


class ResidualEncoder(Encoder):
    """Blocks of pixels as channels, residual blocks, and some features of each place or a dense layer of all."""

    block: Block
    latent: str
    """map or vector."""
    initial: tuple[float, ...]
    """What it gives of each latent before it is trained: a mean, for a VAE a log variance, and what else there is."""

    @nn.compact
    def __call__(self, x: Images) -> Features:
        """Encode images."""
        h = Conv(self.hidden_sizes[0], side=1, gain=CONTRAST, middle=MIDDLE)(space_to_depth(x, self.block))
        h = _through_blocks(h, self.hidden_sizes, self.activate)
        each = self.features // len(self.initial)
        if self.latent == "vector":
            features = DenseFromMaps(self.features)(h)
        else:
            _, rows, columns, _ = h.shape
            h = Conv(self.features // (rows * columns), side=1)(h)
            # All means come first, then all log variances.
            h = h.reshape(-1, rows, columns, len(self.initial), each // (rows * columns))
            features = h.transpose(0, 3, 1, 2, 4).reshape(-1, self.features)
        return features + jnp.repeat(jnp.asarray(self.initial, features.dtype), each)[None]


class ResidualDecoder(Decoder):
    """The mirror of `ResidualEncoder`; a 3x3 convolution gives the pixels of each place, so that blocks join."""

    block: Block = (4, 4)
    latent: str = "map"
    on_maps: ClassVar[bool] = True

    @property
    def places(self) -> int:
        """Of the latent map."""
        return 1 if self.latent == "vector" else math.prod(places_of(self.image_shape[:2], self.block))

    @nn.compact
    def __call__(self, z: Latents) -> Parameters:
        """Decode latents."""
        height, width, channels = self.image_shape
        channels *= self.parameters
        rows, columns = places_of((height, width), self.block)
        if self.latent == "vector":
            h = DenseToMaps((rows, columns, self.hidden_sizes[0]))(z)
        else:
            h = Conv(self.hidden_sizes[0], side=1)(z.reshape(-1, rows, columns, z.shape[-1] // (rows * columns)))
        h = _through_blocks(h, self.hidden_sizes, self.activate)
        h = Conv(self.block[0] * self.block[1] * channels)(h)
        return depth_to_space(h, self.block)[:, :height, :width]


def _through_blocks(h: Array, widths: Sequence[int], activate: Callable[[Array], Array]) -> Array:
    # Bottlenecks that activate before they convolve (He et al. 2016, "Identity mappings"), without statistics of the
    # batch. The last kernel of each begins small, so that the sum does not grow with the depth.
    for width in widths:
        if h.shape[-1] != width:
            h = Conv(width, side=1)(h)
        inner = max(1, width // 2)
        change = Conv(inner, side=1)(on_maps(activate, h))
        change = Conv(inner)(on_maps(activate, change))
        change = Conv(width, side=1, gain=0.5 / len(widths) ** 0.5)(on_maps(activate, change))
        h = on_maps(jnp.add, h, change)
    return h


def residual(settings: Settings, image_shape: ImageShape, features: int, parameters: int) -> Networks:
    """Residual blocks of the hidden sizes as widths, with a latent map or vector; arguments as of `networks.mlp`.

    Raises:
        UsageError: the latent can't be shared out among the places of a map.
    """
    block, latent = block_of(*image_shape[:2]), settings.latent
    rows, columns = places_of(image_shape[:2], block)
    number, (more, rest) = rows * columns, divmod(settings.latent_dim, rows * columns)
    if latent == "map" and rest:
        near = " or ".join(str(number * times) for times in (more, more + 1) if times)
        raise UsageError(
            f"--latent-dim must be a multiple of {number} for --arch residual with --latent map, as many for each of "
            f"the {rows} x {columns} places, got {settings.latent_dim}.\nUse {near}, or --latent vector."
        )
    each = features // settings.latent_dim
    initial = (0.0, INITIAL_LOGVAR, *[0.0] * (each - 2))[:each]
    sizes, activation = hidden_sizes(settings), settings.activation
    decoder = ResidualDecoder(sizes[::-1], activation, image_shape, parameters, block=block, latent=latent)
    return ResidualEncoder(sizes, activation, features, block, latent, initial), decoder
