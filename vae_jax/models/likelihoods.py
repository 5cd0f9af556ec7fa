"""What a decoder's output says of the pixels.

All log probabilities are natural, in nats, summed over the values of one image.
"""

import dataclasses
import math
from typing import Any, ClassVar, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, Num

from vae_jax.models.distributions import smooth_bound

LOG_SIGMA_BOUND = 6.0
Pixels: TypeAlias = Float[Array, "*batch height width channels"]
Parameters: TypeAlias = Float[Array, "*batch height width parameters"]
Values: TypeAlias = Float[Array, "*shape"]
PerImage: TypeAlias = Float[Array, "*batch"]


def sum_pixels(values: Pixels) -> PerImage:
    """Sum over the values of one image."""
    return jnp.sum(values, axis=(-3, -2, -1))


@dataclasses.dataclass(frozen=True)
class Likelihood:
    """p(x | parameters): how likely an image is, given what the decoder says of each of its values.

    A new one overrides `log_prob`, `mean` and `sample`, and is named by `vae_jax.registry.LIKELIHOODS.register`.
    """

    parameters: ClassVar[int] = 1
    """Numbers that the decoder gives for each value: channels [0, C) hold the first of them, [C, 2C) the second. All
    other methods take what `complete` makes of them."""
    kind: ClassVar[Literal["density", "mass", "none"]] = "density"
    """Whether exp(log_prob) is a probability density, a probability mass, or neither."""
    unit: ClassVar[str] = "nats"
    of_reals: ClassVar[bool] = True
    """Whether a value may be any number; else it lies in [0, 1]."""
    levels: ClassVar[int | None] = None
    """How many levels of a value it gives masses to, where these are those of a byte: then bits per dimension mean
    something."""

    @classmethod
    def from_settings(cls, settings: Any, image_shape: tuple[int, int, int]) -> "Likelihood":
        """The likelihood that the settings describe, for images (height, width, channels)."""
        return cls()

    def init(self) -> dict[str, Array]:
        """Parameters of its own, trained with the networks; they stand beside the decoder's under these names."""
        return {}

    def fitted(self, pixels: Num[Array | np.ndarray, "n height width channels"]) -> dict[str, Array]:
        """Its own parameters for a model that begins at these pixels, in [0, 1]."""
        return self.init()

    def complete(self, decoded: Any, own: dict[str, Array]) -> Any:
        """The parameters of all values, from the decoder's output and the likelihood's own."""
        return decoded

    def log_prob(self, parameters: Any, x: Any) -> Any:
        """Log probability (density) of each image in nats."""
        raise NotImplementedError

    def reconstruction_loss(self, parameters: Parameters, x: Pixels) -> PerImage:
        """What training minimises: the negative log probability of each image."""
        return -self.log_prob(parameters, x)

    def mean(self, parameters: Any) -> Any:
        """Expected image."""
        return parameters

    def sample(self, key: Any, parameters: Any) -> Any:
        """Draw images."""
        raise NotImplementedError


def _softplus_minus_linear(logits: Array, x: Array) -> Array:
    # softplus(l) - x l, with the two large parts of a saturated pixel taken from each other exactly.
    # `where` rather than maximum and abs: their gradients at 0 do not add up to the sigmoid there.
    positive = logits > 0
    minus_absolute = jnp.where(positive, -logits, logits)
    return jnp.where(positive, logits, 0.0) - x * logits + jnp.log1p(jnp.exp(minus_absolute))


class Bernoulli(Likelihood):
    """Binary pixels from logits. On grey pixels it is the tutorials' loss, not a likelihood of anything."""

    kind = "mass"
    of_reals = False

    def log_prob(self, parameters: Pixels, x: Pixels) -> PerImage:
        """Log probability x * logits - softplus(logits), in nats, never by way of a sigmoid."""
        return -sum_pixels(_softplus_minus_linear(parameters, x))

    def mean(self, parameters: Values) -> Values:
        """Probability of a 1."""
        return jax.nn.sigmoid(parameters)

    def sample(self, key: Key[Array, ""], parameters: Values) -> Values:
        """Draw pixels that are 0 or 1."""
        return jax.random.bernoulli(key, jax.nn.sigmoid(parameters)).astype(parameters.dtype)


