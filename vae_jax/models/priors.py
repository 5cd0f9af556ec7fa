"""Priors: the distribution of the latent before an image is seen. Log probabilities and divergences are in nats."""

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

Parameters = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Prior:
    """p(z). A new one overrides `log_prob` and `sample`, and is named by `vae_jax.registry.PRIORS.register`."""

    per_dimension: ClassVar[bool] = False
    """Whether `kl` is the sum of the posterior's `kl_per_dimension`, as free bits need."""

    @classmethod
    def from_settings(cls, settings: Any) -> "Prior":
        """The prior that the settings describe."""
        return cls()

    def init(self, key: Key[Array, ""], latent_dim: int) -> Parameters:
        """Parameters of its own, trained with the networks."""
        return {}

    def log_prob(self, params: Parameters, z: Float[Array, "batch latent"]) -> Float[Array, " batch"]:
        """Log density of latents."""
        raise NotImplementedError

    def sample(
        self, params: Parameters, key: Key[Array, ""], shape: tuple[int, int], temperature: Any = 1.0
    ) -> Float[Array, "number latent"]:
        """Draw latents of this shape, (number, latent); the temperature multiplies how far they spread."""
        raise NotImplementedError

    def kl(self, params: Parameters, posterior: Any, z: Float[Array, "batch latent"]) -> Float[Array, " batch"]:
        """KL divergence of posteriors from the prior, estimated from one sample z of each: log q(z) - log p(z)."""
        return posterior.log_prob(z) - self.log_prob(params, z)


class NoPrior(Prior):
    """Of an autoencoder, whose codes cost nothing and can't be drawn."""

    per_dimension = True

    def log_prob(self, params: Parameters, z: Float[Array, "batch latent"]) -> Float[Array, " batch"]:
        """Zeros."""
        return jnp.zeros(z.shape[:-1])


class StandardNormal(Prior):
    """N(0, I)."""

    per_dimension = True

    def log_prob(self, params: Parameters, z: Float[Array, "batch latent"]) -> Float[Array, " batch"]:
        """Log density of latents."""
        return -0.5 * jnp.sum(z**2 + math.log(2 * math.pi), axis=-1)

    def sample(
        self, params: Parameters, key: Key[Array, ""], shape: tuple[int, int], temperature: Any = 1.0
    ) -> Float[Array, "number latent"]:
        """Draw latents of this shape, (number, latent), from N(0, temperature^2 I)."""
        return temperature * jax.random.normal(key, shape)

    def kl(self, params: Parameters, posterior: Any, z: Any = None) -> Float[Array, " batch"]:
        """KL divergence of posteriors from the prior, in closed form."""
        return posterior.kl()
