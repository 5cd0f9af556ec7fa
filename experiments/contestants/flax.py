"""Plain Flax as a contestant: `nn.Dense` and `nn.Conv`, a jitted step, a Python loop over the batches.

The images lie on the device, and the step gathers its batch itself, so that no host copy is counted.
"""

import time
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.contestants.job import Job
from experiments.contestants.ours import accelerator_bytes


class _Network(nn.Module):
    job: Job
    image_shape: tuple[int, int, int]

    @nn.compact
    def __call__(self, x: Any, key: Any) -> tuple[Any, Any, Any]:
        job, conv = self.job, self.job.arch == "conv"
        h = x if conv else x.reshape(len(x), -1)
        for size in job.hidden_sizes:
            h = nn.relu(nn.Conv(size, (3, 3), (2, 2))(h) if conv else nn.Dense(size)(h))
        if conv:
            smallest = h.shape[1:]
            h = nn.relu(nn.Dense(job.dense_size)(h.reshape(len(h), -1)))
        mean, logvar = nn.Dense(job.latent_dim)(h), nn.Dense(job.latent_dim)(h)
        h = mean + jnp.exp(0.5 * logvar) * jax.random.normal(key, mean.shape)
        if conv:
            h = nn.relu(nn.Dense(int(np.prod(smallest)))(h)).reshape(-1, *smallest)
            for size in job.hidden_sizes[::-1]:
                h = nn.relu(nn.ConvTranspose(size, (3, 3), (2, 2))(h))
            height, width, channels = self.image_shape
            return nn.Conv(channels, (3, 3))(h)[:, :height, :width], mean, logvar
        for size in job.hidden_sizes[::-1]:
            h = nn.relu(nn.Dense(size)(h))
        return nn.Dense(int(np.prod(self.image_shape)))(h).reshape(x.shape), mean, logvar


class PlainFlax:
    """The loop of Flax's own examples."""

    device_bytes = staticmethod(accelerator_bytes)

    def __init__(self, job: Job):
        self.job = job
        self.images = jax.device_put(job.load().astype(np.float32) / 255)
        network = _Network(job, self.images.shape[1:])
        optimizer = optax.adam(job.learning_rate)
        self.params = network.init(jax.random.key(0), self.images[:1], jax.random.key(0))
        self.opt_state = optimizer.init(self.params)
        self.generator = np.random.default_rng(0)
        self.steps = 0
        self.version, self.device = f"jax {jax.__version__}", jax.default_backend()

        def loss(params: Any, x: Any, number: Any) -> Any:
            key = jax.random.fold_in(jax.random.key(1), number)
            outputs: Any = network.apply(params, x, key)
            logits, mean, logvar = outputs
            reconstruction = jnp.sum(jax.nn.softplus(logits) - x * logits)
            kl = 0.5 * jnp.sum(mean**2 + jnp.exp(logvar) - 1 - logvar)
            return (reconstruction + kl) / len(x)

        @partial(jax.jit, donate_argnums=(0, 1))
        def step(params: Any, opt_state: Any, images: Any, indices: Any, number: Any) -> tuple[Any, Any, Any]:
            value, gradient = jax.value_and_grad(loss)(params, images[indices], number)
            updates, opt_state = optimizer.update(gradient, opt_state)
            return optax.apply_updates(params, updates), opt_state, value

        self.step, self.loss = step, jax.jit(loss)

    def train(self) -> tuple[float, float]:
        """One epoch: seconds, and mean loss in nats an image."""
        start = time.perf_counter()
        losses = []
        for indices in self.generator.permutation(self.job.images).reshape(-1, self.job.batch_size):
            self.params, self.opt_state, loss = self.step(
                self.params, self.opt_state, self.images, indices, np.int32(self.steps)
            )
            losses.append(loss)
            self.steps += 1
        jax.block_until_ready((self.params, losses))
        seconds = time.perf_counter() - start
        return seconds, float(np.mean(jax.device_get(losses)))

    def held_out(self) -> float:
        """Mean loss of the images that are not trained on, one latent sample each, in nats an image."""
        return float(self.loss(self.params, self.job.load_held_out().astype(np.float32) / 255, np.int32(0)))
