"""What the benchmark asks of every contestant: the architecture, the data, and how many operations that costs.

Imports none of the frameworks, as each runs in a process of its own.
"""

import dataclasses
import itertools
import math
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Job:
    """One model trained on the first images of one file, with Adam; relu between the layers, grey Bernoulli loss."""

    data: str
    """An .npy file of uint8 [n, height, width, channels], pixels 0..255."""
    images: int
    """How many of them an epoch sees; a multiple of the batch size."""
    arch: str = "mlp"
    """mlp, or conv as in the Keras tutorial."""
    hidden_sizes: tuple[int, ...] = (400,)
    dense_size: int = 16
    """Units between convolutions and latent, conv only."""
    latent_dim: int = 20
    batch_size: int = 128
    learning_rate: float = 1e-3
    members: int = 1
    """Models trained together by vmap, ours only."""
    devices: int = 0
    """Virtual CPU devices that share a batch, ours only; 0 leaves the devices as they are."""
    streamed: bool = False
    """Whether the images stay in their file, and go to the device as they are needed, ours only."""

    held_out: str = ""
    """An .npy file as `data` of images that are not trained on, where the loss of such is asked for."""

    def load_held_out(self) -> np.ndarray:
        """The images of `held_out`, all of them."""
        return np.ascontiguousarray(np.lib.format.open_memmap(self.held_out, mode="r"))

    def load(self) -> np.ndarray:
        """The images, uint8 [images, height, width, channels]."""
        return np.ascontiguousarray(np.lib.format.open_memmap(self.data, mode="r")[: self.images])

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Job":
        """Back from JSON, which knows no tuples."""
        return cls(**{**content, "hidden_sizes": tuple(content["hidden_sizes"])})


def mlp_job(data: str, images: int, **changes: Any) -> Job:
    """784-400-20-400-784, the MLP of PyTorch's VAE example."""
    return Job(data, images, **changes)


def conv_job(data: str, images: int, **changes: Any) -> Job:
    """The convolutional VAE of the Keras tutorial (Chollet 2020)."""
    return Job(data, images, "conv", **{"hidden_sizes": (32, 64), "latent_dim": 2, **changes})


def threads() -> int:
    """Threads that each contestant may use: the cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def best_rate(size: int, multiply: Callable[[], object]) -> float:
    """Operations a second of a square product, from the quickest of a few after a first."""
    multiply()
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        multiply()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def training_flops(job: Job, image_shape: tuple[int, int, int]) -> int:
    """Floating point operations of the matrix products and convolutions for one image of one training step.

    A multiply and an add are two. The backward pass costs the forward pass twice, once for the weights and once for
    the inputs; the first layer's inputs need no gradient. Everything that is no product counts as nothing.
    """
    products = _products(job, image_shape)
    return 2 * (3 * sum(products) - products[0])


def _products(job: Job, image_shape: tuple[int, int, int]) -> list[int]:
    # Multiply-adds of each layer for one image, in order.
    height, width, channels = image_shape
    sizes, latent = job.hidden_sizes, job.latent_dim
    if job.arch == "mlp":
        widths = [height * width * channels, *sizes, 2 * latent]
        back = [latent, *sizes[::-1], height * width * channels]
        return [a * b for chain in (widths, back) for a, b in itertools.pairwise(chain)]
    maps = [(height, width)]
    for _ in sizes:
        maps.append((-(-maps[-1][0] // 2), -(-maps[-1][1] // 2)))
    areas = [math.prod(sides) for sides in maps]
    inputs = (channels, *sizes)
    down = [area * 9 * a * b for area, a, b in zip(areas[1:], inputs, sizes, strict=False)]
    flat, first = areas[-1] * sizes[-1], areas[-1] * sizes[-1]
    dense = [flat * job.dense_size, job.dense_size * 2 * latent, latent * first]
    # A transposed convolution multiplies each of its input's places with the whole kernel.
    mirrored = sizes[::-1]
    up = [area * 9 * a * b for area, a, b in zip(areas[:0:-1], (mirrored[0], *mirrored[:-1]), mirrored, strict=False)]
    return [*down, *dense, *up, areas[0] * 9 * mirrored[-1] * channels]
