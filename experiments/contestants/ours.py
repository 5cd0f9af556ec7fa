"""vae_jax as a contestant of the benchmark: the one place where it meets the library's own entry points."""

import dataclasses
import functools
import queue
import threading
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vae_jax
from experiments.contestants.job import Job, best_rate
from vae_jax.cli.command import TrainingConfig
from vae_jax.cli.defaults import About, decided
from vae_jax.config import epochs
from vae_jax.data.dataset import Split
from vae_jax.data.stored import choose, open_npy
from vae_jax.training.many import fit_many

HELD_OUT = 128  # images for the validation that `fit` makes after each epoch, outside the measured seconds


def accelerator_bytes() -> int | None:
    """Most memory that JAX had in use on an accelerator, None on a CPU."""
    stats = jax.devices()[0].memory_stats() if jax.default_backend() != "cpu" else None
    return stats["peak_bytes_in_use"] if stats else None


class Ours:
    """`vae_jax.fit`, held after each epoch until it is this contestant's turn again."""

    device_bytes = staticmethod(accelerator_bytes)

    def __init__(self, job: Job):
        if job.devices:
            jax.config.update("jax_num_cpu_devices", job.devices)
        self.job = job
        self.images = choose(open_npy(Path(job.data)), slice(job.images)) if job.streamed else job.load()
        self.settings = self._settings()
        self.model = vae_jax.build_model(self.settings, self.images.shape[1:])
        self.params = self.model.init(jax.random.key(0))
        self.decode_mean = jax.jit(self.model.decode_mean)
        self.rows: queue.Queue[Any] = queue.Queue()
        self.turn = threading.Semaphore(0)
        self.thread = threading.Thread(target=self._fit, daemon=True)
        self.version = f"jax {jax.__version__}"
        self.device = jax.default_backend()

    def _settings(self) -> vae_jax.Settings:
        job = self.job
        changes: dict[str, Any] = {}
        if job.devices:
            changes["parallel"] = "jit"
        if job.streamed:
            changes["device_data"] = "never"
        return vae_jax.Settings(
            arch=job.arch,
            hidden_sizes=job.hidden_sizes,
            dense_size=job.dense_size,
            latent_dim=job.latent_dim,
            activation="relu",
            batch_size=job.batch_size,
            learning_rate=job.learning_rate,
            warmup_fraction=0.0,
            gradient_clip=0.0,
            epochs=100_000,  # far more than are run, so that the rate stays where it is, as the peers' does
            **changes,
        )

    def train(self) -> tuple[float, float]:
        """One epoch: seconds and mean loss in nats an image, both as the row of the run has them."""
        if self.thread.ident is None:
            self.thread.start()
        else:
            self.turn.release()
        rows = self.rows.get()
        if isinstance(rows, BaseException):
            raise rows
        return rows[0]["seconds"], float(np.mean([row["train"]["loss"] for row in rows]))

    def _fit(self) -> None:
        train, held_out = Split(self.images, None), Split(self.images[:HELD_OUT], None)
        try:
            if self.job.members == 1:
                vae_jax.fit(
                    *(self.model, train, held_out, self.settings), on_epoch=lambda state, row: self._after([row], state)
                )
            else:
                members = [dataclasses.replace(self.settings, seed=seed) for seed in range(self.job.members)]
                fit_many(self.model, train, held_out, members, on_epoch=lambda state, rows: self._after(rows))
        except BaseException as error:
            self.rows.put(error)

    def _after(self, rows: list[dict[str, Any]], state: Any = None) -> None:
        self.state = state  # the next epoch takes its memory over
        self.rows.put(rows)
        self.turn.acquire()

    def encode(self) -> float:
        """Seconds from uint8 images to posterior means and log variances, NumPy in, NumPy out."""
        start = time.perf_counter()
        vae_jax.encode_images(self.model, self.params, self.images, jax.random.key(0))
        return time.perf_counter() - start

    @functools.cached_property
    def latents(self) -> jax.Array:
        """What is decoded."""
        return jax.random.normal(jax.random.key(1), (self.job.images, self.job.latent_dim)).block_until_ready()

    def decode(self) -> float:
        """Seconds from latents to images as a NumPy array."""
        latents, start = self.latents, time.perf_counter()
        np.asarray(self.decode_mean(self.params, latents))
        return time.perf_counter() - start

    def evaluate(self) -> float:
        """Seconds for the mean loss with one latent sample an image."""
        start = time.perf_counter()
        vae_jax.evaluate(self.model, self.params, self.images, jax.random.key(0), samples=1)
        return time.perf_counter() - start


class Default(Ours):
    """`vae_jax.fit` with what the command decides for these images, to its end; of the job it has the latent alone."""

    def _settings(self) -> vae_jax.Settings:
        image_shape: Any = self.images.shape[1:]
        return decided(TrainingConfig(latent_dim=self.job.latent_dim), About(image_shape, len(self.images)))

    @property
    def epochs(self) -> int:
        """All that it wants."""
        return epochs(self.settings, len(self.images))

    def held_out(self) -> float:
        """Mean loss of the images that are not trained on, one latent sample each, in nats an image."""
        params, images = self.state.evaluation_params, self.job.load_held_out()
        return vae_jax.evaluate(self.model, params, images, jax.random.key(0), samples=1)["loss"]


class Roof:
    """Square float32 matrix products by XLA, in the precision that training uses there."""

    def __init__(self, job: Job):
        self.device, self.version = jax.default_backend(), f"jax {jax.__version__}"
        sizes = (512, 1024, 1536) if self.device == "cpu" else (2048, 4096, 8192, 16384)
        self.matrices = {size: jax.random.normal(jax.random.key(0), (size, size)) for size in sizes}
        self.multiply = jax.jit(jnp.matmul)

    def rates(self) -> dict[int, float]:
        """Floating point operations a second, by size."""
        return {
            size: best_rate(size, lambda m=m: self.multiply(m, m).block_until_ready())  # type: ignore[misc]
            for size, m in self.matrices.items()
        }
