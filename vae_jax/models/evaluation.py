"""What a trained model is worth on held-out images: the same bound as in training, never beta, fixed keys."""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vae_jax.data.split import UNKNOWN
from vae_jax.errors import UsageError
from vae_jax.models.autoencoders import AnyModel, Parameters
from vae_jax.models.batches import AnyKey, in_batches
from vae_jax.models.chunks import in_pieces
from vae_jax.models.conditions import Labels, check_labels
from vae_jax.models.inputs import Batch, Inputs
from vae_jax.models.objectives import importance_weighted_bound
from vae_jax.models.quality import bits_per_dim, has_bits_per_dim
from vae_jax.models.semi_supervised import Inferred

ByteImages = Any
"""Images of any kind that `vae_jax.data.checks.as_images` takes: bytes, floats in [0, 1], booleans."""
AnyLabels = Int[np.ndarray | Array, " n"] | None
AS_THEY_ARE = Inputs()


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
    return ImageLosses(*in_batches(batch_losses, model, params, (images, labels), key, samples, inputs))


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
    mean, *logvar = in_batches(_encode, model, params, (images, labels), key, 1, seen)
    return mean, logvar[0] if logvar else None


def class_probabilities(
    model: AnyModel, params: Parameters, images: ByteImages, key: AnyKey, *, inputs: Inputs = AS_THEY_ARE
) -> Float[np.ndarray, "n classes"]:
    """What the classifier of a model that infers classes says of images; arguments as in `image_losses`.

    Raises:
        UsageError: the model has no classifier.
    """
    if not model.infers:
        raise UsageError("The model infers no classes: it was made without --condition inferred.")
    return in_batches(_classify, model, params, (images, None), key, 1, inputs)[0]


def likeliest(probabilities: Float[np.ndarray, "n classes"], classes: tuple[int, ...]) -> Int[np.ndarray, " n"]:
    """The label of the class of the largest probability, of each image."""
    return np.array(classes, np.int32)[probabilities.argmax(axis=1)]


def error_rate(found: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"]) -> dict[str, float]:
    """The share "error_rate" of the images with another label than was found, of those whose class is known.

    With its standard error "error_rate_se"; empty where no class is known.
    """
    wrong = (found != labels)[labels != UNKNOWN]
    if not len(wrong):
        return {}
    rate = float(wrong.mean())
    return {"error_rate": rate, "error_rate_se": math.sqrt(rate * (1 - rate) / len(wrong))}


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
    """Of each example: mean reconstruction loss over the samples, KL, importance-weighted bound, [batch] each.

    Where a model infers classes, that of an image may be unknown: the first two are then expected values by the
    classifier, and the bound of log p(x) is that of the sum over the classes; else it is one of log p(x, y).
    """
    if not model.infers:
        return _losses(model, params, batch, samples)
    found = Inferred.of(model.classify(params, batch.inputs), batch.labels, model.classes)

    def of_class(label: Array) -> tuple[Array, Array, Array]:
        return _losses(model, params, batch._replace(labels=jnp.full(len(batch.x), label)), samples)

    losses, kls, bounds = (values.T for values in jax.lax.map(of_class, jnp.asarray(model.classes, jnp.int32)))
    excluded = (jnp.sum(found.given, axis=-1, keepdims=True) > 0) & (found.given == 0)
    bound = jax.nn.logsumexp(jnp.where(excluded, -jnp.inf, bounds), axis=-1) - math.log(len(model.classes))
    return found.mean(losses), found.mean(kls) + found.kl, bound


def _losses(model: AnyModel, params: Parameters, batch: Batch, samples: int) -> tuple[Array, Array, Array]:
    posterior = model.encode(params, batch.inputs, batch.labels)

    def one_sample(index: Array) -> tuple[Array, Array, Array]:
        z = posterior.sample(jax.vmap(jax.random.fold_in, (0, None))(batch.keys, index))
        loss = model.likelihood.reconstruction_loss(model.decode(params, z, batch.labels), batch.x)
        log_p, log_q = model.log_prior(params, z, batch.labels), posterior.log_prob(z)
        # XLA would work a prior that is a loop out twice.
        kl = log_q - log_p if model.estimates_kl else model.kl(params, posterior, z, batch.labels)
        return loss, kl, log_p - log_q - loss

    losses, kls, log_weights = jax.lax.map(one_sample, jnp.arange(samples))
    return jnp.mean(losses, axis=0), jnp.mean(kls, axis=0), importance_weighted_bound(log_weights)


def _classify(model: AnyModel, params: Parameters, batch: Batch, samples: int) -> tuple[Array, ...]:
    return (jnp.exp(model.classify(params, batch.inputs)),)


def _encode(model: AnyModel, params: Parameters, batch: Batch, samples: int) -> tuple[Array, ...]:
    labels: Any = batch.labels
    if model.infers:
        likeliest = jnp.asarray(model.classes, jnp.int32)[jnp.argmax(model.classify(params, batch.inputs), axis=-1)]
        labels = jnp.where(labels == UNKNOWN, likeliest, labels)
    posterior = model.encode(params, batch.inputs, labels)
    return tuple(part for part in (posterior.mean, posterior.logvar) if part is not None)
