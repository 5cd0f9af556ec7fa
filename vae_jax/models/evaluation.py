"""What a trained model is worth on held-out images: the same bound as in training, never beta, fixed keys.

An example's noise depends on the key and its position only, not on the batch size.
"""

import contextlib
import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from vae_jax.data.stored import PIECE_BYTES
from vae_jax.errors import UsageError
from vae_jax.models.autoencoders import AnyModel, Parameters
from vae_jax.models.chunks import in_pieces
from vae_jax.models.conditions import Labels, check_labels
from vae_jax.models.inputs import Batch, Inputs
from vae_jax.models.objectives import importance_weighted_bound
from vae_jax.models.quality import bits_per_dim, has_bits_per_dim
from vae_jax.models.shapes import check_model

ByteImages = Any
"""Images of any kind that `vae_jax.data.checks.as_images` takes: bytes, floats in [0, 1], booleans."""
AnyKey = Any
"""One key, such as jax.random.key(0), also of the old kind: jax.random.PRNGKey(0)."""
AnyLabels = Int[np.ndarray | Array, " n"] | None
AS_THEY_ARE = Inputs()
BATCHES = 10
"""In one call of a compiled program, at most."""


class ImageLosses(NamedTuple):
    """What evaluation measures of each image, in nats; for squared error in squared intensity."""

    reconstruction: Float[np.ndarray, " n"]
    """Mean over the latent samples."""
    kl: Float[np.ndarray, " n"]
    """Mean over the latent samples, where the prior has no closed form."""
    bound: Float[np.ndarray, " n"]
    """Importance-weighted lower bound of log p(x) from all the samples (Burda et al. 2015)."""


def image_losses(
    model: AnyModel,
    params: Parameters,
    images: ByteImages,
    key: AnyKey,
    *,
    samples: int = 16,
    inputs: Inputs = AS_THEY_ARE,
    labels: AnyLabels = None,
) -> ImageLosses:
    """Losses of each image of a set; arguments and errors as of `evaluate`.

    `inputs` are what the model sees of an image, and `labels` the classes, for a conditional model and
    for inputs that use them.
    """
    if samples < 1:
        raise UsageError(f"samples must be at least 1, got {samples}.")
    samples = samples if model.stochastic else 1
    return ImageLosses(*_in_batches(batch_losses, model, params, (images, labels), key, samples, inputs))


def evaluate(
    model: AnyModel,
    params: Parameters,
    images: ByteImages,
    key: AnyKey,
    *,
    samples: int = 16,
    binarize: str = "none",
    corruption: str = "none",
    corruption_level: float = 0.0,
    labels: AnyLabels = None,
) -> dict[str, float]:
    """Mean loss of a set of images: reconstruction + KL, the negative evidence lower bound of a VAE.

    Args:
        model: the model.
        params: its parameters.
        images: [n, height, width, channels]: bytes, or what is converted to them as in `load_dataset`.
        key: decides the latent samples, dynamic binarisation and noise.
        samples: latent samples an image; an autoencoder needs one.
        binarize: none, threshold or dynamic.
        corruption: noise on what the encoder sees, as in `vae_jax.models.inputs`.
        corruption_level: how much of it.
        labels: the classes [n] of the images, for a conditional model.

    Returns:
        Means over the images, as of `mean_loss`.

    Raises:
        UsageError: no sample, images of another shape than the model takes, or of no type that makes images.
    """
    inputs = Inputs(binarize, corruption, corruption_level)
    return mean_loss(model, image_losses(model, params, images, key, samples=samples, inputs=inputs, labels=labels))


def mean_loss(model: AnyModel, losses: ImageLosses) -> dict[str, float]:
    """Means over the images: "loss", "reconstruction", "kl"; in nats, for squared error in squared intensity.

    Of a bound for 8-bit pixels also "bits_per_dim", and its standard error "bits_per_dim_se" for more than one image.
    """
    means = {"reconstruction": float(np.mean(losses.reconstruction)), "kl": float(np.mean(losses.kl))}
    means = {"loss": means["reconstruction"] + means["kl"], **means}
    if has_bits_per_dim(model):
        means["bits_per_dim"] = bits_per_dim(model, means["loss"])
        each = bits_per_dim(model, losses.reconstruction.astype(np.float64) + losses.kl)
        if len(each) > 1:
            means["bits_per_dim_se"] = float(np.std(each, ddof=1) / math.sqrt(len(each)))
    return means


def importance_weighted_nll(
    model: AnyModel,
    params: Parameters,
    images: ByteImages,
    key: AnyKey,
    *,
    samples: int = 5000,
    inputs: Inputs = AS_THEY_ARE,
    labels: AnyLabels = None,
) -> float:
    """Mean upper bound of -log p(x) in nats from `samples` importance samples an image (Burda et al. 2015).

    Raises:
        UsageError: the model has no p(x).
    """
    check_bound(model)
    losses = image_losses(model, params, images, key, samples=samples, inputs=inputs, labels=labels)
    return -float(np.mean(losses.bound))


def check_bound(model: AnyModel) -> None:
    """Refuse, by a UsageError, a model for which an importance-weighted bound would bound nothing."""
    if not model.stochastic or model.likelihood.kind == "none":
        raise UsageError(
            f"--iwae-samples must be 0 for {model.name} and {type(model.likelihood).__name__}, which give no "
            "probability of an image.\nUse --model vae with a likelihood that is a density or a mass."
        )


