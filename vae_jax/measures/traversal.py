"""Paths through a latent space of any dimension: along one dimension at a time, and from one code to another.

NumPy arrays in, NumPy arrays out; a model decodes them afterwards.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Integer
from sklearn.decomposition import PCA

LEVELS = (0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99)
"""Quantiles that a traversal shows."""
MANY = 64
"""Latent dimensions, above which none says much by itself, and directions are principal components."""
_SMALLEST_SINE = 1e-6  # of the angle between two codes; below it the great circle through them is not determined


class Components(NamedTuple):
    """Principal components of codes, the one of largest variance first."""

    vectors: Float[np.ndarray, "number latent"]
    """Of length 1."""
    shares: Float[np.ndarray, " number"]
    """Of the codes' variance."""
    centre: Float[np.ndarray, " latent"]
    """The mean code."""


def principal_components(means: Float[np.ndarray, "n latent"], number: int) -> Components:
    """The first principal components of codes, as many as there are at most, always the same."""
    number = min(number, *means.shape)
    solver = "covariance_eigh" if means.shape[1] <= MANY else "randomized"
    with np.errstate(invalid="ignore", divide="ignore"):  # codes that are all the same have no variance to share
        pca = PCA(number, svd_solver=solver, random_state=0).fit(means)
    return Components(pca.components_, np.nan_to_num(pca.explained_variance_ratio_), pca.mean_)


def has_components(means: Float[np.ndarray, "n latent"]) -> bool:
    """Whether codes are to be shown along principal components: of many dimensions, and enough to have two."""
    return means.shape[1] > MANY and len(means) > 2


def quantiles_along(
    codes: Float[np.ndarray, "n latent"], vectors: Float[np.ndarray, "rows latent"], levels: Any
) -> Float[np.ndarray, "steps rows"]:
    """Quantiles of where codes lie along directions."""
    return np.quantile(codes @ vectors.T, levels, axis=0)


def moved(
    base: Float[np.ndarray, " latent"],
    vectors: Float[np.ndarray, "rows latent"],
    places: Float[np.ndarray, "steps rows"],
) -> Float[np.ndarray, "rows steps latent"]:
    """One row a direction: the base moved along it to each place, and not in any other."""
    away = places.T - (vectors @ base)[:, None]
    return (base + away[..., None] * vectors[:, None]).astype(base.dtype)


def traverse(
    base: Float[np.ndarray, " latent"],
    dims: Integer[np.ndarray, " rows"],
    quantiles: Float[np.ndarray, "steps latent"],
) -> Float[np.ndarray, "rows steps latent"]:
    """One row a dimension: it moves through its `Codes.quantiles`, the others stay as they are in `base`."""
    z = np.tile(base, (len(dims), len(quantiles), 1))
    z[np.arange(len(dims)), :, dims] = quantiles[:, dims].T.astype(z.dtype)
    return z


def linear_interpolation(
    a: Float[np.ndarray, "pairs latent"], b: Float[np.ndarray, "pairs latent"], steps: int
) -> Float[np.ndarray, "pairs steps latent"]:
    """Equal steps along the straight line from each a to its b, both ends exact.

    Raises:
        ValueError: fewer than two steps.
    """
    t = _fractions(steps)
    return ((1 - t) * a[:, None].astype(np.float64) + t * b[:, None]).astype(a.dtype)


def spherical_interpolation(
    a: Float[np.ndarray, "pairs latent"], b: Float[np.ndarray, "pairs latent"], steps: int
) -> Float[np.ndarray, "pairs steps latent"]:
    """Equal angles about the origin along the great circle from the direction of each a to that of its b.

    The direction is Shoemake's slerp (1985); the norm goes linearly from that of a to that of b. Where both norms
    are equal, this is the formula that White (2016, "Sampling Generative Networks") proposes for a Gaussian prior,
    whose mass lies at norms near sqrt(latent), where straight lines do not go. Both ends are exact.
    Where the great circle is not determined it is the straight line: a or b is zero, both have the same direction
    (the limit of slerp), or opposite ones (every great circle through one goes through the other, and the straight
    line leads through the origin). In one dimension that is always so.

    Raises:
        ValueError: fewer than two steps.
    """
    t = _fractions(steps)
    start, end = a[:, None].astype(np.float64), b[:, None].astype(np.float64)
    norms = [np.linalg.norm(z, axis=-1, keepdims=True) for z in (start, end)]
    u, v = (z / np.where(norm > 0, norm, 1) for z, norm in zip((start, end), norms, strict=True))
    # arccos of the inner product loses half the digits near 0 and pi; this form of the angle keeps them.
    angle = 2 * np.arctan2(np.linalg.norm(u - v, axis=-1), np.linalg.norm(u + v, axis=-1))[..., None]
    determined = (np.sin(angle) > _SMALLEST_SINE) & (norms[0] > 0) & (norms[1] > 0)
    sine = np.where(determined, np.sin(angle), 1)
    direction = (np.sin((1 - t) * angle) * u + np.sin(t * angle) * v) / sine
    curve = ((1 - t) * norms[0] + t * norms[1]) * direction
    z = np.where(determined, curve, (1 - t) * start + t * end).astype(a.dtype)
    z[:, 0], z[:, -1] = a, b
    return z


def _fractions(steps: int) -> np.ndarray:
    # [steps, 1], from 0 to 1.
    if steps < 2:
        raise ValueError(f"steps must be at least 2, the two ends, got {steps}")
    return np.linspace(0, 1, steps)[:, None]


def choose_pairs(
    labels: Integer[np.ndarray, " n"] | None, images: int, pairs: int, seed: int = 0
) -> Integer[np.ndarray, "pairs 2"]:
    """Positions of two of so many images a pair, of different classes where there are some; every class has its turn.

    Where there are few images, a pair that would come again is left out.

    Raises:
        ValueError: fewer than two images.
    """
    if images < 2:
        raise ValueError(f"images must be at least 2 to make a pair, got {images}")
    rng = np.random.default_rng(seed)
    # Without classes each image is its own.
    kinds = np.arange(images) if labels is None or np.ptp(labels) == 0 else labels
    turns = np.resize(rng.permutation(np.unique(kinds)), 2 * pairs)
    chosen = [rng.choice(np.flatnonzero(kinds == kind)) for kind in turns]
    return np.array(list(dict.fromkeys(zip(chosen[::2], chosen[1::2], strict=True))), np.int64)
