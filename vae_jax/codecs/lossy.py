"""Lossy compression with a trained autoencoder: latents, quantised and entropy-coded under a fitted prior.

Transform coding (Goyal, "Theoretical foundations of transform coding", 2001; with networks: Ballé, Laparra &
Simoncelli, "End-to-end optimized image compression", 2017):

1. Transform. The decoder's mean squared Jacobian tells how far the image moves with the latent. In coordinates where
   this metric is the identity and the training codes are uncorrelated, equal steps cost equal distortion: one step
   serves every dimension, and a latent that the decoder ignores costs no bits. For a linear decoder with orthonormal
   columns (PCA) this is the Karhunen-Loève transform.
2. Quantisation to the grid of that step, with a point at the mean.
3. Entropy coding under a mixture of histograms (`vae_jax.codecs.entropy_coding`): classes by k-means, their
   number chosen on validation codes, one prior for each quality.

The same codec serves an autoencoder's codes, a VAE's posterior means and PCA's coefficients.
"""

import math
import warnings
from functools import partial
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from vae_jax.codecs.entropy_coding import LARGEST_SYMBOL, Prior, Symbols, code_lengths, fit_prior
from vae_jax.models.autoencoders import AnyModel, Parameters
from vae_jax.models.jacobian import decoder_jacobian

Codes: TypeAlias = Float[np.ndarray, "n latent"]
Metric: TypeAlias = Float[np.ndarray, "latent latent"]
ByteImages: TypeAlias = UInt8[np.ndarray, "n height width channels"]

QUALITIES = range(1, 9)
"""From the smallest file to the best image."""
_CLASS_NUMBERS = (1, 8, 32, 128)
_FEWEST_IN_CLASS = 40  # codes on average, so that a class's histograms say more than the common ones
_MOST_CLUSTERED = 20_000
_MOST_JACOBIANS, _FEWEST_JACOBIANS = 512, 4
_MOST_VALUES = 2**24  # of the Jacobians that are worked out at once
_BATCH = 256


class Transform(NamedTuple):
    """Latents to coordinates in which a unit step changes the image by an RMS of 1, the range of a pixel."""

    mean: Float[np.ndarray, " latent"]
    analysis: Float[np.ndarray, "latent latent"]
    """y = (z - mean) @ analysis."""
    synthesis: Float[np.ndarray, "latent latent"]
    """z = y @ synthesis + mean."""


class Codec(NamedTuple):
    """All that stands between latents and bytes."""

    transform: Transform
    priors: tuple[Prior, ...]
    """One for each of QUALITIES."""

    def prior(self, quality: int) -> Prior:
        """That of a quality."""
        return self.priors[quality - QUALITIES.start]


def step_of(quality: int) -> float:
    """Quantisation step as an RMS change of the image, where pixels lie in [0, 1]; it halves every two qualities."""
    return 0.1 * 2 ** (-(quality - 1) / 2)


