"""What may be asked of a run's latents: codes to decode, how many to draw, how far they spread."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vae_jax.domains import as_declared
from vae_jax.errors import UsageError
from vae_jax.models.autoencoders import Parameters
from vae_jax.training.streaming import memory_bytes

_BYTES = 16  # of a pixel while it is generated: a few copies in float32


def as_latents(codes: Any, latent_dim: int) -> Float[np.ndarray, "n latent"]:
    """Codes as float32.

    Raises:
        UsageError: they are of another shape, or not finite.
    """
    try:
        latents = np.asarray(codes, np.float32)
        good = latents.ndim == 2 and latents.shape[1] == latent_dim and np.isfinite(latents).all()
    except (TypeError, ValueError):
        good = False
    if not good:
        found = f" of shape {codes.shape}" if hasattr(codes, "shape") else ""
        raise UsageError(f"codes must be finite numbers [n, {latent_dim}], got {str(codes)[:60]!r}{found}.")
    return latents


def checked_number(number: Any, image_shape: tuple[int, int, int]) -> int:
    """How many images to make.

    Raises:
        UsageError: it is no number of them, or more than the memory holds.
    """
    number = as_declared(number, int)
    most = memory_bytes(jax.local_devices()[0]) // (_BYTES * math.prod(image_shape))
    if type(number) is not int or not 1 <= number <= most:
        raise UsageError(
            f"number must be an integer of at least 1 and, for the memory, at most {most}, got {number!r}."
        )
    return number


def checked_temperature(temperature: Any) -> Float[Array, ""]:
    """A temperature as an argument of what is compiled.

    Raises:
        UsageError: it is no finite number of at least 0.
    """
    temperature = as_declared(temperature, float)
    if not (isinstance(temperature, int | float) and 0 <= temperature < math.inf):
        raise UsageError(f"temperature must be a finite number of at least 0, got {temperature!r}.")
    return jnp.float32(temperature)


@partial(jax.jit, static_argnums=(0, 1, 2))
def drawn(model: Any, method: str, number: int, params: Parameters, key: Array, **options: Array) -> Array:
    """What `method` of a model, draw or generate, makes of so many draws."""
    return getattr(model, method)(params, key, number, **options)
