import dataclasses
import os
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.config import Settings
from vae_jax.data import stored
from vae_jax.data.dataset import Split
from vae_jax.errors import RunError, UsageError
from vae_jax.models import evaluation
from vae_jax.models.autoencoders import build_model
from vae_jax.models.evaluation import evaluate
from vae_jax.training import streaming
from vae_jax.training.fit import Hooks, fit, go_on, make_recipe
from vae_jax.training.program import Progress

IMAGES = (np.random.default_rng(0).uniform(size=(50, 6, 5, 1)) ** 3 * 255).astype(np.uint8)
ALWAYS = Settings(hidden_sizes=(9,), epochs=2, batch_size=8, learning_rate=0.01, device_data="always", ema_decay=0.9)
ALWAYS = dataclasses.replace(ALWAYS, augment=("flip", "crop"))
NEVER = dataclasses.replace(ALWAYS, device_data="never")
MODEL = build_model(ALWAYS, (6, 5, 1))


@pytest.fixture
def splits(tmp_path, monkeypatch):
    # Of 42 images, so 6 steps; buffers of 4 steps and of 2.
    monkeypatch.setattr(stored, "SMALLEST_BYTES", 1)
    monkeypatch.setattr(streaming, "BUFFER_BYTES", 4 * 8 * 30)
    np.save(tmp_path / "own.npy", IMAGES)
    images = stored.open_npy(tmp_path / "own.npy")
    return Split(images.rows(slice(0, 42)), None), Split(images.rows(slice(42, 50)), None)


@pytest.fixture(scope="module")
def resident():
    return fit(MODEL, Split(IMAGES[:42], None), Split(IMAGES[42:], None), ALWAYS)


def same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


def same_rows(rows, others):
    def timeless(rows):
        return [{name: value for name, value in row.items() if "second" not in name} for row in rows]

    assert timeless(rows) == timeless(others)


BUDGET = 42 * 30


@pytest.mark.optimised  # without, two programs of the same steps differ in rounding
@pytest.mark.parametrize(
    ("kept_as", "device_data", "budget", "streamed"),
    [
        ("file", "never", BUDGET, True),
        ("file", "auto", BUDGET - 1, True),
        ("file", "auto", BUDGET, False),
        ("file", "always", 0, False),
        ("array", "never", BUDGET, True),
        ("array in Fortran's order", "never", BUDGET, True),
    ],
)
def test_wherever_images_lie_parameters_and_rows_are_the_same(
    kept_as, device_data, budget, streamed, monkeypatch, splits, resident
):
    most, fetch = [], streaming._Stream.fetch

    def counted(self):
        fetch(self)
        most.append(len(self._buffers))

    monkeypatch.setattr(streaming._Stream, "fetch", counted)
    monkeypatch.setattr(streaming, "memory_bytes", lambda device: 4 * budget)
    if kept_as != "file":
        images = IMAGES if kept_as == "array" else np.asfortranarray(IMAGES)
        splits = Split(images[:42], None), Split(images[42:], None)
    found = fit(MODEL, *splits, dataclasses.replace(ALWAYS, device_data=device_data))
    same(resident.state, found.state)
    same_rows(resident.history, found.history)
    assert max(most, default=0) == (2 if streamed else 0)  # the buffer in use, and the next


@pytest.mark.optimised
@pytest.mark.parametrize("onward", [NEVER, ALWAYS])
def test_going_on_within_an_epoch(splits, resident, onward):
    kept = {}

    def keep(progress):
        kept[int(progress.state.step)] = Progress(*jax.tree.map(jnp.copy, progress[:2]))

    settings = dataclasses.replace(NEVER, checkpoint_every_steps=3)
    go_on(make_recipe(MODEL, splits[0], settings), *splits, None, [], Hooks(on_part=keep))
    resumed = go_on(make_recipe(MODEL, splits[0], onward), *splits, kept[9], resident.history[:1], Hooks())
    same(resident.state, resumed.state)
    same_rows(resident.history, resumed.history)


@pytest.mark.parametrize("start", [0, 3, 5])
def test_what_is_read_is_the_order_from_any_step_on(splits, start):
    indices = np.random.default_rng(1).permutation(42).reshape(6, 7)
    read = list(streaming.read_ahead(splits[0].images, indices[start:], 4))
    assert {buffer.shape for buffer in read} == {(4, 7, 6, 5, 1)}
    np.testing.assert_array_equal(np.concatenate(read)[: 6 - start], IMAGES[indices[start:]])


def test_a_buffer_goes_to_the_cpu_without_a_copy():
    images = np.ones((16, 6, 5, 1), np.uint8)
    (buffer,) = streaming.read_ahead(images, np.arange(16).reshape(2, 8), 2)
    assert jax.device_put(buffer, jax.devices("cpu")[0]).unsafe_buffer_pointer() == buffer.ctypes.data


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="memory is told by Linux")
def test_memory_goes_back_to_the_system_after_each_epoch():
    def held():
        jax.device_put(0)  # JAX lets go of what it held at its next call
        with open("/proc/self/smaps_rollup") as file:
            return 1024 * int(next(line for line in file if line.startswith("Anonymous:")).split()[1])

    images = np.ones((4096, 2**10, 4, 1), np.uint8)  # in 4 buffers of 4 MiB, for which malloc does not ask the system
    found = []
    for _ in range(6):
        for buffer in streaming.read_ahead(images, np.arange(4096).reshape(4, 1024), 1):
            jax.device_put(buffer).block_until_ready()
        found.append(held())
    assert max(found[1:]) - found[0] < 2**21


def test_a_file_that_shrinks_ends_the_training_with_its_name(tmp_path, splits):
    (tmp_path / "own.npy").write_bytes(b"")
    with pytest.raises(RunError, match=r"own\.npy has become shorter"):
        fit(MODEL, *splits, NEVER)


def test_evaluation_in_pieces_gives_the_same_as_on_the_device(monkeypatch, splits):
    params, key = MODEL.init(jax.random.key(0)), jax.random.key(1)
    images = splits[0].images
    monkeypatch.setattr("vae_jax.models.autoencoders.ROWS", 8)
    whole = evaluate(MODEL, params, jnp.asarray(IMAGES[:42]), key, samples=2, binarize="dynamic")
    monkeypatch.setattr(evaluation, "PIECE_BYTES", 17 * 30)  # 16 images, so the last piece is filled up
    assert evaluate(MODEL, params, images, key, samples=2, binarize="dynamic") == whole
    assert evaluate(MODEL, params, IMAGES[:42], key, samples=2, binarize="dynamic") == whole


def test_the_memory_is_that_of_the_device_or_else_of_the_host():
    told = SimpleNamespace(memory_stats=lambda: {"bytes_limit": 123})
    assert streaming.memory_bytes(told) == 123
    host = streaming.memory_bytes(SimpleNamespace(memory_stats=lambda: None))
    with open("/proc/meminfo") as file:
        assert host == pytest.approx(1024 * int(file.readline().split()[1]), rel=0.01)


def test_pmap_does_not_stream():
    with pytest.raises(UsageError, match=r"--parallel pmap needs the images on the device.*\nUse --parallel jit"):
        streaming.are_streamed(dataclasses.replace(NEVER, parallel="pmap"), 1)
