"""Posteriors of the latent: what an encoder says of an image. Log probabilities and divergences are in nats."""

import math
from typing import Any, ClassVar

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

LOGVAR_BOUND = 15.0


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


class Posterior:
    """q(z | x) of some images: `mean`, `sample(keys)` and `log_prob(z)`, and `kl()` to N(0, I)."""

    independent: ClassVar[bool] = True
    """Whether the dimensions are independent of each other, given the image."""
    mean: Any
    """Of each latent, [*batch, latent]."""
    logvar: Any
    """Log variance of each dimension by itself; None where there is no density."""

    def sample(self, key: Any) -> Any:
        """Draw latents, [*batch, latent], by one key, or by one for each example."""
        raise NotImplementedError

    def log_prob(self, z: Any) -> Any:
        """Log density of latents in nats, [*batch]."""
        raise NotImplementedError

    def kl_per_dimension(self) -> Any:
        """KL divergence to N(0, 1) of each dimension in nats, [*batch, latent]."""
        raise NotImplementedError

    def kl(self) -> Any:
        """KL divergence to N(0, I) in nats, [*batch]."""
        raise NotImplementedError


@flax.struct.dataclass
class DiagonalGaussian(Posterior):
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


@flax.struct.dataclass
class Delta(Posterior):
    """All mass at one code: the posterior of an autoencoder. A sample is the code, and nothing is paid for it."""

    mean: Float[Array, "*batch latent"]
    logvar: None = None

    def sample(self, key: Any = None) -> Float[Array, "*batch latent"]:
        """The code, whatever the key."""
        return self.mean

    def log_prob(self, z: Float[Array, "*batch latent"]) -> Float[Array, "*batch"]:
        """Zeros."""
        return jnp.zeros(z.shape[:-1])

    def kl_per_dimension(self) -> Float[Array, "*batch latent"]:
        """Zeros."""
        return jnp.zeros_like(self.mean)

    def kl(self) -> Float[Array, "*batch"]:
        """Zeros."""
        return jnp.zeros(self.mean.shape[:-1], self.mean.dtype)
