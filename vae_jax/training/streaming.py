"""Training images that do not fit the device: the same steps, fed from the host and read ahead by grain.

The order of an epoch, the noise and so the parameters are those of images that live on the device.
"""

import math
import mmap
import os
from collections.abc import Callable, Generator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt8

from vae_jax.config import Settings
from vae_jax.data.stored import Images, StoredImages, read_into
from vae_jax.errors import UsageError
from vae_jax.models.autoencoders import AnyModel
from vae_jax.training.devices import ONE_DEVICE, Layout, agreed
from vae_jax.training.optimizer import make_optimizer, steps_per_epoch
from vae_jax.training.step import Batches, Keys, StepMetrics, TrainState, run_steps, shuffled, zero_metrics

DEVICE_SHARE = 0.25
"""Of the device's memory, which training images may take at most to live there; on a CPU, of the host's."""
BUFFER_BYTES = 2**24
"""About so many bytes of images go to the device at a time."""
READ_AHEAD = 2
"""Buffers that are read, each by its own thread, while the device computes."""

Advance = Callable[[TrainState, StepMetrics, Batches, Any, Any], tuple[TrainState, StepMetrics]]


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
    """The batches of all steps, `depth` of them at a time; what lacks in the last is arbitrary.

    Args:
        images: pixels 0..255.
        indices: which image stands where.
        depth: batches of a buffer.
    """
    import grain  # slow to import, and only needed here

    dataset = grain.MapDataset.source(_BufferSource(images, indices, depth))
    iterator = iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=READ_AHEAD, prefetch_buffer_size=READ_AHEAD)))
    try:
        yield from iterator
    finally:
        iterator.close()


def compile_stream(
    model: AnyModel, settings: Settings, images: Images, state: TrainState, layout: Layout = ONE_DEVICE
) -> tuple[Callable[[Any], Batches], Advance, int, Callable[[Any], Any], Callable[[Any], Any]]:
    """What makes a `vae_jax.training.fit.Program` that trains one model on images that stay on the host.

    Args:
        model: what to train.
        settings: how.
        images: uint8 [n, height, width, channels].
        state: one as it will train.
        layout: of the devices, not that of pmap.
    """
    images = images if isinstance(images, StoredImages) else np.ascontiguousarray(images)
    number, keys = len(images), Keys.from_seed(settings.seed)
    optimizer, steps = make_optimizer(settings, number), steps_per_epoch(number, settings.batch_size)
    depth = min(steps, max(1, BUFFER_BYTES // (settings.batch_size * math.prod(images.shape[1:]))))

    def order(epoch: Array) -> Batches:
        return layout.divided(shuffled(jax.random.fold_in(keys.order, epoch), number, settings.batch_size))

    def of_buffer(
        state: TrainState, metrics: StepMetrics, part: tuple[Array, Array], batches: Batches, start: Any, stop: Any
    ) -> tuple[TrainState, StepMetrics]:
        buffer, first = part
        return run_steps(
            *(model, optimizer, settings, state, metrics, buffer, batches, keys.noise, start, stop),
            layout=layout,
            first=first,
        )

    compiled_order = layout.compile_order(order)
    batches = compiled_order(np.int32(0))
    state, metrics, first = layout.replicated((jax.tree.map(jnp.copy, state), zero_metrics(steps), jnp.int32(0)))
    part = layout.spread(np.zeros((depth, batches.indices.shape[1], *images.shape[1:]), np.uint8)), first
    compiled = layout.compile_steps(of_buffer, state, metrics, part, batches)
    stream = _Stream(images, depth, layout)

    def advance(
        state: TrainState, metrics: StepMetrics, batches: Batches, start: Any, stop: Any
    ) -> tuple[TrainState, StepMetrics]:
        step, last = int(start), int(stop)
        while step < last:
            first, buffer = stream.buffer_with(batches, step)
            end = min(last, first + depth)
            part = (buffer, layout.replicated(jnp.int32(first)))
            state, metrics = compiled(state, metrics, part, batches, np.int32(step), np.int32(end))
            stream.fetch()  # while the device computes
            # So that the host never gets more than a buffer ahead.
            jax.block_until_ready(metrics)
            step = end
        return state, metrics

    return compiled_order, advance, steps, layout.replicated, layout.local


class _BufferSource:
    # What grain reads from: `depth` batches at a time.
    def __init__(self, images: Images, indices: np.ndarray, depth: int):
        self._images, self._indices, self._depth = images, indices, depth

    def __len__(self) -> int:
        return -(-len(self._indices) // self._depth)

    def __getitem__(self, number: Any) -> np.ndarray:
        indices = self._indices[number * self._depth :][: self._depth]
        buffer = _pages((self._depth, indices.shape[1], *self._images.shape[1:]))
        read_into(buffer[: len(indices)], self._images, indices)
        return buffer


def _pages(shape: tuple[int, ...]) -> np.ndarray:
    # Memory that goes back to the system once the array is gone, where malloc would keep it for each thread.
    # It begins with a page, so that a device which computes in the host's memory takes it without a copy.
    memory = mmap.mmap(-1, math.prod(shape), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(memory, np.uint8).reshape(shape)


class _Stream:
    # The buffers of an epoch on the device: the one in use, and the next.
    def __init__(self, images: Images, depth: int, layout: Layout):
        self._images, self._depth, self._layout = images, depth, layout
        self._batches: Batches | None = None
        self._first = 0  # step of the buffer in use
        self._buffers: list[Array] = []
        self._reader: Generator[np.ndarray, None, None] | None = None

    def buffer_with(self, batches: Batches, step: int) -> tuple[int, Array]:
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
            self._buffers.append(self._layout.spread(buffer))

    def _begin(self, batches: Batches, step: int) -> None:
        if self._reader:
            self._reader.close()
        self._batches, self._first, self._buffers = batches, step, []
        self._reader = read_ahead(self._images, np.asarray(batches.indices)[step:], self._depth)