class ContinuousBernoulli(Likelihood):
    """Density on [0, 1] proportional to p^x (1 - p)^(1 - x), from logits (Loaiza-Ganem & Cunningham 2019)."""

    of_reals = False

    def log_normaliser(self, logits: Values) -> Values:
        """Log of the constant C(p) = logit / tanh(logit / 2) that makes the density integrate to 1."""
        # Around 0 both parts vanish: a Taylor series there, and a safe argument elsewhere for the gradient.
        small = jnp.abs(logits) < 0.5
        safe = jnp.where(small, 1.0, jnp.abs(logits))
        # tanh(a / 2) = (1 - exp(-a)) / (1 + exp(-a)), which does not cancel in the logarithm.
        exact = jnp.log(safe) + jnp.log1p(jnp.exp(-safe)) - jnp.log1p(-jnp.exp(-safe))
        square = jnp.where(small, logits, 0.0) ** 2
        series = math.log(2.0) + square * (1 / 12 + square * (-7 / 1440 + square * 31 / 90720))
        return jnp.where(small, series, exact)

    def log_prob(self, parameters: Pixels, x: Pixels) -> PerImage:
        """Log density in nats."""
        return sum_pixels(self.log_normaliser(parameters) - _softplus_minus_linear(parameters, x))

    def mean(self, parameters: Values) -> Values:
        """Expected pixel 1 / (1 - exp(-logit)) - 1 / logit, which is not the sigmoid."""
        small = jnp.abs(parameters) < 0.5
        safe = jnp.where(small, 1.0, parameters)
        exact = jnp.where(safe > 0, 1.0, jnp.exp(safe)) / -jnp.expm1(-jnp.abs(safe)) * jnp.sign(safe) - 1 / safe
        cubic = jnp.where(small, parameters, 0.0)
        series = 0.5 + cubic * (1 / 12 + cubic**2 * (-1 / 720 + cubic**2 / 30240))
        return jnp.where(small, series, exact)

    def sample(self, key: Key[Array, ""], parameters: Values) -> Values:
        """Draw pixels by the inverse of the distribution function, log1p(u (e^l - 1)) / l."""
        u = jax.random.uniform(key, parameters.shape)
        a = jnp.abs(parameters)
        small = a < 1e-3
        safe = jnp.where(small, 1.0, a)
        # For l < 0 the density is the mirror image of that of -l.
        mirrored = 1 + jnp.log(u + (1 - u) * jnp.exp(-safe)) / safe
        x = jnp.where(small, u, jnp.clip(mirrored, 0.0, 1.0))
        return jnp.where(parameters < 0, 1 - x, x)


@dataclasses.dataclass(frozen=True)
class Gaussian(Likelihood):
    """Normal density around the decoder's output with one fixed sigma."""

    sigma: float = 0.1

    @classmethod
    def from_settings(cls, settings: Any, image_shape: tuple[int, int, int]) -> "Gaussian":
        """With the settings' sigma."""
        return cls(settings.sigma)

    def log_prob(self, parameters: Pixels, x: Pixels) -> PerImage:
        """Log density in nats."""
        constant = math.log(self.sigma) + 0.5 * math.log(2 * math.pi)
        return -sum_pixels(0.5 * ((x - parameters) / self.sigma) ** 2 + constant)

    def sample(self, key: Key[Array, ""], parameters: Values) -> Values:
        """Draw pixels; they may leave [0, 1]."""
        return parameters + self.sigma * jax.random.normal(key, parameters.shape)


class LearnedGaussian(Likelihood):
    """Normal density with one trained sigma for all values, whose optimum is their RMS error (Rybkin et al. 2021).

    Log sigma is bounded smoothly to +-6, about half a grey level at the least; the parameters hold it in the second
    half of the channels.
    """

    def init(self) -> dict[str, Array]:
        """Log sigma of 0."""
        return {"log_sigma": jnp.zeros(())}

    def fitted(self, pixels: Num[Array | np.ndarray, "n height width channels"]) -> dict[str, Array]:
        """Log of the standard deviation of the pixels, or of one level where they are all the same.

        From 1 the KL term would win the first steps, and most dimensions of the latent would be lost for good.
        """
        sigma = float(np.std(np.asarray(pixels, np.float64)))
        return {"log_sigma": jnp.float32(math.log(max(sigma, 1 / 255)))}

    def complete(self, decoded: Pixels, own: dict[str, Array]) -> Parameters:
        """Mean and log sigma of each value."""
        return jnp.concatenate([decoded, jnp.broadcast_to(own["log_sigma"], decoded.shape)], axis=-1)

    def split(self, parameters: Parameters) -> tuple[Pixels, Pixels]:
        """Mean and bounded log sigma."""
        mean, raw = jnp.split(parameters, 2, axis=-1)
        return mean, smooth_bound(raw, LOG_SIGMA_BOUND)

    def log_prob(self, parameters: Parameters, x: Pixels) -> PerImage:
        """Log density in nats."""
        mean, log_sigma = self.split(parameters)
        square = ((x - mean) * jnp.exp(-log_sigma)) ** 2
        return -sum_pixels(0.5 * square + log_sigma + 0.5 * math.log(2 * math.pi))

    def mean(self, parameters: Parameters) -> Pixels:
        """Expected image."""
        return self.split(parameters)[0]

    def sample(self, key: Key[Array, ""], parameters: Parameters) -> Pixels:
        """Draw pixels; they may leave [0, 1]."""
        mean, log_sigma = self.split(parameters)
        return mean + jnp.exp(log_sigma) * jax.random.normal(key, mean.shape)


class SquaredError(Likelihood):
    """The classic autoencoder's loss ||x - d(e(x))||^2: no likelihood, and not in nats."""

    kind = "none"
    unit = "squared intensity"

    def reconstruction_loss(self, parameters: Pixels, x: Pixels) -> PerImage:
        """Sum of squared differences."""
        return sum_pixels((x - parameters) ** 2)
