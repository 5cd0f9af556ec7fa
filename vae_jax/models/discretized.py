"""Likelihoods of 8-bit pixels: probability masses over the levels k / 255, exact and stable in float32.

Log masses are natural, in nats, and of all levels they add up to 1: what lies beyond black and white belongs to them.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from vae_jax.models.distributions import smooth_bound
from vae_jax.models.eight_bit import LEAST_SPREAD, TOP, Blocks, EightBit, Rows, unbounded
from vae_jax.models.likelihoods import Parameters, PerImage, Pixels, sum_pixels

HALF = 0.5 / TOP
"""Half the distance of two levels."""
LOG_SCALE_BOUND = 8.0
LOGIT_BOUND = 16.0


def softplus(t: Array) -> Array:
    """log(1 + exp(t)), which takes two thirds of the time of jax.nn.softplus on a CPU."""
    # `where` rather than maximum and abs: their gradients at 0 do not add up to 1/2 there.
    positive = t > 0
    return jnp.where(positive, t, 0.0) + jnp.log1p(jnp.exp(jnp.where(positive, -t, t)))


class Parts(NamedTuple):
    """What the parameters say of each value, [..., components, channels]."""

    location: Blocks
    log_scale: Blocks
    coefficients: Blocks | None
    """Green on red, blue on red, blue on green."""
    log_weights: Blocks | None
    """Of the components."""


@dataclasses.dataclass(frozen=True)
class DiscretizedLogistic(EightBit):
    """Logistic distributions whose mass between two levels goes to the nearer (Salimans et al. 2017, section 2.1).

    With several components each value has a mixture of them. With conditioning the location of green moves in a
    straight line with red, and that of blue with both, as in their section 2.2. Log scales are bounded smoothly to
    +-8, logits to +-16.
    """

    conditioned: bool = False
    components: int = 1
    deviation: ClassVar[float] = math.pi / math.sqrt(3)
    """Standard deviation for a scale of 1."""

    @classmethod
    def from_settings(cls, settings: Any, image_shape: tuple[int, int, int]) -> "DiscretizedLogistic":
        """One component, conditioned as the settings say where there are three channels."""
        return cls(image_shape[-1], settings.channel_conditioning and image_shape[-1] == 3)

    @classmethod
    def mixture(cls, settings: Any, image_shape: tuple[int, int, int]) -> "DiscretizedLogistic":
        """The same with the settings' components."""
        one = cls.from_settings(settings, image_shape)
        return dataclasses.replace(one, components=settings.mixture_components)

    @property
    def parameters(self) -> int:  # type: ignore[override]
        """Locations, log scales, coefficients where conditioned, logits where there are several components."""
        return self.components * (2 + self.conditioned + (self.components > 1))

    def start(self, mean: np.ndarray, covariance: np.ndarray) -> tuple[Rows, Rows]:
        """Each channel at its regression on those before it, where conditioned."""
        slopes, residual = np.zeros_like(covariance), np.diag(covariance).copy()
        for i in range(1, self.channels if self.conditioned else 1):
            slopes[i, :i] = np.linalg.solve(covariance[:i, :i], covariance[:i, i])
            residual[i] -= slopes[i, :i] @ covariance[:i, i]
        sigma, spread = np.sqrt(np.maximum(residual, LEAST_SPREAD**2)), np.sqrt(np.diag(covariance))
        log_scale = unbounded(np.log(sigma / self.deviation), LOG_SCALE_BOUND)
        offsets, units = [mean - slopes @ (mean - 0.5), log_scale], [sigma, np.ones_like(sigma)]
        if self.conditioned:
            of, on = [1, 2, 2], [0, 0, 1]
            offsets.append(slopes[of, on])
            units.append(sigma[of] / spread[on])
        if self.components > 1:
            offsets.append(np.zeros_like(sigma))
            units.append(np.ones_like(sigma))
        return np.repeat(offsets, self.components, axis=0), np.repeat(units, self.components, axis=0)

    def split(self, parameters: Parameters) -> Parts:
        """Location, bounded log scale, coefficients and log weights."""
        blocks, number = self.blocks(parameters), self.components
        location, raw, *more = (blocks[..., i : i + number, :] for i in range(0, self.parameters, number))
        coefficients = more.pop(0) if self.conditioned else None
        weights = jax.nn.log_softmax(smooth_bound(more[0], LOGIT_BOUND), axis=-2) if more else None
        return Parts(location, smooth_bound(raw, LOG_SCALE_BOUND), coefficients, weights)

    def log_prob(self, parameters: Parameters, x: Pixels) -> PerImage:
        """Log mass in nats."""
        parts = self.split(parameters)
        each = self.log_mass(_conditional(parts, x), parts.log_scale, x)
        if parts.log_weights is None:
            return sum_pixels(each[..., 0, :])
        return sum_pixels(_log_of_sum(parts.log_weights + each))

    def mean(self, parameters: Parameters) -> Pixels:
        """Expected image before it is rounded to levels; green and blue as those before them are expected.

        Rounding moves the mean of a value by half a level at most, and by none where the scale is one or more.
        """
        parts = self.split(parameters)

        def expected(location: Blocks, own: slice) -> Pixels:
            each = _clipped_mean(location, jnp.exp(parts.log_scale[..., own]), self.excess)
            if parts.log_weights is None:
                return each[..., 0, :]
            return jnp.sum(jnp.exp(parts.log_weights[..., own]) * each, axis=-2)

        return _in_turn(parts, expected)

    def sample(self, key: Key[Array, ""], parameters: Parameters) -> Pixels:
        """Draw images, each channel given those before it."""
        parts, (of_component, of_value) = self.split(parameters), jax.random.split(key)
        chosen = jnp.zeros_like(parts.location[..., :1, :], jnp.int32)
        if parts.log_weights is not None:
            chosen = jax.random.categorical(of_component, parts.log_weights, axis=-2)[..., None, :]
        scale = jnp.exp(jnp.take_along_axis(parts.log_scale, chosen, axis=-2))
        noise = scale * self.noise(of_value, scale.shape)

        def drawn(location: Blocks, own: slice) -> Pixels:
            place = jnp.take_along_axis(location, chosen[..., own], axis=-2)
            return _to_level(place + noise[..., own])[..., 0, :]

        return _in_turn(parts, drawn)

    def log_mass(self, location: Blocks, log_scale: Blocks, x: Pixels) -> Blocks:
        """Log mass of each value in nats."""
        inverse, x = jnp.exp(-log_scale), x[..., None, :]
        black, white = x < HALF, x > 1 - HALF
        # log(s(a) - s(b)) of two sigmoids, as three terms of one sign; those that an end has not are left out.
        above = softplus((location - x - HALF) * inverse)
        below = softplus((x - location - HALF) * inverse)
        between = jnp.log(-jnp.expm1(-2 * HALF * inverse))
        return jnp.where(black | white, 0.0, between) - jnp.where(white, 0.0, above) - jnp.where(black, 0.0, below)

    def excess(self, t: Array) -> Array:
        """Integral of the standard distribution function's tail beyond t, which is not negative."""
        return jnp.log1p(jnp.exp(-t))

    def noise(self, key: Key[Array, ""], shape: tuple[int, ...]) -> Array:
        """Draws of the standard distribution."""
        return jax.random.logistic(key, shape)