def decoder_metric(model: AnyModel, params: Parameters, codes: Codes) -> Metric:
    """Mean of J^T J / pixels over (at most 512, evenly chosen) codes, where J is the decoded mean's Jacobian.

    Of large Jacobians there are fewer, 4 at least.
    """
    size = math.prod(model.image_shape) * model.latent_dim
    most = min(_MOST_JACOBIANS, max(_FEWEST_JACOBIANS, 16 * _MOST_VALUES // size))
    chosen = codes[:: -(-len(codes) // most)]
    return np.mean(np.asarray(_squared_jacobians(model, params, chosen), np.float64), axis=0)


def fit_transform(codes: Codes, metric: Metric) -> Transform:
    """The transform that makes the metric the identity and the codes uncorrelated, the largest variance first.

    Args:
        codes: of training images, [n, latent].
        metric: positive semidefinite, [latent, latent]: from `decoder_metric`; of PCA the identity / pixels.
    """
    mean = codes.mean(axis=0, dtype=np.float64)
    # A ridge, so that the way back exists where the decoder ignores a latent.
    ridge = 1e-6 * max(float(np.trace(metric)) / len(metric), 1e-12)
    root = np.linalg.cholesky(metric + ridge * np.eye(len(metric)))
    centred = (codes - mean) @ root
    _, rotation = np.linalg.eigh(centred.T @ centred)
    analysis = root @ rotation[:, ::-1]
    return Transform(*(array.astype(np.float32) for array in (mean, analysis, np.linalg.inv(analysis))))


def quantise(codes: Codes, transform: Transform, step: float) -> Symbols:
    """Codes to the nearest points of the grid, int64 [n, latent], at most +-LARGEST_SYMBOL.

    Raises:
        ValueError: a code is not finite.
    """
    if not np.all(np.isfinite(codes)):
        raise ValueError("codes must be finite, got NaN or infinity from the encoder")
    y = (codes.astype(np.float64) - transform.mean) @ transform.analysis.astype(np.float64)
    return np.clip(np.rint(y / step), -LARGEST_SYMBOL, LARGEST_SYMBOL).astype(np.int64)


def dequantise(symbols: Symbols, transform: Transform, step: float) -> Codes:
    """Points of the grid to codes, float32 [n, latent]."""
    y = step * symbols.astype(np.float64)
    return (y @ transform.synthesis.astype(np.float64) + transform.mean).astype(np.float32)


def fit_codec(train: Codes, validation: Float[np.ndarray, "m latent"], metric: Metric) -> Codec:
    """Fit the transform and a prior for each quality; the number of classes is chosen on the validation codes.

    Args:
        train: codes of training images, [n, latent].
        validation: codes of other images, [m, latent].
        metric: as in `fit_transform`.
    """
    transform = fit_transform(train, metric)
    symbols = [quantise(train, transform, step_of(quality)) for quality in QUALITIES]
    middle = len(symbols) // 2
    held_out = quantise(validation, transform, step_of(QUALITIES[middle]))

    def bits(labels: np.ndarray) -> float:
        prior = fit_prior(symbols[middle], labels, int(labels.max()) + 1)
        return float(code_lengths(held_out, prior).min(axis=1).mean())

    y = (train - transform.mean) @ transform.analysis
    numbers = [k for k in _CLASS_NUMBERS if k == 1 or len(train) >= _FEWEST_IN_CLASS * k]
    labels = min((_cluster(y, number) for number in numbers), key=bits)
    return Codec(transform, tuple(fit_prior(each, labels, int(labels.max()) + 1) for each in symbols))


def decode_codes(model: AnyModel, params: Parameters, codes: Codes) -> ByteImages:
    """Decoded images as bytes, rounded to the nearest."""
    # Batches of one shape whatever the number of images: one compilation, and an image's bits do not depend on
    # how many are decoded with it.
    images = np.empty((len(codes), *model.image_shape), np.uint8)
    for start in range(0, len(codes), _BATCH):
        batch = codes[start : start + _BATCH]
        padded = np.concatenate([batch, np.zeros((_BATCH - len(batch), codes.shape[1]), np.float32)])
        images[start : start + _BATCH] = np.asarray(_decode_bytes(model, params, padded))[: len(batch)]
    return images


def _cluster(y: np.ndarray, number: int) -> np.ndarray:
    if number == 1:
        return np.zeros(len(y), np.int64)
    with warnings.catch_warnings():
        # Fewer different codes than classes: the classes left over stay empty, and the validation codes decide.
        warnings.simplefilter("ignore", ConvergenceWarning)
        means = KMeans(number, n_init=1, max_iter=20, random_state=0).fit(y[:_MOST_CLUSTERED])
    return means.predict(y).astype(np.int64)


@partial(jax.jit, static_argnums=0)
def _squared_jacobians(model: AnyModel, params: Parameters, codes: Array) -> Array:
    def one(z: Array) -> Array:
        jacobian = decoder_jacobian(model, params, z)
        return jacobian.T @ jacobian / len(jacobian)

    size = math.prod(model.image_shape) * model.latent_dim
    return jax.lax.map(one, codes, batch_size=min(32, max(1, _MOST_VALUES // size)))


@partial(jax.jit, static_argnums=0)
def _decode_bytes(model: AnyModel, params: Parameters, codes: Array) -> Array:
    return jnp.rint(jnp.clip(model.decode_mean(params, codes), 0, 1) * 255).astype(jnp.uint8)
