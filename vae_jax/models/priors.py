"""Priors: the distribution of the latent before an image is seen. Log probabilities and divergences are in nats."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from scipy import linalg

Parameters = dict[str, Any]
RIDGE = 1e-8
"""What a fitted covariance gets added to each variance, as a share of their mean: so that it has an inverse."""
_ROWS = 4096


@dataclasses.dataclass(frozen=True)
class Prior:
    """p(z). A new one overrides `log_prob` and `sample`, and is named by `vae_jax.registry.PRIORS.register`.

    `log_prob`, `sample` and `kl` are given its own parameters as `prepared` and `of_examples` leave them.
    """

    per_dimension: ClassVar[bool] = False
    """Whether `kl` is the sum of the posterior's `kl_per_dimension`, as free bits need."""
    estimated: ClassVar[bool] = True
    """Whether `kl` is an estimate, log q(z) - log p(z) at the latent sample, where no closed form is known."""
    has_density: ClassVar[bool] = True
    """Whether it can be drawn from."""
    by_class: ClassVar[bool] = False
    """Whether it depends on the class, of a conditional model."""

    @classmethod
    def from_settings(cls, settings: Any) -> "Prior":
        """The prior that the settings describe."""
        return cls()

    def suited(self, image_shape: tuple[int, int, int], latent_dim: int, classes: tuple[int, ...]) -> "Prior":
        """The same for a model of these images, latents and classes; a UsageError where there is none."""
        return self

    def init(self, key: Key[Array, ""], latent_dim: int) -> Parameters:
        """Parameters of its own, trained with the networks."""
        return {}

    def begun(self, images: Float[Array, "images height width channels"]) -> Parameters:
        """Parameters to begin with in place of those of `init`, from `images` training images: those it has to see."""
        return {}

    @property
    def images(self) -> int:
        """How many training images `begun` is to see."""
        return 0

    def prepared(self, params: Parameters, encode: Callable[[Any, Any], Any]) -> Parameters:
        """Its parameters once its part of the networks' work is done, as often as it is called.

        Args:
            params: its own, or what came of them here before.
            encode: gives the posterior of images, for which the second argument are their labels.
        """
        return params

    def of_examples(self, params: Parameters, chosen: Float[Array, "batch classes"]) -> Parameters:
        """Its parameters for examples of a conditional model, with 1 at the class of each."""
        return params

    def log_prob(self, params: Parameters, z: Float[Array, "batch latent"]) -> Float[Array, " batch"]:
        """Log density of latents."""
        raise NotImplementedError

    def sample(
        self, params: Parameters, key: Key[Array, ""], shape: tuple[int, int], temperature: Any = 1.0
    ) -> Float[Array, "number latent"]:
        """Draw latents of this shape, (number, latent); the temperature multiplies how far they spread."""
        raise NotImplementedError

    def from_noise(self, params: Parameters, noise: Float[Array, "number latent"]) -> Any:
        """Latents that white noise of their shape becomes, as an exported model needs it; None of other priors."""
        return None

    def kl(self, params: Parameters, posterior: Any, z: Float[Array, "batch latent"]) -> Float[Array, " batch"]:
        """KL divergence of posteriors from the prior, estimated from one sample z of each: log q(z) - log p(z)."""
        return posterior.log_prob(z) - self.log_prob(params, z)


class NoPrior(Prior):
    """Of an autoencoder, whose codes cost nothing and can't be drawn."""

    per_dimension = True
    estimated = False
    has_density = False

    def log_prob(self, params: Parameters, z: Float[Array, "batch latent"]) -> Float[Array, " batch"]:
        """Zeros."""
        return jnp.zeros(z.shape[:-1])


class StandardNormal(Prior):
    """N(0, I)."""

    per_dimension = True
    estimated = False

    def log_prob(self, params: Parameters, z: Float[Array, "batch latent"]) -> Float[Array, " batch"]:
        """Log density of latents."""
        return -0.5 * jnp.sum(z**2 + math.log(2 * math.pi), axis=-1)

    def sample(
        self, params: Parameters, key: Key[Array, ""], shape: tuple[int, int], temperature: Any = 1.0
    ) -> Float[Array, "number latent"]:
        """Draw latents of this shape, (number, latent), from N(0, temperature^2 I)."""
        return temperature * jax.random.normal(key, shape)

    def from_noise(self, params: Parameters, noise: Float[Array, "number latent"]) -> Float[Array, "number latent"]:
        """The noise itself."""
        return noise

    def kl(self, params: Parameters, posterior: Any, z: Any = None) -> Float[Array, " batch"]:
        """KL divergence of posteriors from the prior, in closed form."""
        return posterior.kl()


