"""What a trained model is worth on held-out images: the same bound as in training, never beta, fixed keys.

An example's noise depends on the key and its position only, not on the batch size.
"""

import dataclasses
import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key, UInt8

from vae_jax.data.stored import PIECE_BYTES, StoredImages
from vae_jax.models.autoencoders import AnyModel, Parameters, VariationalAutoencoder
from vae_jax.models.chunks import ROWS
from vae_jax.models.distributions import DiagonalGaussian
from vae_jax.models.inputs import corrupt, noise_keys, preprocess
from vae_jax.models.objectives import importance_weighted_bound

ByteImages = UInt8[Array | np.ndarray | StoredImages, "n height width channels"]
"""Pixels 0..255."""
INACTIVE_NATS = 0.01
"""A latent dimension with less KL than this, on average over the data, is inactive."""
POINT_SIGMA = 0.01
"""Posteriors narrower than this share of their means' spread are taken for points."""


class ImageLosses(NamedTuple):
    """What evaluation measures of each image, in nats; for squared error in squared intensity."""

    reconstruction: Float[np.ndarray, " n"]
    """Mean over the latent samples."""
    kl: Float[np.ndarray, " n"]
    bound: Float[np.ndarray, " n"]
    """Importance-weighted lower bound of log p(x) from all the samples (Burda et al. 2015)."""


def image_losses(
    model: AnyModel,
    params: Parameters,
    images: ByteImages,
    key: Key[Array, ""],
    *,
    samples: int = 16,
    binarize: str = "none",
    corruption: str = "none",
    corruption_level: float = 0.0,
) -> ImageLosses:
    """Losses of each image of a set.

    Args:
        model: the model.
        params: its parameters.
        images: uint8 [n, height, width, channels].
        key: decides the latent samples, dynamic binarisation and noise.
        samples: latent samples an image; an autoencoder needs one.
        binarize: none, threshold or dynamic.
        corruption: noise on what the encoder sees, as in `vae_jax.models.inputs`.
        corruption_level: how much of it.
    """
    samples = samples if isinstance(model, VariationalAutoencoder) else 1
    seen = _Seen(binarize, corruption)
    return ImageLosses(*_in_batches(_bound, model, params, images, key, samples, seen, corruption_level))


def evaluate(
    model: AnyModel,
    params: Parameters,
    images: ByteImages,
    key: Key[Array, ""],
    *,
    samples: int = 16,
    binarize: str = "none",
    corruption: str = "none",
    corruption_level: float = 0.0,
) -> dict[str, float]:
    """Mean loss of a set of images: reconstruction + KL, the negative evidence lower bound of a VAE.

    Arguments are those of `image_losses`.

    Returns:
        Means over the images: "loss", "reconstruction", "kl"; in nats, for squared error in squared intensity.
    """
    losses = image_losses(
        *(model, params, images, key),
        samples=samples,
        binarize=binarize,
        corruption=corruption,
        corruption_level=corruption_level,
    )
    return mean_loss(losses)


def mean_loss(losses: ImageLosses) -> dict[str, float]:
    """Means over the images: "loss", "reconstruction", "kl"."""
    means = {"reconstruction": float(np.mean(losses.reconstruction)), "kl": float(np.mean(losses.kl))}
    return {"loss": means["reconstruction"] + means["kl"], **means}


def importance_weighted_nll(
    model: VariationalAutoencoder,
    params: Parameters,
    images: ByteImages,
    key: Key[Array, ""],
    *,
    samples: int = 5000,
    binarize: str = "none",
) -> float:
    """Mean upper bound of -log p(x) in nats from `samples` importance samples an image (Burda et al. 2015)."""
    return -float(np.mean(image_losses(model, params, images, key, samples=samples, binarize=binarize).bound))


def encode_images(
    model: AnyModel,
    params: Parameters,
    images: ByteImages,
    key: Key[Array, ""],
    *,
    binarize: str = "none",
) -> tuple[np.ndarray, np.ndarray | None]:
    """Posterior means and log variances of images, float32 [n, latent] each; codes and None for an autoencoder."""
    mean, logvar = _in_batches(_encode, model, params, images, key, 1, _Seen(binarize, "none"), 0.0)
    return mean, logvar if isinstance(model, VariationalAutoencoder) else None


def as_evaluated(
    images: UInt8[Array, "batch height width channels"], indices: Array, key: Key[Array, ""], binarize: str
) -> tuple[Float[Array, "batch height width channels"], Key[Array, " batch"]]:
    """What evaluation feeds the model for images at these positions: pixels in [0, 1], and a key for each latent."""
    keys = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(key, i)))(indices)
    return preprocess(images, binarize, keys[:, 0]), keys[:, 1]


def active_units(means: Float[np.ndarray, "n latent"], threshold: float = 0.01) -> Bool[np.ndarray, " latent"]:
    """Which dimensions have a posterior mean whose variance over the data exceeds 0.01 (Burda et al. 2015)."""
    return np.var(means.astype(np.float64), axis=0) > threshold


