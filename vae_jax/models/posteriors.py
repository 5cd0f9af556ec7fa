"""Families of posteriors: what numbers an encoder gives for an image, and the distribution that they are."""

import dataclasses
from typing import Any, ClassVar

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from vae_jax.models.distributions import Delta, DiagonalGaussian, Posterior


@dataclasses.dataclass(frozen=True)
class Family:
    """What q(z | x) can be. A new one overrides all, and is named by `vae_jax.registry.POSTERIORS.register`."""

    independent: ClassVar[bool] = True
    """Whether the dimensions are independent of each other, given the image, as free bits need."""

    @classmethod
    def from_settings(cls, settings: Any) -> "Family":
        """The family that the settings describe."""
        return cls()

    def features(self, latent_dim: int) -> int:
        """Numbers that the encoder gives, a multiple of the latent's dimensions."""
        raise NotImplementedError

    def of(self, features: Float[Array, "*batch features"]) -> Posterior:
        """The posteriors that these are."""
        raise NotImplementedError


class Point(Family):
    """All mass at one code, of an autoencoder."""

    def features(self, latent_dim: int) -> int:
        """The code."""
        return latent_dim

    def of(self, features: Float[Array, "*batch features"]) -> Posterior:
        """The posteriors that these are."""
        return Delta(features)


class Diagonal(Family):
    """Gaussians of independent dimensions."""

    def features(self, latent_dim: int) -> int:
        """Means and log variances."""
        return 2 * latent_dim

    def of(self, features: Float[Array, "*batch features"]) -> Posterior:
        """The posteriors that these are."""
        return DiagonalGaussian.from_features(features)


@dataclasses.dataclass(frozen=True)
class Householder(Family):
    """Gaussians of correlated dimensions, each turned by its own reflections (Tomczak & Welling 2016)."""

    reflections: int = 4
    independent = False

    @classmethod
    def from_settings(cls, settings: Any) -> "Householder":
        """With the settings' reflections."""
        return cls(settings.reflections)

    def features(self, latent_dim: int) -> int:
        """Means and log variances before the reflections, and a vector for each of these."""
        return (2 + self.reflections) * latent_dim

    def of(self, features: Float[Array, "*batch features"]) -> Posterior:
        """The posteriors that these are."""
        latent_dim = features.shape[-1] // (2 + self.reflections)
        base, vectors = jnp.split(features, [2 * latent_dim], axis=-1)
        vectors = vectors.reshape(*vectors.shape[:-1], self.reflections, latent_dim)
        # No vector is 0 where the encoder says nothing yet, and two reflections undo each other there.
        return ReflectedGaussian(DiagonalGaussian.from_features(base), vectors + latent_dim**-0.5)


@flax.struct.dataclass
class ReflectedGaussian(Posterior):
    """A diagonal Gaussian, reflected at the planes that are normal to some vectors, one after another.

    A reflection is z - 2 v (v . z) / (v . v): it keeps lengths and volumes, so that the density of a latent is that of
    where it came from, and the KL divergence to N(0, I) that of the Gaussian before (Tomczak & Welling 2016).
    """

    base: DiagonalGaussian
    """Before the reflections."""
    vectors: Float[Array, "*batch reflections latent"]
    """Of any length above 0."""
    independent = False

    @property
    def mean(self) -> Float[Array, "*batch latent"]:
        """Of the latent, after the reflections."""
        return self._reflected(self.base.mean)

    @property
    def logvar(self) -> Float[Array, "*batch latent"]:
        """Log variance of each dimension of the latent by itself."""
        units = jnp.eye(self.vectors.shape[-1])
        variances = jnp.moveaxis(jnp.exp(self.base.logvar), -1, 0)

        def add(total: Array, one: tuple[Array, Array]) -> tuple[Array, None]:
            unit, variance = one
            return total + variance[..., None] * self._reflected(jnp.broadcast_to(unit, total.shape)) ** 2, None

        return jnp.log(jax.lax.scan(add, jnp.zeros_like(self.base.mean), (units, variances))[0])

    def sample(self, key: Key[Array, "*keys"]) -> Float[Array, "*batch latent"]:
        """Draw, differentiably; keys as of `DiagonalGaussian.sample`."""
        return self._reflected(self.base.sample(key))

    def log_prob(self, z: Float[Array, "*batch latent"]) -> Float[Array, "*batch"]:
        """Log density of z in nats."""
        return self.base.log_prob(self._reflected(z, back=True))

    def kl_per_dimension(self) -> Float[Array, "*batch latent"]:
        """Of each dimension before the reflections, the KL divergence to N(0, 1) in nats."""
        return self.base.kl_per_dimension()

    def kl(self) -> Float[Array, "*batch"]:
        """KL divergence to N(0, I) in nats."""
        return self.base.kl()

    def _reflected(self, z: Array, *, back: bool = False) -> Array:
        order = range(self.vectors.shape[-2])
        for place in reversed(order) if back else order:
            v = self.vectors[..., place, :]
            length = jnp.maximum(jnp.sum(v**2, axis=-1, keepdims=True), 1e-30)
            z = z - 2 * v * (jnp.sum(v * z, axis=-1, keepdims=True) / length)
        return z