class FullGaussian(Prior):
    """N(mean, covariance) with any covariance: N(0, I) at first, and fitted to the codes of a trained model by `fit`.

    Its parameters are the mean and the inverse of the covariance's Cholesky factor, which makes latents white.
    """

    estimated = False

    def init(self, key: Key[Array, ""], latent_dim: int) -> Parameters:
        """Those of N(0, I)."""
        return {"mean": jnp.zeros(latent_dim), "whitening": jnp.eye(latent_dim)}

    @staticmethod
    def fit(means: Float[np.ndarray, "n latent"], logvars: Float[np.ndarray, "n latent"] | None = None) -> Parameters:
        """Parameters of the Gaussian nearest to the aggregate posterior, the equal mixture of all images' posteriors.

        It has the mixture's moments: the mean of the means, and their covariance plus the mean of the variances. No
        Gaussian has a smaller mean KL divergence of the posteriors from it. In float64, with the ridge `RIDGE`.

        Args:
            means: posterior means, or codes.
            logvars: log variances of the posteriors; None of codes.
        """
        mean, scatter = means.mean(axis=0, dtype=np.float64), np.zeros(2 * means.shape[1:])
        for start in range(0, len(means), _ROWS):  # few at a time, for the memory
            centred = means[start : start + _ROWS] - mean
            scatter += centred.T @ centred
        covariance = scatter / len(means)
        if logvars is not None:
            covariance += np.diag(np.mean(np.exp(logvars, dtype=np.float64), axis=0))
        ridge = max(RIDGE * np.trace(covariance) / len(covariance), float(np.finfo(np.float32).tiny))
        identity = np.eye(len(covariance))
        factor = np.linalg.cholesky(covariance + ridge * identity)
        whitening = linalg.solve_triangular(factor, identity, lower=True)
        return {"mean": jnp.asarray(mean, jnp.float32), "whitening": jnp.asarray(whitening, jnp.float32)}

    def log_prob(self, params: Parameters, z: Float[Array, "batch latent"]) -> Float[Array, " batch"]:
        """Log density of latents."""
        return -0.5 * (jnp.sum(whitened(params, z) ** 2 + math.log(2 * math.pi), axis=-1) + log_volume(params))

    def sample(
        self, params: Parameters, key: Key[Array, ""], shape: tuple[int, int], temperature: Any = 1.0
    ) -> Float[Array, "number latent"]:
        """Draw latents of this shape, (number, latent); the temperature multiplies their distance from the mean."""
        return unwhitened(params, temperature * jax.random.normal(key, shape))

    def from_noise(self, params: Parameters, noise: Float[Array, "number latent"]) -> Float[Array, "number latent"]:
        """Noise with the covariance, about the mean."""
        return unwhitened(params, noise)

    def kl(self, params: Parameters, posterior: Any, z: Any = None) -> Float[Array, " batch"]:
        """KL divergence of posteriors from the prior, in closed form."""
        precisions = jnp.sum(params["whitening"] ** 2, axis=0, keepdims=True)
        spread = jnp.sum(precisions * jnp.exp(posterior.logvar) - posterior.logvar - 1, axis=-1)
        distance = jnp.sum(whitened(params, posterior.mean) ** 2, axis=-1)
        return 0.5 * (spread + distance + log_volume(params))


def drawn_about(
    codes: Float[Array, "codes latent"], key: Key[Array, ""], number: int, temperature: Any = 1.0
) -> Float[Array, "number latent"]:
    """Draws of the Gaussian that has the mean and the covariance of codes; the temperature as of `Prior.sample`."""
    centre = jnp.mean(codes, axis=0, keepdims=True)
    # Without a factorisation: random combinations of the centred codes.
    noise = temperature * jax.random.normal(key, (number, len(codes))) / jnp.sqrt(float(len(codes)))
    return centre + noise @ (codes - centre)


def whitened(params: Parameters, z: Float[Array, "batch latent"]) -> Float[Array, "batch latent"]:
    """Latents as a fitted Gaussian makes them white."""
    # With all of float32's digits, also where products are computed with fewer.
    return jnp.matmul(z - params["mean"][None], params["whitening"].T, precision="highest")


def unwhitened(params: Parameters, white: Float[Array, "batch latent"]) -> Float[Array, "batch latent"]:
    """The inverse of `whitened`."""
    spread = jax.scipy.linalg.solve_triangular(params["whitening"], white.T, lower=True)
    return params["mean"][None] + spread.T


def log_volume(params: Parameters) -> Float[Array, ""]:
    """Log determinant of a fitted Gaussian's covariance."""
    return -2 * jnp.sum(jnp.log(jnp.diagonal(params["whitening"])))
