"""Noise taken out of images: trained denoisers, two filters and the best linear estimator, in PSNR and SSIM.

Every estimate is clipped to [0, 1], where clean pixels lie; noisy images are measured as they are.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from scipy import linalg, ndimage

from vae_jax.data.checks import as_images
from vae_jax.measures.images import ssim
from vae_jax.models.autoencoders import AnyModel, Parameters
from vae_jax.models.chunks import ROWS, in_chunks
from vae_jax.models.inputs import corrupt
from vae_jax.models.quality import Images, psnr

WIDTHS = tuple(round(0.1 * i, 1) for i in range(3, 21))
"""Standard deviations of the Gaussian filter, in pixels, to choose from."""


def mean_quality(clean: Images, estimate: Images) -> dict[str, float]:
    """How close estimates are to the clean images: mean "psnr" in dB and, from 3 x 3 pixels on, mean "ssim"."""
    found = {"psnr": psnr(clean, estimate)}
    if min(clean.shape[1:3]) >= 3:
        found["ssim"] = ssim(clean, estimate)
    return {name: float(np.mean(values)) for name, values in found.items()}


def corrupt_images(images: Any, kind: str, level: float, key: Key[Array, ""]) -> Images:
    """Images with noise, float32; an image's noise depends on the key and its position alone.

    Args:
        images: of any kind that `as_images` takes.
        kind: as in `vae_jax.models.inputs.corrupt`.
        level: standard deviation of the Gaussian noise, or share of the values that are replaced.
        key: decides the noise.

    Raises:
        UsageError: there is no such kind.
    """
    return np.asarray(_corrupt_images(kind, as_images(images), jnp.float32(level), key))


@partial(jax.jit, static_argnums=0)
def _corrupt_images(kind: str, images: Array, level: Array, key: Array) -> Array:
    def corrupted(x: Array, position: Array) -> Array:
        keys = jax.vmap(partial(jax.random.fold_in, key))(position)
        return corrupt(x.astype(jnp.float32) / 255, kind, level, keys)

    return in_chunks(corrupted, ROWS, images, jnp.arange(len(images)))


def denoise(model: AnyModel, params: Parameters, noisy: Images) -> Images:
    """What a model makes of noisy images: the expected image of their codes or posterior means, clipped to [0, 1]."""
    return np.clip(np.asarray(_denoise(model, params, jnp.asarray(noisy, jnp.float32))), 0, 1)


@partial(jax.jit, static_argnums=0)
def _denoise(model: AnyModel, params: Parameters, noisy: Array) -> Array:
    def one(x: Array) -> Array:
        return model.decode_mean(params, model.latents(params, x))

    return in_chunks(one, model.rows, noisy)


def gaussian_filter(noisy: Images, width: float) -> Images:
    """Convolved with a Gaussian of this standard deviation in pixels, clipped to [0, 1]; the border is mirrored."""
    return np.clip(ndimage.gaussian_filter(noisy, (0, width, width, 0)), 0, 1)


def median_filter(noisy: Images, size: int = 3) -> Images:
    """The median of size x size pixels around each, clipped to [0, 1]; the border is mirrored."""
    return np.clip(ndimage.median_filter(noisy, (1, size, size, 1)), 0, 1)


def best_width(clean: Images, noisy: Images, widths: Sequence[float] = WIDTHS) -> float:
    """The width of the Gaussian filter that gives these images the largest mean PSNR: validation images, not test."""
    return max(widths, key=lambda width: float(np.mean(psnr(clean, gaussian_filter(noisy, width)))))


@dataclasses.dataclass(frozen=True)
class LinearMMSE:
    """The linear estimator with the least mean squared error: x' = E[x] + Cov(x, y) Cov(y)^+ (y - E[y]).

    For noise that is added independently it is the Wiener filter (Wiener 1949), here not restricted to be the same
    at every pixel.
    """

    weight: Float[np.ndarray, "pixels pixels"]
    mean: Float[np.ndarray, " pixels"]
    noisy_mean: Float[np.ndarray, " pixels"]

    @classmethod
    def fit(cls, clean: Images, noisy: Images) -> "LinearMMSE":
        """Fit to pairs of clean and noisy images, [n, height, width, channels] each, in float64: of the train split.

        With the pseudo-inverse, so that pixels that never change get no weight.
        """
        x, y = (images.reshape(len(images), -1) for images in (clean, noisy))
        mean, noisy_mean = (np.mean(images, axis=0, dtype=np.float64) for images in (x, y))
        pixels = x.shape[1]
        cross, own = np.zeros((2, pixels, pixels))
        for start in range(0, len(x), 10 * ROWS):
            part = slice(start, start + 10 * ROWS)
            centred = y[part] - noisy_mean
            cross += (x[part] - mean).T @ centred
            own += centred.T @ centred
        return cls(cross @ linalg.pinvh(own), mean, noisy_mean)

    def __call__(self, noisy: Images) -> Images:
        """Estimates in float64, clipped to [0, 1]."""
        y = noisy.reshape(len(noisy), -1)
        estimate = self.mean + (y - self.noisy_mean) @ self.weight.T
        return np.clip(estimate.reshape(noisy.shape), 0, 1)
