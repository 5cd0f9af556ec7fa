"""Priors made of diagonal Gaussians: a mixture, one of the encoder's own posteriors, one Gaussian for each class."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from vae_jax.errors import UsageError
from vae_jax.models.distributions import DiagonalGaussian
from vae_jax.models.priors import Parameters, Prior

PSEUDO = "pseudo_inputs"
SPREAD = 0.3
"""Standard deviation of a mixture's first means."""


@dataclasses.dataclass(frozen=True)
class Mixture(Prior):
    """sum_k w_k N(m_k, diag(v_k)), all of it trained.

    It begins with the mean and the covariance of N(0, I): drawn means, and variances that make up the rest. Means far
    apart would cost the first posteriors tens of nats in many dimensions.
    """

    components: int = 100

    @classmethod
    def from_settings(cls, settings: Any) -> "Mixture":
        """With the settings' number of components."""
        return cls(settings.prior_components)

    def init(self, key: Key[Array, ""], latent_dim: int) -> Parameters:
        """Means and log variances [components, latent], logits of the weights [components]."""
        shape = (self.components, latent_dim)
        logvar = jnp.full(shape, math.log(1 - SPREAD**2))
        return {"mean": SPREAD * jax.random.normal(key, shape), "logvar": logvar, "logits": jnp.zeros(shape[0])}

    def log_prob(self, params: Parameters, z: Float[Array, "batch latent"]) -> Float[Array, " batch"]:
        """Log density of latents."""
        return jax.nn.logsumexp(_of_components(z, params) + jax.nn.log_softmax(params["logits"])[None, :], axis=-1)

    def sample(
        self, params: Parameters, key: Key[Array, ""], shape: tuple[int, int], temperature: Any = 1.0
    ) -> Float[Array, "number latent"]:
        """Draw latents of this shape, (number, latent); the temperature multiplies their distance from their mean."""
        which, where = jax.random.split(key)
        chosen = jax.random.categorical(which, params["logits"], shape=shape[:1])
        sigma = jnp.exp(0.5 * params["logvar"][chosen])
        return params["mean"][chosen] + temperature * sigma * jax.random.normal(where, shape)


def _of_components(z: Float[Array, "batch latent"], params: Parameters) -> Float[Array, "batch components"]:
    # Log density of each latent under each component; by differences, as squares multiplied out would cancel. Summed
    # one dimension after another: a CPU then works on whole rows of components, in a quarter of the time.
    mean, logvar = params["mean"], params["logvar"]

    def add(total: Array, dimension: tuple[Array, Array, Array]) -> tuple[Array, None]:
        z, mean, precision = dimension
        return total + (z[:, None] - mean[None]) ** 2 * precision[None], None

    each, unroll = (z.T, mean.T, jnp.exp(-logvar).T), 1 if jax.default_backend() == "cpu" else 8
    square = jax.lax.scan(add, jnp.zeros_like(z[:, :1] - mean[None, :, 0]), each, unroll=unroll)[0]
    return -0.5 * (square + jnp.sum(logvar + math.log(2 * math.pi), axis=-1)[None])


@dataclasses.dataclass(frozen=True)
class Vamp(Mixture):
    """The variational mixture of posteriors: the mean of q(z | u) over learned images u (Tomczak & Welling 2018).

    The pseudo-inputs u begin as training images.
    """

    image_shape: tuple[int, int, int] = (0, 0, 0)
    classes: tuple[int, ...] = ()
    """Of a conditional model: they belong to these classes in turn."""

    @property
    def images(self) -> int:
        """As many as components."""
        return self.components

    @property
    def labels(self) -> np.ndarray | None:
        """The class of each pseudo-input."""
        return np.resize(np.array(self.classes, np.int32), self.components) if self.classes else None

    def suited(self, image_shape: tuple[int, int, int], latent_dim: int, classes: tuple[int, ...]) -> "Vamp":
        """With pseudo-inputs of this shape."""
        return dataclasses.replace(self, image_shape=image_shape, classes=classes)

    def init(self, key: Key[Array, ""], latent_dim: int) -> Parameters:
        """Pseudo-inputs of noise, in place of which training puts images."""
        return {PSEUDO: 0.5 + 0.1 * jax.random.normal(key, (self.components, *self.image_shape))}

    def begun(self, images: Float[Array, "components height width channels"]) -> Parameters:
        """Pseudo-inputs that are these images."""
        return {PSEUDO: images}

    def prepared(self, params: Parameters, encode: Callable[[Array, Any], Any]) -> Parameters:
        """The posteriors of the pseudo-inputs, as parameters of a mixture."""
        if PSEUDO not in params:
            return params
        posterior = encode(params[PSEUDO], self.labels)
        return {"mean": posterior.mean, "logvar": posterior.logvar, "logits": jnp.zeros(self.components)}


@dataclasses.dataclass(frozen=True)
class OfClass(Prior):
    """p(z | y) of a conditional model: a diagonal Gaussian for each class y, at first N(0, I)."""

    classes: int = 0
    estimated: ClassVar[bool] = False
    by_class: ClassVar[bool] = True

    def suited(self, image_shape: tuple[int, int, int], latent_dim: int, classes: tuple[int, ...]) -> "OfClass":
        """With a Gaussian for each of the classes.

        Raises:
            UsageError: there are none.
        """
        if not classes:
            raise UsageError("--prior class needs a model that knows classes.\nAdd --condition labels.")
        return dataclasses.replace(self, classes=len(classes))

    def init(self, key: Key[Array, ""], latent_dim: int) -> Parameters:
        """Means and log variances [classes, latent]."""
        return {name: jnp.zeros((self.classes, latent_dim)) for name in ("mean", "logvar")}

    def of_examples(self, params: Parameters, chosen: Float[Array, "batch classes"]) -> Parameters:
        """Mean and log variance [batch, latent] of the class of each example."""
        # A product in place of a choice of rows: its gradient is a product, too.
        return {name: jnp.dot(chosen, table, precision="highest") for name, table in params.items()}

    def log_prob(self, params: Parameters, z: Float[Array, "batch latent"]) -> Float[Array, " batch"]:
        """Log density of latents."""
        return DiagonalGaussian(**params).log_prob(z)

    def sample(
        self, params: Parameters, key: Key[Array, ""], shape: tuple[int, int], temperature: Any = 1.0
    ) -> Float[Array, "number latent"]:
        """Draw a latent for each class given; the temperature multiplies their distance from the class's mean."""
        return params["mean"] + temperature * jnp.exp(0.5 * params["logvar"]) * jax.random.normal(key, shape)

    def kl(self, params: Parameters, posterior: Any, z: Any = None) -> Float[Array, " batch"]:
        """KL divergence of posteriors from the prior, in closed form."""
        narrower = posterior.logvar - params["logvar"]
        square = (posterior.mean - params["mean"]) ** 2 * jnp.exp(-params["logvar"])
        return 0.5 * jnp.sum(square + jnp.expm1(narrower) - narrower, axis=-1)
