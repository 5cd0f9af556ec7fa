"""Training images that do not fit the device: the same steps, fed from the host and read ahead by threads.

The order of an epoch, the noise and so the parameters are those of images that live on the device.
"""

import itertools
import math
import mmap
import os
from collections import deque
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, UInt8

from vae_jax.config import Settings
from vae_jax.data.dataset import Split
from vae_jax.data.stored import Images, StoredImages, read_into
from vae_jax.errors import UsageError
from vae_jax.training.devices import Layout, agreed
from vae_jax.training.program import Program, compile_order, compile_steps
from vae_jax.training.recipe import Recipe
from vae_jax.training.step import Batches, Data, Given, StepMetrics, TrainState, zero_metrics

DEVICE_SHARE = 0.25
"""Of the device's memory, which training images may take at most to live there; on a CPU, of the host's."""
BUFFER_BYTES = 2**24
"""About so many bytes of images go to the device at a time."""
READ_AHEAD = 2
"""Buffers that are read, each by its own thread, while the device computes."""


def are_streamed(settings: Settings, size: int) -> bool:
    """Whether training images of so many bytes are streamed: in all processes alike, if one of them has to.

    Raises:
        UsageError: for pmap, which needs them on the device.
    """
    here = settings.device_data == "never"
    if settings.device_data == "auto":
        here = size > DEVICE_SHARE * memory_bytes(jax.local_devices()[0])
    streamed = bool(agreed(int(here)))
    if streamed and settings.parallel == "pmap":
        raise UsageError(
            f"--parallel pmap needs the images on the device, got --device-data {settings.device_data} for "
            f"{size:,} bytes.\nUse --parallel jit, which streams to several devices, or --device-data always."
        )
    return streamed


def memory_bytes(device: Any) -> int:
    """Bytes of memory that a device lets JAX use; the host's, where it does not tell."""
    limit = (device.memory_stats() or {}).get("bytes_limit")
    return limit or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def read_ahead(
    images: Images, indices: Int[np.ndarray, "steps batch"], depth: int
) -> Generator[UInt8[np.ndarray, "depth batch height width channels"], None, None]:
    """The batches [steps, batch] of all steps, `depth` of them at a time; what lacks in the last is arbitrary."""

    def read(start: int) -> np.ndarray:
        chosen = indices[start : start + depth]
        buffer = _pages((depth, chosen.shape[1], *images.shape[1:]), images.dtype)
        read_into(buffer[: len(chosen)], images, chosen)
        return buffer

    starts = iter(range(0, len(indices), depth))
    with ThreadPoolExecutor(READ_AHEAD, "vae_jax-read") as threads:
        ahead = deque(threads.submit(read, start) for start in itertools.islice(starts, READ_AHEAD))
        while ahead:
            buffer = ahead.popleft().result()
            ahead.extend(threads.submit(read, start) for start in itertools.islice(starts, 1))
            yield buffer
            del buffer  # else it would stay until the next one is there


def compile_stream(recipe: Recipe, train: Split, state: TrainState, layout: Layout) -> Program:
    """The program that trains one model on images that stay on the host.

    `state` is one as it will train; the layout is not that of pmap.
    """
    images: Images = train.images if isinstance(train.images, StoredImages) else np.ascontiguousarray(train.images)
    given, steps, zero = Given.of(recipe), recipe.steps, np.int32(0)
    depth = min(steps, max(1, BUFFER_BYTES // (recipe.settings.batch_size * images[:1].nbytes)))
    order = compile_order(recipe, layout, given)
    batches = order(zero, state.shares)
    state, metrics = layout.replicated((jax.tree.map(jnp.copy, state), zero_metrics(steps)))
    shape = (depth, batches.indices.shape[1])
    labels = None if train.labels is None else np.zeros(shape, np.int32)
    data = layout.spread(Data(np.zeros((*shape, *images.shape[1:]), images.dtype), labels))
    compiled = compile_steps(recipe, layout, state, metrics, data, batches, given, zero, zero, zero)
    stream = _Stream(images, train.labels, depth, layout)

    def advance(
        state: TrainState, metrics: StepMetrics, batches: Batches, start: Any, stop: Any
    ) -> tuple[TrainState, StepMetrics]:
        step, last = int(start), int(stop)
        while step < last:
            first, buffer = stream.buffer_with(batches, step)
            end = min(last, first + depth)
            part = (np.int32(step), np.int32(end), np.int32(first))
            state, metrics = compiled(state, metrics, buffer, batches, given, *part)
            stream.fetch()  # while the device computes
            # So that the host never gets more than a buffer ahead.
            jax.block_until_ready(metrics)
            step = end
        return state, metrics

    return Program(order, advance, steps, layout.replicated, layout.local)


def _pages(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    # Memory that goes back to the system once the array is gone, where malloc would keep it for each thread.
    # It begins with a page, so that a device which computes in the host's memory takes it without a copy.
    memory = mmap.mmap(-1, math.prod(shape) * np.dtype(dtype).itemsize, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(memory, dtype).reshape(shape)


class _Stream:
    # The buffers of an epoch on the device: the one in use, and the next.
    def __init__(self, images: Images, labels: np.ndarray | None, depth: int, layout: Layout):
        self._images, self._labels, self._depth, self._layout = images, labels, depth, layout
        self._batches: Batches | None = None
        self._first = 0  # step of the buffer in use
        self._buffers: list[Data] = []
        self._next = 0  # step of the buffer that is fetched next
        self._reader: Generator[np.ndarray, None, None] | None = None

    def buffer_with(self, batches: Batches, step: int) -> tuple[int, Data]:
        # The buffer that holds this step, and its first step.
        if batches is not self._batches or not self._first <= step <= self._first + self._depth:
            self._begin(batches, step)
        elif step == self._first + self._depth:
            self._first = step
            del self._buffers[0]
        if not self._buffers:
            self.fetch()
        return self._first, self._buffers[0]

    def fetch(self) -> None:
        # Copy one more buffer, unless the next is there already.
        if len(self._buffers) < 2 and self._reader and (buffer := next(self._reader, None)) is not None:
            labels = None
            if self._labels is not None:
                chosen = self._labels[self._indices[self._next :][: self._depth]]
                labels = np.concatenate([chosen, np.zeros((self._depth - len(chosen), chosen.shape[1]), np.int32)])
            self._next += self._depth
            self._buffers.append(self._layout.spread(Data(buffer, labels)))

    def _begin(self, batches: Batches, step: int) -> None:
        if self._reader:
            self._reader.close()
        self._batches, self._first, self._buffers = batches, step, []
        self._indices, self._next = np.asarray(batches.indices), step
        self._reader = read_ahead(self._images, self._indices[step:], self._depth)
