"""The beta-binomial likelihood of 8-bit pixels, its mass worked out without the log gamma function's cancellation."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key
from scipy.special import gammaln

from vae_jax.models.distributions import smooth_bound
from vae_jax.models.eight_bit import TOP, EightBit, Rows, unbounded
from vae_jax.models.likelihoods import Parameters, PerImage, Pixels, sum_pixels

LOGIT_BOUND = 16.0
LOG_CONCENTRATION_BOUND = 7.0
_SHIFT = 8
"""From there on Stirling's series holds to float32's resolution."""
_k = np.arange(TOP + 1)
_LOG_CHOICES = np.float32(gammaln(TOP + 1) - gammaln(_k + 1) - gammaln(TOP - _k + 1))


class BetaBinomial(EightBit):
    """Successes of 255 draws whose probability is drawn from a beta distribution.

    The decoder gives the logit of its mean, bounded smoothly to +-16, and the log of its concentration alpha + beta,
    bounded to +-7: from nearly black or white to nearly the binomial distribution, which is the narrowest.
    """

    parameters = 2

    def start(self, mean: np.ndarray, covariance: np.ndarray) -> tuple[Rows, Rows]:
        """By the first two moments of each channel."""
        mean = np.clip(mean, 0.5 / TOP, 1 - 0.5 / TOP)
        binomial, variance = mean * (1 - mean), np.diag(covariance)
        # The variance is binomial / n * (1 + (n - 1) rho), with the correlation rho = 1 / (concentration + 1).
        rho = np.clip((variance * TOP / binomial - 1) / (TOP - 1), 1e-3, 1 - 1e-3)
        logit, log_concentration = np.log(mean / (1 - mean)), np.log(1 / rho - 1)
        offsets = unbounded(logit, LOGIT_BOUND), unbounded(log_concentration, LOG_CONCENTRATION_BOUND)
        return np.stack(offsets), np.stack([np.minimum(np.sqrt(variance) / binomial, 4.0), np.ones_like(mean)])

    def split(self, parameters: Parameters) -> tuple[Pixels, Pixels]:
        """Alpha and beta of each value."""
        blocks = self.blocks(parameters)
        logit = smooth_bound(blocks[..., 0, :], LOGIT_BOUND)
        concentration = jnp.exp(smooth_bound(blocks[..., 1, :], LOG_CONCENTRATION_BOUND))
        return concentration * jax.nn.sigmoid(logit), concentration * jax.nn.sigmoid(-logit)

    def log_prob(self, parameters: Parameters, x: Pixels) -> PerImage:
        """Log mass in nats."""
        return sum_pixels(_log_mass(*self.split(parameters), jnp.rint(TOP * x)))

    def mean(self, parameters: Parameters) -> Pixels:
        """Expected image."""
        return jax.nn.sigmoid(smooth_bound(self.blocks(parameters)[..., 0, :], LOGIT_BOUND))

    def sample(self, key: Key[Array, ""], parameters: Parameters) -> Pixels:
        """Draw images by the inverse of the distribution function."""
        a, b = self.split(parameters)
        u = jax.random.uniform(key, a.shape)

        def add(k: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            total = carry[0] + jnp.exp(_log_mass(a, b, jnp.full_like(a, k)))
            return total, carry[1] + (total < u).astype(u.dtype)

        return jax.lax.fori_loop(0, TOP, add, (jnp.zeros_like(a), jnp.zeros_like(a)))[1] / TOP


def _log_mass(a: Array, b: Array, k: Array) -> Array:
    scale = a + b + TOP
    rising = _log_rising(a, k, scale) + _log_rising(b, TOP - k, scale)
    return jnp.asarray(_LOG_CHOICES)[k.astype(jnp.int32)] + rising - _log_rising(a + b, jnp.full_like(k, TOP), scale)


def _log_rising(z: Array, k: Array, scale: Array) -> Array:
    # Log of z (z + 1) ... (z + k - 1) / scale^k. By Stirling's series from 8 on, with what is large taken from each
    # other first; the scale keeps the sum of three of them as small as what comes of it.
    y = z + _SHIFT
    series = (y - 0.5) * jnp.log1p(k / y) + k * (jnp.log((y + k) / scale) - 1) + _remainder(y + k) - _remainder(y)
    below, above = z + 1, z + k + 1
    for i in range(2, _SHIFT):
        below, above = below * (z + i), above * (z + k + i)
    return series + jnp.log(z / (z + k) * (below / above))


def _remainder(y: Array) -> Array:
    # Of Stirling's formula for the log gamma function.
    s = 1 / y**2
    return (1 / 12 - s * (1 / 360 - s / 1260)) / y
