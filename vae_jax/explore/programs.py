"""Trained networks as short programs over one array of weights, which arithmetic.js runs.

A step is a list: its name, its sizes, and where its weights begin. Maps are [height, width, channels].
"""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float

from vae_jax.models.layers import places_of
from vae_jax.models.networks import (
    PATCH,
    ConvDecoder,
    ConvEncoder,
    Gated,
    GatedDecoder,
    GatedEncoder,
    MLPDecoder,
    MLPEncoder,
    PatchDecoder,
    PatchEncoder,
)
from vae_jax.models.residual import ResidualDecoder, ResidualEncoder

Step: TypeAlias = list[Any]
Shape: TypeAlias = tuple[int, ...]


class Weights:
    """Arrays, one after another."""

    def __init__(self) -> None:
        self.parts: list[np.ndarray] = []
        self.size = 0

    def add(self, array: Any) -> int:
        """Append an array, and say where it begins."""
        start, flat = self.size, np.asarray(array, np.float32).ravel()
        self.parts.append(flat)
        self.size += len(flat)
        return start

    def joined(self) -> Float[np.ndarray, " size"]:
        """All of them."""
        return np.concatenate(self.parts)


class _Writer:
    # The steps of one network so far, and the shape of what they give. Layers are numbered as Linen does it.

    def __init__(self, network: Any, params: Any, weights: Weights, shape: Shape):
        self.network, self.params, self.weights, self.shape = network, params, weights, shape
        self.steps: list[Step] = []
        self.numbers: Counter[str] = Counter()

    def step(self, *step: Any) -> None:
        self.steps.append(list(step))

    def layer(self, kind: str) -> tuple[np.ndarray, int]:
        # The kernel, and where the bias begins.
        layer = self.params[f"{kind}_{self.numbers[kind]}"]
        self.numbers[kind] += 1
        return np.asarray(layer["kernel"]), self.weights.add(layer["bias"])

    def activate(self) -> None:
        self.step("activate", self.network.activation)

    def dense(self, kind: str = "Dense", shape: Shape | None = None) -> None:
        kernel, bias = self.layer(kind)
        self.step("dense", *kernel.shape, self.weights.add(kernel), bias)
        self.shape = shape or kernel.shape[1:]

    def conv(self, stride: int = 1) -> None:
        kernel, bias = self.layer("Conv")
        side, _, _, channels = kernel.shape
        self.step("conv", *self.shape, channels, side, stride, self.weights.add(kernel), bias)
        self.shape = (*(-(-length // stride) for length in self.shape[:2]), channels)

    def transposed(self, size: Shape) -> None:
        kernel, bias = self.layer("ConvTranspose")
        flipped = self.weights.add(kernel[::-1, ::-1])  # as each place is spread, not gathered
        self.step("transposed", *self.shape, kernel.shape[3], *size, flipped, bias)
        self.shape = (*size, kernel.shape[3])

    def gather(self, block: Shape) -> None:
        # As `space_to_depth`.
        self.step("gather", *self.shape, *block)
        self.shape = (*places_of(self.shape[:2], block), math.prod(block) * self.shape[2])  # type: ignore[arg-type]

    def spread(self, block: Shape) -> None:
        # As `depth_to_space`, cropped to the image.
        height, width, _ = self.network.image_shape
        self.step("spread", *self.shape, *block, height, width)

    def add(self, inner: Callable[[], None]) -> None:
        self.step("keep")
        inner()
        self.step("add")

    def waves(self) -> None:
        if self.network.fourier_features:
            frequencies = self.params["frequencies"]
            self.step("waves", *frequencies.shape, self.weights.add(frequencies))


def _mlp(writer: _Writer) -> None:
    if isinstance(writer.network, MLPDecoder):
        writer.waves()
    for _ in writer.network.hidden_sizes:
        writer.dense()
        if isinstance(writer.network, Gated):
            writer.step("gate")
        else:
            writer.activate()
    writer.dense()


def _conv_encoder(writer: _Writer) -> None:
    for _ in writer.network.hidden_sizes:
        writer.conv(stride=2)
        writer.activate()
    writer.dense("DenseFromMaps")
    if writer.network.dense_size:
        writer.activate()
        writer.dense()


def _conv_decoder(writer: _Writer) -> None:
    network = writer.network
    sizes = [network.image_shape[:2]]
    for _ in network.hidden_sizes:
        sizes.append(tuple(-(-side // 2) for side in sizes[-1]))
    writer.waves()
    writer.dense("DenseToMaps", (*sizes.pop(), network.hidden_sizes[0]))
    writer.activate()
    for size in reversed(sizes):
        writer.transposed(size)
        writer.activate()
    writer.conv()


def _patch_block(writer: _Writer, size: int) -> None:
    def change() -> None:
        writer.conv()
        writer.activate()

    if writer.shape[2] == size:
        writer.add(change)
    else:
        change()


def _patch_encoder(writer: _Writer) -> None:
    writer.gather(PATCH)
    for size in writer.network.hidden_sizes:
        _patch_block(writer, size)
    writer.conv()


def _patch_decoder(writer: _Writer) -> None:
    places = places_of(writer.network.image_shape[:2], PATCH)
    writer.shape = (*places, writer.shape[0] // math.prod(places))
    writer.conv()
    writer.activate()
    for size in writer.network.hidden_sizes[1:]:
        _patch_block(writer, size)
    writer.conv()
    writer.spread(PATCH)


def _residual_blocks(writer: _Writer) -> None:
    def change() -> None:
        for _ in range(3):
            writer.activate()
            writer.conv()

    for width in writer.network.hidden_sizes:
        if writer.shape[2] != width:
            writer.conv()
        writer.add(change)


def _residual_encoder(writer: _Writer) -> None:
    network = writer.network
    writer.gather(network.block)
    writer.conv()
    _residual_blocks(writer)
    parts = len(network.initial)
    if network.latent == "vector":
        writer.dense("DenseFromMaps")
    else:
        writer.conv()
        rows, columns, features = writer.shape
        writer.step("part", rows * columns, parts, features // parts)
    writer.step("shift", network.features, writer.weights.add(np.repeat(network.initial, network.features // parts)))


def _residual_decoder(writer: _Writer) -> None:
    network = writer.network
    places = places_of(network.image_shape[:2], network.block)
    if network.latent == "vector":
        writer.dense("DenseToMaps", (*places, network.hidden_sizes[0]))
    else:
        writer.shape = (*places, writer.shape[0] // math.prod(places))
        writer.conv()
    _residual_blocks(writer)
    writer.conv()
    writer.spread(network.block)


WRITERS: dict[type, Callable[[_Writer], None]] = {
    MLPEncoder: _mlp,
    MLPDecoder: _mlp,
    GatedEncoder: _mlp,
    GatedDecoder: _mlp,
    ConvEncoder: _conv_encoder,
    ConvDecoder: _conv_decoder,
    PatchEncoder: _patch_encoder,
    PatchDecoder: _patch_decoder,
    ResidualEncoder: _residual_encoder,
    ResidualDecoder: _residual_decoder,
}
"""How the steps of each network are written; of no subclass, which may compute something else."""


def steps_of(network: Any, params: Any, weights: Weights, shape: Shape) -> list[Step]:
    """The steps of a network.

    Args:
        network: of a type in `WRITERS`.
        params: its parameters.
        weights: where they are appended.
        shape: of what it sees: (height, width, channels), or (latents,).
    """
    writer = _Writer(network, params, weights, shape)
    WRITERS[type(network)](writer)
    return writer.steps