class DiscretizedGaussian(DiscretizedLogistic):
    """The same of normal distributions, one a value, each channel for itself."""

    deviation = 1.0

    @classmethod
    def from_settings(cls, settings: Any, image_shape: tuple[int, int, int]) -> "DiscretizedGaussian":
        """For images of this shape."""
        return cls(image_shape[-1])

    def log_mass(self, location: Blocks, log_scale: Blocks, x: Pixels) -> Blocks:
        """Log mass of each value in nats."""
        inverse, x = jnp.exp(-log_scale), x[..., None, :]
        black, white = x < HALF, x > 1 - HALF
        z, w, end = (x - location) * inverse, HALF * inverse, black | white
        # The tail that both edges of a value lie in is taken for the lower one.
        distance = jnp.where(z > 0, z, -z)
        upper = log_ndtr(jnp.where(black, z + w, jnp.where(white, w - z, w - distance)))
        # Where the density hardly changes within a level, the two would cancel: an integral by 6 nodes then.
        flat = (w < 1) & (distance * w < 1) & ~end
        ratio = jnp.minimum(log_ndtr(-w - distance) - upper, -2 * w * distance)  # which it is below, but for rounding
        ratio = jnp.where(flat | end, -1.0, ratio)
        z, w = jnp.where(flat, z, 0.0), jnp.where(flat, w, 0.5)
        integral = sum(
            2 * weight * jnp.exp(-0.5 * (node * w) ** 2) * jnp.cosh(node * z * w)
            for node, weight in zip(*np.polynomial.legendre.leggauss(6), strict=True)
            if node > 0
        )
        inside = jnp.log(w * integral) - 0.5 * z**2 - 0.5 * math.log(2 * math.pi)
        return jnp.where(flat, inside, upper + jnp.where(end, 0.0, jnp.log1p(-jnp.exp(ratio))))

    def excess(self, t: Array) -> Array:
        """As of the logistic."""
        return jnp.exp(-0.5 * t**2) / math.sqrt(2 * math.pi) - t * 0.5 * jax.scipy.special.erfc(t / math.sqrt(2))

    def noise(self, key: Key[Array, ""], shape: tuple[int, ...]) -> Array:
        """Draws of N(0, 1)."""
        return jax.random.normal(key, shape)


