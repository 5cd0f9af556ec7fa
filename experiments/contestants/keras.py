"""Keras as a contestant, on the backend that KERAS_BACKEND names: the model of its VAE tutorial, `model.fit`.

The tutorial's train_step is TensorFlow's; `compute_loss` says the same on every backend, and leaves Keras its own
compiled step. `jit_compile` is left at Keras's default.
"""

import time
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from experiments.contestants.job import Job, threads


class _VAE(keras.Model):
    def __init__(self, job: Job, image_shape: tuple[int, ...]):
        super().__init__(name="vae")  # TensorFlow takes no name that starts with an underscore
        sizes, pixels = job.hidden_sizes, int(np.prod(image_shape))
        self.mean, self.logvar = layers.Dense(job.latent_dim), layers.Dense(job.latent_dim)
        self.noise = keras.random.SeedGenerator(0)
        if job.arch == "mlp":
            self.encoder = keras.Sequential([layers.Flatten(), *(layers.Dense(s, activation="relu") for s in sizes)])
            hidden = [layers.Dense(s, activation="relu") for s in sizes[::-1]]
            self.decoder = keras.Sequential([*hidden, layers.Dense(pixels), layers.Reshape(image_shape)])
            return
        side = {"strides": 2, "padding": "same", "activation": "relu"}
        smallest = (image_shape[0] // 2 ** len(sizes), image_shape[1] // 2 ** len(sizes), sizes[-1])
        down = [layers.Conv2D(s, 3, **side) for s in sizes]
        self.encoder = keras.Sequential([*down, layers.Flatten(), layers.Dense(job.dense_size, activation="relu")])
        first = [layers.Dense(int(np.prod(smallest)), activation="relu"), layers.Reshape(smallest)]
        up = [layers.Conv2DTranspose(s, 3, **side) for s in sizes[::-1]]
        self.decoder = keras.Sequential([*first, *up, layers.Conv2D(image_shape[2], 3, padding="same")])

    def call(self, x: Any) -> tuple[Any, Any, Any]:
        h = self.encoder(x)
        mean, logvar = self.mean(h), self.logvar(h)
        z = mean + ops.exp(0.5 * logvar) * keras.random.normal(ops.shape(mean), seed=self.noise)
        return self.decoder(z), mean, logvar

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        logits, mean, logvar = y_pred
        reconstruction = ops.sum(ops.softplus(logits) - x * logits)
        kl = 0.5 * ops.sum(ops.square(mean) + ops.exp(logvar) - 1.0 - logvar)
        return (reconstruction + kl) / ops.cast(ops.shape(x)[0], "float32")


class Keras:
    """`fit` of one epoch, shuffled, without printing."""

    def __init__(self, job: Job):
        keras.utils.set_random_seed(0)
        backend = keras.backend.backend()
        self.job, self.device = job, _setup(backend)
        self.version = f"keras {keras.__version__}, {backend}"
        self.images = job.load().astype(np.float32) / 255
        self.model = _VAE(job, self.images.shape[1:])
        self.model(self.images[: job.batch_size])
        self.model.compile(optimizer=keras.optimizers.Adam(job.learning_rate))

    def train(self) -> tuple[float, float]:
        """One epoch: seconds, and mean loss in nats an image."""
        start = time.perf_counter()
        history = self.model.fit(self.images, batch_size=self.job.batch_size, epochs=1, shuffle=True, verbose=0)
        return time.perf_counter() - start, float(history.history["loss"][0])  # a float: the device is done

    def held_out(self) -> float:
        """Mean loss of the images that are not trained on, one latent sample each, in nats an image."""
        images = self.job.load_held_out().astype(np.float32) / 255
        return float(self.model.evaluate(images, batch_size=self.job.batch_size, verbose=0))


def _setup(backend: str) -> str:
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads())
        tf.config.threading.set_inter_op_parallelism_threads(threads())
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)
        return "gpu" if tf.config.list_physical_devices("GPU") else "cpu"
    if backend == "torch":
        import torch

        torch.set_num_threads(threads())
        return "cuda" if torch.cuda.is_available() else "cpu"
    import jax

    return jax.default_backend()
