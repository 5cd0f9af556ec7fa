"""What a model sees of an image: its pixels, binarised or with noise on them (Vincent et al. 2010, section 3.3)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt8

from vae_jax.errors import UsageError


def preprocess(
    images: UInt8[Array, "batch height width channels"],
    binarize: str = "none",
    keys: Key[Array, " batch"] | None = None,
) -> Float[Array, "batch height width channels"]:
    """Pixels as float32 in [0, 1], or binarised to 0 and 1.

    Args:
        images: bytes.
        binarize: "none"; "threshold" at one half; or "dynamic", which draws each pixel anew, 1 with its value
            as the probability (Salakhutdinov & Murray 2008).
        keys: for "dynamic", one key an example.
    """
    pixels = images.astype(jnp.float32) / 255
    if binarize == "none":
        return pixels
    if binarize == "threshold":
        return (pixels >= 0.5).astype(jnp.float32)
    if binarize != "dynamic" or keys is None:
        raise UsageError(f"--binarize must be none, threshold, or dynamic with one key an example, got {binarize!r}.")
    return jax.vmap(jax.random.bernoulli)(keys, pixels).astype(jnp.float32)


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