def _in_turn(parts: Parts, values: Callable[[Blocks, slice], Pixels]) -> Pixels:
    # The values of all channels, by a function of locations and of which channels these are of. Where they depend on
    # each other it is called for one after another, on those before it: XLA works out anew what is asked for again.
    if parts.coefficients is None:
        return values(parts.location, slice(None))
    of_green, of_blue, of_both = (parts.coefficients[..., i : i + 1] for i in range(3))
    red, green, blue = (parts.location[..., i : i + 1] for i in range(3))
    first = values(red, slice(0, 1))
    moved = green + of_green * (first[..., None, :] - 0.5)
    second = values(moved, slice(1, 2))
    moved = blue + of_blue * (first[..., None, :] - 0.5) + of_both * (second[..., None, :] - 0.5)
    return jnp.concatenate([first, second, values(moved, slice(2, 3))], axis=-1)


def _conditional(parts: Parts, x: Pixels) -> Blocks:
    # The locations, given the values of the channels before.
    if parts.coefficients is None:
        return parts.location
    red, green = ((x[..., None, i : i + 1] - 0.5) for i in (0, 1))
    of_green, of_blue, of_both = (parts.coefficients[..., i : i + 1] for i in range(3))
    moved = [jnp.zeros_like(of_green), of_green * red, of_blue * red + of_both * green]
    return parts.location + jnp.concatenate(moved, axis=-1)


def _clipped_mean(location: Blocks, scale: Blocks, excess: Any) -> Blocks:
    # The mean of a distribution that is symmetric about its location, with what lies outside [0, 1] at its ends.
    from_0, from_1 = (jnp.where(t > 0, t, -t) / scale for t in (location, location - 1))
    return jnp.clip(jnp.clip(location, 0.0, 1.0) + scale * (excess(from_0) - excess(from_1)), 0.0, 1.0)


def _log_of_sum(logs: Blocks) -> Pixels:
    # XLA may work the same number out twice, rounded differently: a huge one is then above its own maximum.
    top = jax.lax.stop_gradient(jnp.max(logs, axis=-2, keepdims=True))
    below = jnp.where(logs > top, 0.0, logs - top)
    return top[..., 0, :] + jnp.log(jnp.sum(jnp.exp(below), axis=-2))


def _to_level(x: Array) -> Array:
    return jnp.clip(jnp.rint(TOP * x), 0.0, TOP) / TOP


def log_ndtr(x: Array) -> Array:
    """Log of the standard normal distribution function, whose value and gradient hold in the far tail, too."""
    far, left = x < -10, x < 0
    near = jnp.where(far, -10.0, x)
    tail = 0.5 * jax.scipy.special.erfc(jnp.where(left, -near, near) / math.sqrt(2))
    z = jnp.where(far, x, -10.0)
    s = 1 / z**2
    series = jnp.log1p(-s * (1 - s * (3 - 15 * s)))
    return jnp.where(
        far,
        -0.5 * z**2 - jnp.log(-z) - 0.5 * math.log(2 * math.pi) + series,
        jnp.where(left, jnp.log(jnp.where(left, tail, 0.5)), jnp.log1p(-tail)),
    )
