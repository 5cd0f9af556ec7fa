"""The layers of the library's networks as operations on integers, in the order in which flax named their weights."""

from typing import Any

import numpy as np

from vae_jax.codecs.lossless import fixed_point
from vae_jax.codecs.lossless.fixed_point import Layer
from vae_jax.models.autoencoders import Model
from vae_jax.models.layers import places_of
from vae_jax.models.networks import ConvDecoder, ConvEncoder
from vae_jax.models.residual import ResidualDecoder, ResidualEncoder


class Builder:
    """The layers of a network, in the order in which flax named them."""

    def __init__(self, name: str, params: dict[str, Any], activation: str):
        self.name, self.params, self.activation = name, params, activation
        self.layers: list[Layer] = []
        self.arrays: dict[str, np.ndarray] = {}
        self._used: dict[str, int] = {}

    def weights(self, operation: str, kind: str, *arguments: Any, scale: Any = 1.0, offset: Any = 0.0) -> None:
        """A layer with parameters; a scale and an offset of the last outputs are repeated for all."""
        number = self._used[kind] = self._used.get(kind, -1) + 1
        leaf, name = self.params[f"{kind}_{number}"], f"{self.name}.{kind}_{number}"
        outputs = leaf["bias"].shape[0]
        scale, offset = (np.tile(each, outputs // np.size(each)) for each in (scale, offset))
        made = fixed_point.weights(np.asarray(leaf["kernel"]), np.asarray(leaf["bias"]), scale, offset)
        self.arrays |= {f"{name}.{part}": array for part, array in made.items()}
        self.layers.append([operation, name, *arguments])

    def conv(self, stride: int = 1, **more: Any) -> None:
        """A convolution."""
        self.weights("conv", "Conv", stride, **more)

    def activate(self) -> None:
        """The network's activation."""
        self.add("activation", self.activation)

    def add(self, *layer: Any) -> None:
        """A layer without parameters."""
        self.layers.append([*layer])

    def blocks(self, widths: tuple[int, ...], width: int) -> None:
        """As `vae_jax.models.residual` has them."""
        for wanted in widths:
            if width != wanted:
                self.conv()
                width = wanted
            self.add("keep")
            for _ in range(3):
                self.activate()
                self.conv()
            self.add("add")


def _mlp(build: Builder, network: Any, **last: Any) -> None:
    for _ in network.hidden_sizes:
        build.weights("dense", "Dense")
        build.activate()
    build.weights("dense", "Dense", **last)


def _conv_encoder(build: Builder, network: ConvEncoder) -> None:
    for _ in network.hidden_sizes:
        build.conv(stride=2)
        build.activate()
    build.weights("dense", "DenseFromMaps")
    if network.dense_size:
        build.activate()
        build.weights("dense", "Dense")


def _conv_decoder(build: Builder, network: ConvDecoder, **last: Any) -> None:
    sizes = [tuple(network.image_shape[:2])]
    for _ in network.hidden_sizes:
        sizes.append(tuple(-(-side // 2) for side in sizes[-1]))
    build.weights("dense", "DenseToMaps")
    build.add("shape", *sizes.pop(), network.hidden_sizes[0])
    build.activate()
    for _ in network.hidden_sizes:
        build.weights("transposed", "ConvTranspose")
        build.activate()
        build.add("crop", *sizes.pop())
    build.conv(**last)


def _residual_encoder(build: Builder, network: ResidualEncoder, size: tuple[int, int]) -> None:
    parts, (rows, columns) = len(network.initial), places_of(size, network.block)
    build.add("blocks", *network.block)
    build.conv()
    build.blocks(network.hidden_sizes, network.hidden_sizes[0])
    each = network.features // parts
    if network.latent == "vector":
        build.weights("dense", "DenseFromMaps", offset=np.repeat(network.initial, each))
    else:
        of_place = each // (rows * columns)
        build.conv(offset=np.repeat(network.initial, of_place))
        build.add("permute", [rows, columns, parts, of_place], [2, 0, 1, 3])
        build.add("shape", network.features)


def _residual_decoder(build: Builder, network: ResidualDecoder, numbers: int, latent_dim: int, **last: Any) -> None:
    height, width, _ = network.image_shape
    rows, columns = places_of((height, width), network.block)
    if network.latent == "vector":
        build.weights("dense", "DenseToMaps")
        build.add("shape", rows, columns, network.hidden_sizes[0])
    else:
        if numbers:
            build.add("beside", rows, columns, numbers)
        build.add("shape", rows, columns, latent_dim // (rows * columns) + numbers)
        build.conv()
    build.blocks(network.hidden_sizes, network.hidden_sizes[0])
    build.conv(**last)
    build.add("pixels", *network.block)
    build.add("crop", height, width)


def networks_of(model: Model, params: dict[str, Any], last: dict[str, Any]) -> list[Builder]:
    """The layers of encoder and decoder, whose last one gets the keywords of `Builder.weights`."""
    encoder, decoder = model.encoder, model.decoder
    into = Builder("encoder", params["encoder"], encoder.activation)
    out = Builder("decoder", params["decoder"], decoder.activation)
    numbers = np.asarray(params["condition"]["numbers"]).shape[1] if model.classes else 0
    if isinstance(encoder, ResidualEncoder):
        _residual_encoder(into, encoder, model.image_shape[:2])
    elif isinstance(encoder, ConvEncoder):
        _conv_encoder(into, encoder)
    else:
        _mlp(into, encoder)
    if isinstance(decoder, ResidualDecoder):
        _residual_decoder(out, decoder, numbers, model.latent_dim, **last)
    elif isinstance(decoder, ConvDecoder):
        _conv_decoder(out, decoder, **last)
    else:
        _mlp(out, decoder, **last)
        height, width, channels = model.image_shape
        out.add("shape", height, width, channels * model.likelihood.parameters)
    return [into, out]
