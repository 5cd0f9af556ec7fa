"""The diagonal Gaussian of the latent space, and what a decoder's output says of the pixels.

All log probabilities are natural, in nats, summed over the values of one example.
"""

import dataclasses
import math
from typing import Any, ClassVar

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

LOGVAR_BOUND = 15.0
LOG_SIGMA_BOUND = 6.0


def smooth_bound(raw: Float[Array, "*shape"], bound: float) -> Float[Array, "*shape"]:
    """Squash to [-bound, bound] by bound * tanh(raw / bound), so that exponentials stay finite."""
    return bound * jnp.tanh(raw / bound)


def standard_normal(key: Key[Array, "*batch"], shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Draw from N(0, I) with one key for the whole of `shape`, or with one key for each example.

    With one key an example, its noise depends neither on the batch it stands in nor on the device.
    """
    if key.ndim == 0:
        return jax.random.normal(key, shape)
    return jax.vmap(lambda k: jax.random.normal(k, shape[1:]))(key)


@flax.struct.dataclass
class DiagonalGaussian:
    """N(mean, diag(exp(logvar))) over the last axis (Kingma & Welling 2014, section 3)."""

    mean: Float[Array, "*batch latent"]
    logvar: Float[Array, "*batch latent"]

    @classmethod
    def from_features(cls, features: Float[Array, "*batch features"]) -> "DiagonalGaussian":
        """Split an encoder's output into mean and log variance, the latter bounded smoothly to +-15."""
        mean, raw = jnp.split(features, 2, axis=-1)
        return cls(mean, smooth_bound(raw, LOGVAR_BOUND))

    def sample(self, key: Key[Array, "*keys"]) -> Float[Array, "*batch latent"]:
        """Draw mean + sigma * noise: the reparametrisation, differentiable in mean and logvar.

        Args:
            key: one key for the whole batch, or one for each example, [batch].
        """
        return self.mean + jnp.exp(0.5 * self.logvar) * standard_normal(key, self.mean.shape)

    def log_prob(self, z: Float[Array, "*batch latent"]) -> Float[Array, "*batch"]:
        """Log density of z in nats."""
        square = (z - self.mean) ** 2 * jnp.exp(-self.logvar)
        return -0.5 * jnp.sum(square + self.logvar + math.log(2 * math.pi), axis=-1)

    def kl_per_dimension(self) -> Float[Array, "*batch latent"]:
        """KL divergence to N(0, 1) of each dimension in nats (Kingma & Welling 2014, appendix B)."""
        # expm1 keeps the value near the prior, where exp(logvar) - 1 - logvar cancels.
        return 0.5 * (self.mean**2 + jnp.expm1(self.logvar) - self.logvar)

    def kl(self) -> Float[Array, "*batch"]:
        """KL divergence to N(0, I) in nats."""
        return jnp.sum(self.kl_per_dimension(), axis=-1)


def sum_pixels(values: Float[Array, "*batch height width channels"]) -> Float[Array, "*batch"]:
    """Sum over the values of one image."""
    return jnp.sum(values, axis=(-3, -2, -1))


@dataclasses.dataclass(frozen=True)
class Likelihood:
    """p(x | parameters), where the parameters [..., height, width, channels * parameters] are a decoder's output."""

    learned_sigma: ClassVar[bool] = False
    """Whether the decoder has to append log sigma as further channels."""
    unit: ClassVar[str] = "nats"

    def log_prob(self, parameters: Any, x: Any) -> Any:
        """Log probability (density) of each image in nats."""
        raise NotImplementedError

    def reconstruction_loss(
        self,
        parameters: Float[Array, "*batch height width parameters"],
        x: Float[Array, "*batch height width channels"],
    ) -> Float[Array, "*batch"]:
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

    def log_prob(
        self,
        parameters: Float[Array, "*batch height width channels"],
        x: Float[Array, "*batch height width channels"],
    ) -> Float[Array, "*batch"]:
        """Log probability x * logits - softplus(logits), in nats, never by way of a sigmoid."""
        return -sum_pixels(_softplus_minus_linear(parameters, x))

    def mean(self, parameters: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Probability of a 1."""
        return jax.nn.sigmoid(parameters)

    def sample(self, key: Key[Array, ""], parameters: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Draw pixels that are 0 or 1."""
        return jax.random.bernoulli(key, jax.nn.sigmoid(parameters)).astype(parameters.dtype)


class ContinuousBernoulli(Likelihood):
    """Density on [0, 1] proportional to p^x (1 - p)^(1 - x), from logits (Loaiza-Ganem & Cunningham 2019)."""

    def log_normaliser(self, logits: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Log of the constant C(p) = logit / tanh(logit / 2) that makes the density integrate to 1."""
        # Around 0 both parts vanish: a Taylor series there, and a safe argument elsewhere for the gradient.
        small = jnp.abs(logits) < 0.5
        safe = jnp.where(small, 1.0, jnp.abs(logits))
        # tanh(a / 2) = (1 - exp(-a)) / (1 + exp(-a)), which does not cancel in the logarithm.
        exact = jnp.log(safe) + jnp.log1p(jnp.exp(-safe)) - jnp.log1p(-jnp.exp(-safe))
        square = jnp.where(small, logits, 0.0) ** 2
        series = math.log(2.0) + square * (1 / 12 + square * (-7 / 1440 + square * 31 / 90720))
        return jnp.where(small, series, exact)

    def log_prob(
        self,
        parameters: Float[Array, "*batch height width channels"],
        x: Float[Array, "*batch height width channels"],
    ) -> Float[Array, "*batch"]:
        """Log density in nats."""
        return sum_pixels(self.log_normaliser(parameters) - _softplus_minus_linear(parameters, x))

    def mean(self, parameters: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Expected pixel 1 / (1 - exp(-logit)) - 1 / logit, which is not the sigmoid."""
        small = jnp.abs(parameters) < 0.5
        safe = jnp.where(small, 1.0, parameters)
        exact = jnp.where(safe > 0, 1.0, jnp.exp(safe)) / -jnp.expm1(-jnp.abs(safe)) * jnp.sign(safe) - 1 / safe
        cubic = jnp.where(small, parameters, 0.0)
        series = 0.5 + cubic * (1 / 12 + cubic**2 * (-1 / 720 + cubic**2 / 30240))
        return jnp.where(small, series, exact)

    def sample(self, key: Key[Array, ""], parameters: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
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

    def log_prob(
        self,
        parameters: Float[Array, "*batch height width channels"],
        x: Float[Array, "*batch height width channels"],
    ) -> Float[Array, "*batch"]:
        """Log density in nats."""
        constant = math.log(self.sigma) + 0.5 * math.log(2 * math.pi)
        return -sum_pixels(0.5 * ((x - parameters) / self.sigma) ** 2 + constant)

    def sample(self, key: Key[Array, ""], parameters: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Draw pixels; they may leave [0, 1]."""
        return parameters + self.sigma * jax.random.normal(key, parameters.shape)


class LearnedGaussian(Likelihood):
    """Normal density whose log sigma comes in the second half of the channels (Rybkin et al. 2021).

    Log sigma is bounded smoothly to +-6, about half a grey level at the least.
    """

    learned_sigma: ClassVar[bool] = True

    def split(
        self, parameters: Float[Array, "*batch height width twice"]
    ) -> tuple[Float[Array, "*batch height width channels"], Float[Array, "*batch height width channels"]]:
        """Mean and bounded log sigma."""
        mean, raw = jnp.split(parameters, 2, axis=-1)
        return mean, smooth_bound(raw, LOG_SIGMA_BOUND)

    def log_prob(
        self,
        parameters: Float[Array, "*batch height width twice"],
        x: Float[Array, "*batch height width channels"],
    ) -> Float[Array, "*batch"]:
        """Log density in nats."""
        mean, log_sigma = self.split(parameters)
        square = ((x - mean) * jnp.exp(-log_sigma)) ** 2
        return -sum_pixels(0.5 * square + log_sigma + 0.5 * math.log(2 * math.pi))

    def mean(
        self, parameters: Float[Array, "*batch height width twice"]
    ) -> Float[Array, "*batch height width channels"]:
        """Expected image."""
        return self.split(parameters)[0]

    def sample(
        self, key: Key[Array, ""], parameters: Float[Array, "*batch height width twice"]
    ) -> Float[Array, "*batch height width channels"]:
        """Draw pixels; they may leave [0, 1]."""
        mean, log_sigma = self.split(parameters)
        return mean + jnp.exp(log_sigma) * jax.random.normal(key, mean.shape)


class SquaredError(Likelihood):
    """The classic autoencoder's loss ||x - d(e(x))||^2: no likelihood, and not in nats."""

    unit: ClassVar[str] = "squared intensity"

    def reconstruction_loss(
        self,
        parameters: Float[Array, "*batch height width channels"],
        x: Float[Array, "*batch height width channels"],
    ) -> Float[Array, "*batch"]:
        """Sum of squared differences."""
        return sum_pixels((x - parameters) ** 2)


def make_likelihood(name: str, sigma: float) -> Likelihood:
    """The likelihood of that name; `sigma` is used by `gaussian` only."""
    return {
        "bernoulli": Bernoulli,
        "continuous_bernoulli": ContinuousBernoulli,
        "gaussian": lambda: Gaussian(sigma),
        "learned_gaussian": LearnedGaussian,
        "squared_error": SquaredError,
    }[name]()