def diagnose(kl_per_dimension: Float[np.ndarray, " latent"], relative_sigma: float, beta: float) -> str:
    """What the latent dimensions of a VAE are used for, in words, with what to try where they are not.

    Args:
        kl_per_dimension: mean KL divergence to the prior of each dimension, in nats.
        relative_sigma: median standard deviation of the posteriors over the standard deviation of their means.
        beta: weight of the KL term in training.
    """
    number = len(kl_per_dimension)
    inactive = int(np.sum(kl_per_dimension < INACTIVE_NATS))
    if relative_sigma < POINT_SIGMA and inactive < number:
        return (
            f"The posteriors have shrunk to points (sigma {relative_sigma:.1%} of the means' spread), as in an AE: "
            f"the prior says little of where they lie. Try a --beta above {beta:g}; 1 is the evidence lower bound."
        )
    if inactive == 0:
        return "1 dimension is active." if number == 1 else f"All {number} dimensions are active."
    smaller = f"a --beta below {beta:g}, " if beta > 0 else ""
    if inactive == number:
        return (
            f"All {number} dimensions are inactive, the posterior has collapsed to the prior: every image decodes to "
            f"the same one. Try {smaller}--kl-warmup-steps of a few epochs, --free-bits 0.1, or a smaller decoder."
        )
    verb = "dimension is" if inactive == 1 else "dimensions are"
    return (
        f"{inactive} of {number} {verb} inactive: below {INACTIVE_NATS} nats of KL, so decoded as if absent. "
        f"That costs nothing; to use more, try {smaller}--kl-warmup-steps of a few epochs or --free-bits 0.1."
    )


@dataclasses.dataclass(frozen=True)
class _Seen:
    # What the model sees of an image.
    binarize: str
    corruption: str


def _bound(
    model: AnyModel, params: Parameters, x: Array, inputs: Array, keys: Array, samples: int
) -> tuple[Array, Array, Array]:
    # Per example: mean reconstruction loss over the samples, KL, importance-weighted bound.
    if not isinstance(model, VariationalAutoencoder):
        terms = model.loss_terms(params, x, inputs=inputs)
        return terms.reconstruction, terms.kl, -terms.reconstruction
    posterior = model.encode(params, inputs)
    zeros = jnp.zeros_like(posterior.mean)
    prior = DiagonalGaussian(zeros, zeros)

    def one_sample(index: Array) -> tuple[Array, Array]:
        z = posterior.sample(jax.vmap(jax.random.fold_in, (0, None))(keys, index))
        loss = model.likelihood.reconstruction_loss(model.decode(params, z), x)
        return loss, prior.log_prob(z) - posterior.log_prob(z) - loss

    losses, log_weights = jax.lax.map(one_sample, jnp.arange(samples))
    return jnp.mean(losses, axis=0), posterior.kl(), importance_weighted_bound(log_weights)


def _encode(
    model: AnyModel, params: Parameters, x: Array, inputs: Array, keys: Array, samples: int
) -> tuple[Array, Array]:
    posterior = model.encode(params, inputs)
    if isinstance(posterior, DiagonalGaussian):
        return posterior.mean, posterior.logvar
    return posterior, jnp.zeros_like(posterior)


def _in_batches(
    function: Any,
    model: AnyModel,
    params: Parameters,
    images: Any,
    key: Array,
    samples: int,
    seen: _Seen,
    level: float,
) -> tuple[np.ndarray, ...]:
    # Pad to whole batches with the last image, run one compiled scan, drop the padding on the host. Images on the host
    # go to the device in pieces of one length; the last starts early enough to be as long, and the overlap is dropped.
    number = len(images)
    size = min(model.chunk or ROWS, number)
    length = number
    if not isinstance(images, jax.Array):
        length = min(number, size * max(1, PIECE_BYTES // (size * math.prod(images.shape[1:]))))
    places = jnp.asarray(np.minimum(np.arange(-(-length // size) * size), length - 1).reshape(-1, size))
    results = []
    for start in range(0, number, length):
        first = min(start, number - length)
        piece = images[first : first + length]
        arguments = (params, piece, places, jnp.int32(first), key, jnp.float32(level))
        values = _scan_batches(function, model, samples, seen, *arguments)
        results.append([np.asarray(v).reshape(-1, *v.shape[2:])[start - first : length] for v in values])
    return tuple(np.concatenate(parts) for parts in zip(*results, strict=True))


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _scan_batches(
    function: Any,
    model: AnyModel,
    samples: int,
    seen: _Seen,
    params: Parameters,
    images: Array,
    places: Array,
    first: Array,
    key: Array,
    level: Array,
) -> Any:
    def body(_: None, batch: Array) -> tuple[None, Any]:
        x, keys = as_evaluated(images[batch], first + batch, key, seen.binarize)
        inputs = corrupt(x, seen.corruption, level, noise_keys(keys))
        return None, function(model, params, x, inputs, keys, samples)

    return jax.lax.scan(body, None, places)[1]
