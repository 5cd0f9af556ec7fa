"""What a model sees of an image: its pixels, binarised or with noise on them (Vincent et al. 2010, section 3.3).

In training the image itself may be mirrored or shifted before that.
"""

import math
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt8

from vae_jax.data.checks import as_array, as_floats, as_images
from vae_jax.domains import as_declared
from vae_jax.errors import UsageError

Bytes: TypeAlias = UInt8[Array, "batch height width channels"]
Floats: TypeAlias = Float[Array, "batch height width channels"]


def as_image_shape(image_shape: Any) -> tuple[int, int, int]:
    """The shape of an image as a model has it, from any sequence.

    Raises:
        UsageError: it is no height, width and channels.
    """
    shape = as_declared(image_shape, tuple[int, ...])  # as a model has to be hashable, whatever sequence was given
    if not (isinstance(shape, tuple) and len(shape) == 3 and all(type(side) is int and side > 0 for side in shape)):
        raise UsageError(f"image_shape must be (height, width, channels), integers above 0, got {image_shape!r}.")
    return shape


def as_pixels(x: Any, image_shape: tuple[int, int, int]) -> Float[Array, "batch height width channels"]:
    """Images as a model takes them: floats as they are, all else as `as_images` converts it, over 255.

    Noise takes floats out of [0, 1], so only those are refused that must be another scale: none is negative, and one
    is above 2. Values that are traced pass by their shape and type.

    Raises:
        UsageError: they have another shape or type, or floats that are no pixels.
    """
    traced = isinstance(x, jax.core.Tracer)
    if not isinstance(x, jax.Array):
        x = np.asarray(as_array(x))
    if len(x.shape) != 4 or x.shape[1:] != tuple(image_shape) or 0 in x.shape:
        raise UsageError(f"images must be [batch, {', '.join(map(str, image_shape))}], got {x.shape}.")
    floats = jnp.issubdtype(x.dtype, jnp.floating)
    if not floats and x.dtype not in (np.uint8, bool):
        if traced:
            raise UsageError(f"images must be bytes, or floats in [0, 1], got {x.dtype}. Convert them.")
        x = as_images(x)
    elif floats and not traced and x.size:
        low, high = float(np.min(np.asarray(x))), float(np.max(np.asarray(x)))  # NaN where there is one
        if not (math.isfinite(low) and math.isfinite(high)) or (low >= 0 and high > 2):
            raise UsageError(
                f"images of type {x.dtype} must lie in [0, 1], got values from {low:g} to {high:g}.\n"
                "Give bytes as they are, or scale them first; NaN and infinity are not allowed."
            )
    x = jnp.asarray(x)
    return x if floats else x.astype(jnp.float32) / (1 if x.dtype == bool else 255)


def preprocess(
    images: Bytes,
    binarize: str = "none",
    keys: Key[Array, " batch"] | None = None,
) -> Floats:
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


def augment(images: Bytes | Floats, kinds: tuple[str, ...], keys: Key[Array, " batch"]) -> Bytes | Floats:
    """Images changed as if they had been taken a little differently.

    Args:
        images: bytes.
        kinds: "flip", left and right exchanged with probability one half; "crop", shifted along each side by as many
            pixels as fall, each number alike, up to an eighth of the side and at least 1, with the edge repeated.
        keys: one key an example. What one kind does to it does not depend on the other.
    """
    for number, (kind, change) in enumerate(_AUGMENTATIONS.items()):
        if kind in kinds:
            images = jax.vmap(change)(images, jax.vmap(jax.random.fold_in, (0, None))(keys, number))
    return images


def _flip(image: Array, key: Array) -> Array:
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def _crop(image: Array, key: Array) -> Array:
    most = [max(1, side // 8) for side in image.shape[:2]]
    padded = jnp.pad(image, [*((number, number) for number in most), (0, 0)], mode="edge")
    starts = [jax.random.randint(k, (), 0, 2 * m + 1) for k, m in zip(jax.random.split(key), most, strict=True)]
    return jax.lax.dynamic_slice(padded, (*starts, 0), image.shape)


_AUGMENTATIONS = {"flip": _flip, "crop": _crop}


class Batch(NamedTuple):
    """The examples of a step as the model meets them, a pytree."""

    x: Float[Array, "batch height width channels"]
    """What the loss compares with: pixels in [0, 1]."""
    inputs: Float[Array, "batch height width channels"]
    """What the encoder sees."""
    keys: Key[Array, " batch"]
    """Of each example's latent sample."""
    weights: Float[Array, " batch"]
    """1 for an example, 0 for padding."""
    indices: Int[Array, " batch"]
    """Position of each example in the data set."""
    labels: Int[Array, " batch"] | None = None
    """Its class, where there are classes."""


class Inputs(NamedTuple):
    """From bytes and keys to what the encoder sees and what the loss compares with; in training and in evaluation.

    Or from floats of any range, such as the rows of a table, which are taken as they are.

    Training alone begins with `augmented`.
    """

    binarize: str = "none"
    corruption: str = "none"
    corruption_level: Any = 0.0
    augment: tuple[str, ...] = ()
    floats: bool = False
    """Whether the values are such floats, as of `Split.of_floats`, in place of bytes."""

    @classmethod
    def from_settings(cls, settings: Any) -> "Inputs":
        """As the settings describe."""
        return cls(settings.binarize, settings.corruption, settings.corruption_level, settings.augment)

    def checked(self, images: Any, image_shape: tuple[int, int, int]) -> Any:
        """Images, or values, of any kind as `batch` takes them; a UsageError for what are none."""
        return (as_floats if self.floats else as_images)(images, image_shape=image_shape)

    def check_type(self, dtype: Any) -> None:
        """Refuse, by a UsageError, floats in place of bytes, and bytes in place of floats."""
        if np.issubdtype(dtype, np.floating) != self.floats:
            kind = "floats" if self.floats else "bytes"
            raise UsageError(
                f"Inputs(floats={self.floats}) must be given {kind}, got {dtype}.\n"
                "Give inputs=Inputs(floats=True) with Split.of_floats(values), and with it alone."
            )

    def augmented(self, images: Bytes | Floats, indices: Int[Array, " batch"], key: Key[Array, ""]) -> Bytes | Floats:
        """The images to train on in place of these, by the key and the index of each alone."""
        if not self.augment:
            return images
        own = jax.random.fold_in(key, 2**32 - 1)  # which is no index
        return augment(images, self.augment, jax.vmap(jax.random.fold_in, (None, 0))(own, indices))

    def batch(
        self,
        images: Bytes | Floats,
        indices: Int[Array, " batch"],
        key: Key[Array, ""],
        weights: Float[Array, " batch"] | None = None,
        labels: Int[Array, " batch"] | None = None,
    ) -> Batch:
        """The batch of these images; an example's noise depends on the key and its index alone."""
        self.check_type(images.dtype)
        if self.floats and self.binarize != "none":
            raise UsageError(
                f"binarize must be none with floats=True, got {self.binarize!r}. Binarise the values before."
            )
        keys = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(key, i)))(indices)
        x = images if self.floats else preprocess(images, self.binarize, keys[:, 0])
        # The latent's own samples are folded in from 0 upward.
        noise = jax.vmap(lambda key: jax.random.fold_in(key, 2**32 - 1))(keys[:, 1])
        inputs = corrupt(x, self.corruption, self.corruption_level, noise)
        weights = jnp.ones(len(images)) if weights is None else weights
        return Batch(x, inputs, keys[:, 1], weights, indices, labels)