def encode_images(
    model: AnyModel,
    params: Parameters,
    images: ByteImages,
    key: AnyKey,
    *,
    binarize: str = "none",
    inputs: Inputs | None = None,
    labels: AnyLabels = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Posterior means and log variances of images, float32 [n, latent] each; codes and None for an autoencoder.

    Args:
        model: the model.
        params: its parameters.
        images: as in `evaluate`.
        key: decides dynamic binarisation and noise.
        binarize: none, threshold or dynamic.
        inputs: what the model sees of an image, in place of `binarize`.
        labels: as in `evaluate`.
    """
    seen = Inputs(binarize) if inputs is None else inputs
    mean, *logvar = _in_batches(_encode, model, params, (images, labels), key, 1, seen)
    return mean, logvar[0] if logvar else None


def decode_latents(
    model: AnyModel, params: Parameters, z: Float[np.ndarray, "n latent"], labels: Labels = None
) -> Float[np.ndarray, "n height width channels"]:
    """Expected images for latents; of a conditional model by the labels."""
    if model.classes:
        labels = check_labels(labels, len(z), model.classes)
    given: Any = [np.asarray(z), *([] if labels is None else [np.asarray(labels)])]
    return in_pieces(partial(_decode, model, params), model.rows, *given)


@partial(jax.jit, static_argnums=0)
def _decode(model: AnyModel, params: Parameters, z: Array, labels: Array | None = None) -> Array:
    return model.decode_mean(params, z, labels)


def batch_losses(model: AnyModel, params: Parameters, batch: Batch, samples: int) -> tuple[Array, Array, Array]:
    """Of each example: mean reconstruction loss over the samples, KL, importance-weighted bound, [batch] each."""
    posterior = model.encode(params, batch.inputs, batch.labels)

    def one_sample(index: Array) -> tuple[Array, Array, Array]:
        z = posterior.sample(jax.vmap(jax.random.fold_in, (0, None))(batch.keys, index))
        loss = model.likelihood.reconstruction_loss(model.decode(params, z, batch.labels), batch.x)
        log_weight = model.log_prior(params, z, batch.labels) - posterior.log_prob(z) - loss
        return loss, model.kl(params, posterior, z, batch.labels), log_weight

    losses, kls, log_weights = jax.lax.map(one_sample, jnp.arange(samples))
    return jnp.mean(losses, axis=0), jnp.mean(kls, axis=0), importance_weighted_bound(log_weights)


def _encode(model: AnyModel, params: Parameters, batch: Batch, samples: int) -> tuple[Array, ...]:
    posterior = model.encode(params, batch.inputs, batch.labels)
    return tuple(part for part in (posterior.mean, posterior.logvar) if part is not None)


def _in_batches(
    function: Any, model: AnyModel, params: Parameters, data: tuple[Any, Any], key: AnyKey, samples: int, inputs: Inputs
) -> tuple[np.ndarray, ...]:
    # Pieces of one length, the last one filled up with its last image: one program serves any number of images.
    check_model(model)
    key = _as_key(key)
    images, labels = inputs.checked(data[0], model.image_shape), data[1]
    number = len(images)
    if model.classes:
        labels = check_labels(labels, number, model.classes)
    size = min(model.rows, 2 ** (number - 1).bit_length())
    most = 1 if number <= size else max(1, min(BATCHES, PIECE_BYTES // (size * math.prod(images.shape[1:]))))
    # The level is an argument, so that another one is no new program.
    seen, level = inputs._replace(corruption_level=0.0), jnp.float32(inputs.corruption_level)
    results = []
    for start in range(0, number, most * size):
        here = min(most * size, number - start)
        piece = jax.tree.map(lambda values: _filled(values[start : start + here], most * size), (images, labels))  # noqa: B023
        part = jnp.int32(start), jnp.int32(-(-here // size))
        values = _some_batches(function, model, samples, seen, (most, size), params, piece, part, key, level)
        results.append([np.asarray(v).reshape(-1, *v.shape[2:])[:here] for v in values])
    return tuple(np.concatenate(parts) for parts in zip(*results, strict=True))


def _filled(values: Any, length: int) -> Any:
    missing = length - len(values)
    if not missing:
        return values
    stack = jnp if isinstance(values, jax.Array) else np
    return stack.concatenate([values, stack.broadcast_to(values[-1:], (missing, *values.shape[1:]))])


def _as_key(key: Any) -> Key[Array, ""]:
    with contextlib.suppress(AttributeError, TypeError, ValueError):
        new = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
        found: Array = key if new else jax.random.wrap_key_data(key)
        if found.ndim == 0:
            return found
    raise UsageError(f"key must be one key, such as jax.random.key(0), got {str(key)[:60]}.")


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _some_batches(
    function: Any,
    model: AnyModel,
    samples: int,
    inputs: Inputs,
    shape: tuple[int, int],
    params: Parameters,
    data: tuple[Array, Array | None],
    part: tuple[Array, Array],
    key: Array,
    level: Array,
) -> Any:
    # Of the batches of the shape [most, size] the first ones: `part` is the place of the first image, and their number.
    params, (first, number) = model.prepared(params), part
    inputs = inputs._replace(corruption_level=level)
    batches = jax.tree.map(lambda values: values.reshape(*shape, *values.shape[1:]), data)
    places = first + jnp.arange(math.prod(shape), dtype=jnp.int32).reshape(shape)

    def values_of(i: Array) -> Any:
        images, labels = jax.tree.map(lambda values: values[i], batches)
        return function(model, params, inputs.batch(images, places[i], key, labels=labels), samples)

    if shape[0] == 1:
        return jax.tree.map(lambda values: values[None], values_of(jnp.int32(0)))
    empty = jax.tree.map(lambda of: jnp.zeros((shape[0], *of.shape), of.dtype), jax.eval_shape(values_of, part[0]))

    def body(i: Array, found: Any) -> Any:
        return jax.tree.map(lambda values, new: values.at[i].set(new), found, values_of(i))

    return jax.lax.fori_loop(0, number, body, empty)
