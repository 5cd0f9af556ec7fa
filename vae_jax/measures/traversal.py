"""Paths through a latent space of any dimension: along one dimension at a time, and from one code to another.

NumPy arrays in, NumPy arrays out; a model decodes them afterwards.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr
from jaxtyping import Array, Float, Integer

from vae_jax.models.distributions import DiagonalGaussian

LEVELS = (0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99)
"""Quantiles that a traversal shows."""
_SMALLEST_SINE = 1e-6  # of the angle between two codes; below it the great circle through them is not determined


def information(
    means: Float[np.ndarray, "n latent"], logvars: Float[np.ndarray, "n latent"] | None
) -> Float[np.ndarray, " latent"]:
    """What each dimension says of an image: its mean KL to the prior in nats, for an AE the variance of its code.

    Args:
        means: posterior means or codes, [n, latent].
        logvars: log variances of the posteriors, [n, latent]; None for an AE.
    """
    if logvars is None:
        return np.var(means, axis=0)
    kl = DiagonalGaussian(jnp.asarray(means), jnp.asarray(logvars)).kl_per_dimension()
    return np.mean(np.asarray(kl), axis=0)


def posterior_quantiles(
    means: Float[np.ndarray, "n latent"],
    logvars: Float[np.ndarray, "n latent"] | None,
    levels: Sequence[float] = LEVELS,
) -> Float[np.ndarray, "levels latent"]:
    """Quantiles of each dimension's aggregate posterior, the equal mixture of all images' posteriors.

    The means alone would hide how far a dimension spreads that the posterior leaves at the prior. Found by
    bisection of the mixture's distribution function; for an AE the quantiles of the codes.

    Args:
        means: posterior means or codes, [n, latent].
        logvars: log variances of the posteriors, [n, latent]; None for an AE.
        levels: in (0, 1).

    Raises:
        ValueError: a level outside (0, 1).
    """
    if not all(0 < level < 1 for level in levels):
        raise ValueError(f"levels must lie in (0, 1), got {tuple(levels)}")
    if logvars is None:
        return np.quantile(means, levels, axis=0).astype(means.dtype)
    return np.asarray(_mixture_quantiles(jnp.asarray(means), jnp.asarray(logvars), jnp.asarray(levels, jnp.float32)))


@jax.jit
def _mixture_quantiles(means: Array, logvars: Array, levels: Array) -> Array:
    sigmas = jnp.exp(0.5 * logvars)

    def one_level(level: Array) -> Array:
        def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
            middle = 0.5 * (ends[0] + ends[1])
            below = jnp.mean(ndtr((middle[None] - means) / sigmas), axis=0) < level
            return jnp.where(below, middle, ends[0]), jnp.where(below, ends[1], middle)

        # 40 halvings of an interval that holds all quantiles reach float32's own resolution.
        ends = jnp.min(means - 8 * sigmas, axis=0), jnp.max(means + 8 * sigmas, axis=0)
        low, high = jax.lax.fori_loop(0, 40, halve, ends)
        return 0.5 * (low + high)

    return jax.lax.map(one_level, levels)


def traverse(
    base: Float[np.ndarray, " latent"],
    dims: Integer[np.ndarray, " rows"],
    quantiles: Float[np.ndarray, "steps latent"],
) -> Float[np.ndarray, "rows steps latent"]:
    """One row a dimension: that dimension moves through its quantiles, the others stay as they are in `base`.

    Args:
        base: the code to start from, [latent].
        dims: the dimension of each row, [rows].
        quantiles: from `posterior_quantiles`, [steps, latent].
    """
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
    """Positions of two images a pair, of different classes where there are some; every class has its turn.

    Args:
        labels: classes, [n], or None.
        images: how many there are, at least two.
        pairs: how many are wanted.
        seed: of the choice.

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
    return np.array(chosen, np.int64).reshape(pairs, 2)
