"""How continuous and how complete a latent space is, in numbers.

Continuous: near latents decode to near images. Complete: what the prior draws decodes to images like the data's.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer
from scipy import stats

from vae_jax.measures.dimensionality import neighbour_distances
from vae_jax.models.autoencoders import AnyModel, Parameters
from vae_jax.models.jacobian import decoder_jacobian


class Flips(NamedTuple):
    """How often the label changes along paths."""

    per_path: float
    """Mean number of changes beyond the one that has to be where the ends differ."""
    share: float
    """Those changes as a share of all; 0 where there are none."""


class Quality(NamedTuple):
    """Generated images against real ones, in the features of a frozen classifier."""

    precision: float
    """Share of the generated whose nearest train image is as near as that of 95% of the test images."""
    recall: float
    """Share of the test images whose nearest generated one is as near as the nearest of as many train images is to
    95% of the test images. Other real images, had they been generated, would score 0.95 in both."""
    frechet: float
    """Fréchet distance of generated and test images (Heusel et al. 2017, there in Inception's features)."""


def decoder_gain(
    model: AnyModel,
    params: Parameters,
    z: Float[np.ndarray, "n latent"],
    unit: Float[np.ndarray, " latent"] | None = None,
) -> Float[np.ndarray, " n"]:
    """Largest singular value of the decoder's Jacobian, the expected image's change for a step of the latent.

    `unit` is the length of a step in each dimension; 1 by default.
    """
    unit = np.ones(z.shape[1]) if unit is None else unit
    return np.asarray(_gain(model, params, jnp.asarray(z), jnp.float32(unit)))


def robust_spread(z: Float[np.ndarray, "n latent"]) -> Float[np.ndarray, " latent"]:
    """Standard deviation of each dimension as the interquartile range tells it: far outliers change nothing."""
    low, high = np.percentile(z.astype(np.float64), [25, 75], axis=0)
    return (high - low) / (2 * stats.norm.ppf(0.75))


@partial(jax.jit, static_argnums=0)
def _gain(model: AnyModel, params: Parameters, z: Array, unit: Array) -> Array:
    def one(z: Array) -> Array:
        jacobian = decoder_jacobian(model, params, z, unit)
        return jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh(jacobian.T @ jacobian)[-1], 0.0))

    return jax.lax.map(one, z, batch_size=100)


def path_stretch(images: Float[np.ndarray, "pairs points pixels"]) -> Float[np.ndarray, " pairs"]:
    """Length of each path in pixel space over the straight distance of its ends: 1 for a cross-fade.

    Pairs whose ends are the same image have 1.
    """
    paths = images.astype(np.float64)
    length = np.linalg.norm(np.diff(paths, axis=1), axis=-1).sum(axis=1)
    distance = np.linalg.norm(paths[:, -1] - paths[:, 0], axis=-1)
    return np.divide(length, distance, out=np.ones_like(length), where=distance > 0)


def excess_flips(labels: Integer[np.ndarray, "pairs points"]) -> Flips:
    """Changes of the label along paths, beyond the one that has to be where the ends differ."""
    flips = np.count_nonzero(labels[:, 1:] != labels[:, :-1], axis=1)
    excess = flips - (labels[:, 0] != labels[:, -1])
    return Flips(float(excess.mean()), float(excess.sum() / max(flips.sum(), 1)))


def nearest_distance(
    queries: Float[np.ndarray, "queries features"], references: Float[np.ndarray, "references features"]
) -> Float[np.ndarray, " queries"]:
    """Euclidean distance of each query to the nearest reference."""
    return neighbour_distances(queries, references, 1)[:, 0]


def sample_quality(
    generated: Float[np.ndarray, "generated features"],
    train: Float[np.ndarray, "train features"],
    test: Float[np.ndarray, "test features"],
) -> Quality:
    """Precision, recall and Fréchet distance of generated images; see `Quality`. The train set is the largest."""
    precise = np.percentile(nearest_distance(test, train), 95)
    as_many = train[np.random.default_rng(0).permutation(len(train))[: len(generated)]]
    covered = np.percentile(nearest_distance(test, as_many), 95)
    return Quality(
        precision=float(np.mean(nearest_distance(generated, train) <= precise)),
        recall=float(np.mean(nearest_distance(test, generated) <= covered)),
        frechet=frechet_distance(generated, test),
    )


def frechet_distance(a: Float[np.ndarray, "a features"], b: Float[np.ndarray, "b features"]) -> float:
    """Squared Wasserstein-2 distance between Gaussians fitted to two sets (Dowson & Landau 1982)."""
    first, second = np.cov(a.T.astype(np.float64)), np.cov(b.T.astype(np.float64))
    first, second = np.atleast_2d(first), np.atleast_2d(second)
    # tr (A B)^(1/2) = tr (A^(1/2) B A^(1/2))^(1/2), whose argument is symmetric.
    values, vectors = np.linalg.eigh(first)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ second @ root), 0)).sum()
    shift = a.mean(axis=0, dtype=np.float64) - b.mean(axis=0, dtype=np.float64)
    return float(max(shift @ shift + np.trace(first) + np.trace(second) - 2 * cross, 0.0))


def distance_from_prior(z: Float[np.ndarray, "n latent"], directions: int = 256) -> float:
    """Sliced Wasserstein-2 distance between latents and N(0, I), in standard deviations of the prior.

    The root of the mean, over fixed random directions, of the squared distance between the projected latents and
    N(0, 1) (Bonneel et al. 2015), which has a closed form in one dimension. For latents from N(m, s^2 I) it is
    sqrt(|m|^2 / latent + (s - 1)^2).
    """
    unit = np.random.default_rng(0).normal(size=(z.shape[1], directions))
    unit /= np.linalg.norm(unit, axis=0)
    projected = np.sort(z.astype(np.float64) @ unit, axis=0)
    # The integral of the normal quantile function over ((i - 1) / n, i / n] is a difference of densities.
    density = stats.norm.pdf(stats.norm.ppf(np.linspace(0, 1, len(z) + 1)))
    quantiles = -np.diff(density)
    squares = np.mean(projected**2, axis=0) - 2 * quantiles @ projected + 1
    return float(np.sqrt(max(squares.mean(), 0.0)))
