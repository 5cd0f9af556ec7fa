"""Noise on images, for denoising autoencoders and for measuring them (Vincent et al. 2010, section 3.3)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from vae_jax.errors import UsageError


def corrupt(
    x: Float[Array, "batch height width channels"],
    kind: str,
    level: Float[Array, ""] | float,
    keys: Key[Array, " batch"],
) -> Float[Array, "batch height width channels"]:
    """Images with noise.

    Args:
        x: pixels in [0, 1].
        kind: "none"; "gaussian", which may leave [0, 1]; "gaussian_clipped" to [0, 1]; "salt_and_pepper", which
            sets values to 0 or 1, each with probability one half; "masking", which sets them to 0.
        level: standard deviation of the Gaussian noise; for the others the probability that a value is replaced.
        keys: one key an example, so that its noise depends neither on its batch nor on the device.
    """
    if kind == "none":
        return x
    if kind in ("gaussian", "gaussian_clipped"):
        noisy = x + level * jax.vmap(lambda key: jax.random.normal(key, x.shape[1:]))(keys)
        return noisy if kind == "gaussian" else jnp.clip(noisy, 0.0, 1.0)
    u = jax.vmap(lambda key: jax.random.uniform(key, x.shape[1:]))(keys)
    if kind == "salt_and_pepper":
        return jnp.where(u >= level, x, (u < 0.5 * level).astype(x.dtype))
    if kind == "masking":
        return jnp.where(u >= level, x, 0.0)
    raise UsageError(
        f"--corruption must be none, gaussian, gaussian_clipped, salt_and_pepper or masking, got {kind!r}."
    )


def noise_keys(keys: Key[Array, " batch"]) -> Key[Array, " batch"]:
    """The keys of the noise on the input of examples whose latents have these keys."""
    # The latent's own samples are folded in from 0 upward.
    return jax.vmap(lambda key: jax.random.fold_in(key, 2**32 - 1))(keys)
