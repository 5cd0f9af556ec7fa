"""How unlike the training images an image is: scores, the higher the more anomalous, and what they are worth.

A score is fitted on normal images only. Labels of anomalies are used by `detection` alone, to judge it.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key
from sklearn.metrics import average_precision_score, roc_auc_score

from vae_jax.data.checks import as_images
from vae_jax.measures.dimensionality import PrincipalComponents, neighbour_distances
from vae_jax.models.autoencoders import AnyModel, Parameters
from vae_jax.models.conditions import Labels
from vae_jax.models.evaluation import ByteImages, decode_latents, encode_images, image_losses
from vae_jax.models.inputs import Inputs, preprocess

Scores: TypeAlias = Float[np.ndarray, " n"]

LATENT_KNN = "latent_knn"
MODEL_SCORES = {
    "vae": (
        *("squared_error", "scaled_error", "relative_error", "reconstruction"),
        *("kl", "negative_elbo", "negative_iwae_bound", LATENT_KNN),
    ),
    "ae": ("squared_error", "scaled_error", "relative_error", "reconstruction", LATENT_KNN),
}
"""The scores that each kind of model has."""
NEGATIVE_LOG_PRIOR = "negative_log_prior"


def has_prior_score(model: AnyModel) -> bool:
    """Whether a model is an autoencoder with a prior, which tells how likely a code is."""
    return not model.stochastic and model.prior.has_density


def scores_of(model: AnyModel) -> tuple[str, ...]:
    """The names of the scores that a model has."""
    own = (NEGATIVE_LOG_PRIOR,) if has_prior_score(model) else ()
    return *MODEL_SCORES["vae" if model.stochastic else "ae"], *own


@partial(jax.jit, static_argnums=0)
def _log_prior(model: AnyModel, params: Parameters, codes: Array, labels: Array | None) -> Array:
    return model.log_prior(params, codes, labels)


def model_scores(
    model: AnyModel,
    params: Parameters,
    images: ByteImages,
    key: Key[Array, ""],
    *,
    samples: int,
    binarize: str,
    labels: Labels = None,
) -> dict[str, Scores]:
    """What the model itself says of each image, by the names of `MODEL_SCORES`.

    - squared_error: ||x - x'||^2 of the image that the posterior mean (or code) decodes to, in squared intensity.
      Unlike the loss of grey pixels under a Bernoulli, it is 0 for an image that is rebuilt without error.
    - scaled_error and relative_error: the same over ||x|| and over ||x||^2. What is rebuilt badly grows with what there
      is to rebuild, so that the plain error mistakes much ink for an anomaly, and little for a normal image.
    - reconstruction: mean reconstruction loss over the samples, in the unit of the model's loss.

    Of a VAE also, in nats:

    - kl: divergence of the posterior from the prior.
    - negative_elbo: reconstruction + kl.
    - negative_iwae_bound: of all samples together (Burda et al. 2015).

    The last two bound -log p(x) from above where the likelihood is one, which `bernoulli` on grey pixels is not.

    Of an AE with a prior that was fitted to codes negative_log_prior, -log p(code) in nats.

    Args:
        model: trained on normal images.
        params: its parameters.
        images: of any kind that `as_images` takes.
        key: decides the latent samples and dynamic binarisation.
        samples: latent samples an image.
        binarize: as in training; of dynamically binarised images, the squared error is that of the grey ones.
        labels: of the images, for a conditional model.

    Returns:
        Scores [n] by name.
    """
    images = as_images(images, image_shape=model.image_shape)
    losses = image_losses(model, params, images, key, samples=samples, inputs=Inputs(binarize), labels=labels)
    codes, _ = encode_images(model, params, images, key, binarize=binarize, labels=labels)
    pixels = np.asarray(preprocess(jnp.asarray(images), "threshold" if binarize == "threshold" else "none"))
    rebuilt = decode_latents(model, params, codes, labels if model.classes else None)
    error = np.sum((pixels - rebuilt) ** 2, axis=(1, 2, 3))
    norm = norms(pixels.reshape(len(pixels), -1))
    scores = {
        "squared_error": error,
        "scaled_error": error / norm,
        "relative_error": error / norm**2,
        "reconstruction": losses.reconstruction,
    }
    if has_prior_score(model):
        known = labels if model.classes else None
        scores[NEGATIVE_LOG_PRIOR] = -np.asarray(_log_prior(model, params, codes, known))
    if model.stochastic:
        scores["kl"] = losses.kl
        scores["negative_elbo"] = losses.reconstruction + losses.kl
        scores["negative_iwae_bound"] = -losses.bound
    return scores


def latent_knn(codes: Float[np.ndarray, "n latent"], normal: Float[np.ndarray, "m latent"], neighbours: int) -> Scores:
    """Mean Euclidean distance of each posterior mean (or code) to the nearest ones of the normal images."""
    return mean_distance([neighbour_distances(codes, normal, neighbours)], neighbours)


def mean_distance(parts: Sequence[Float[np.ndarray, "n _"]], neighbours: int) -> Scores:
    """Mean distance to the nearest references of several sets together, from the `neighbour_distances` to each.

    The nearest of all are among the nearest of each: so the distances to the images of each class, computed once,
    give the score for any choice of normal classes.
    """
    return np.sort(np.concatenate(parts, axis=1), axis=1)[:, :neighbours].mean(axis=1)


def norms(points: Float[np.ndarray, "n pixels"]) -> Scores:
    """||x|| of each image, [n]; at least that of one pixel of the darkest grey, which stands for an empty image."""
    return np.maximum(np.linalg.norm(points, axis=1), np.float32(1 / 255))


def pca_residual(
    normal: Float[np.ndarray, "m pixels"], points: Float[np.ndarray, "n pixels"], components: int = 32
) -> Scores:
    """Squared distance of points from the subspace of the first principal components of the normal ones, [n].

    In squared intensity, as the reconstruction error of an autoencoder, whose linear counterpart it is. There are fewer
    components where there are fewer normal points or pixels.
    """
    pca = PrincipalComponents.fit(normal, components)
    centred = points - pca.mean
    return np.sum((centred - centred @ pca.components.T @ pca.components) ** 2, axis=1)


def ink(points: Float[np.ndarray, "n pixels"]) -> Scores:
    """Sum of the pixels of each image: the control that no score should need to beat."""
    return points.sum(axis=1)


def ink_deviation(normal: Float[np.ndarray, "m pixels"], points: Float[np.ndarray, "n pixels"]) -> Scores:
    """How far the sum of an image's pixels is from the median of the normal ones, either way, [n]."""
    return np.abs(ink(points) - np.median(ink(normal)))


class Detection(NamedTuple):
    """How well a score tells anomalies from normal images."""

    auroc: float
    """Probability that an anomaly scores higher than a normal image; 0.5 is chance."""
    average_precision: float
    """Mean precision over the anomalies, from the most anomalous down; chance is their share."""


def detection(scores: Scores, anomalous: Bool[np.ndarray, " n"]) -> Detection:
    """Judge a score by labels, by scikit-learn's `roc_auc_score` and `average_precision_score`.

    Raises:
        ValueError: all images are anomalous, or none is.
    """
    if anomalous.all() or not anomalous.any():
        raise ValueError("anomalous must hold both anomalies and normal images, got one kind")
    return Detection(float(roc_auc_score(anomalous, scores)), float(average_precision_score(anomalous, scores)))


def mean_detection(detections: Sequence[Detection]) -> Detection:
    """Mean of each number over the classes."""
    return Detection(*(float(np.mean(values)) for values in zip(*detections, strict=True)))
