"""Importance-weighted bounds as objectives: several latents an image tell more of log p(x) than one. In nats."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from vae_jax.errors import UsageError
from vae_jax.models.inputs import Batch
from vae_jax.models.objectives import Objective, Terms, importance_weighted_bound


@dataclasses.dataclass(frozen=True)
class IWAE(Objective):
    """Minus the log of the mean of `samples` importance weights p(x, z) / q(z | x) (Burda et al. 2015, equation 8).

    With one sample it is the negative evidence lower bound, whose KL is estimated by log q - log p. Several `groups` of
    samples give the mean of their bounds (MIWAE), and `elbo_share` is the weight of the evidence lower bound beside it
    (CIWAE; Rainforth et al. 2018, sections 4.1 and 4.2).

    The reconstruction and the KL of a row are means over the samples, so that they add up to the negative evidence
    lower bound as for every other objective; the importance-weighted bound is the row's objective. Validation goes by
    that bound, `iwae_loss`: the best checkpoint and early stopping do.
    """

    samples: int = 5
    """Of a bound."""
    groups: int = 1
    elbo_share: float = 0.0

    @classmethod
    def from_settings(cls, settings: Any) -> "IWAE":
        """With the settings' samples, groups and share."""
        return cls(settings.importance_samples, settings.importance_groups, settings.elbo_share)

    @property
    def latents(self) -> int:
        """Decoded of an image."""
        return self.samples * self.groups

    @property
    def bound_samples(self) -> int:
        """The samples."""
        return self.samples

    def check(self, model: Any) -> None:
        """An autoencoder draws nothing."""
        if not model.stochastic:
            raise UsageError(f"--objective {type(self).__name__.lower()} needs --model vae, got a model {model.name}.")

    def drawn(self, posterior: Any, keys: Key[Array, "latents batch"]) -> tuple[Any, Any, Any]:
        """Latents of each image, their log densities under the posterior, and what the log weights get added."""
        z = jax.vmap(posterior.sample)(keys)
        return z, jax.vmap(posterior.log_prob)(z), jnp.zeros(keys.shape)

    def __call__(self, model: Any, params: Any, batch: Batch, step: Float[Array, ""], statistics: Any = None) -> Terms:
        """The terms of each example."""
        self.check(model)
        posterior = model.encode(params, batch.inputs, batch.labels)
        fold = jax.vmap(jax.vmap(jax.random.fold_in, (0, None)), (None, 0))
        z, log_q, more = self.drawn(posterior, fold(batch.keys, jnp.arange(self.latents)))
        known = model.prepared(params)  # once for all latents
        log_p = jax.vmap(lambda z: model.log_prior(known, z, batch.labels))(z)
        # All latents of all images are one batch of the decoder: on a CPU, too, that is quicker than one after another.
        x, labels = jax.tree.map(self._of_each_latent, (batch.x, batch.labels))
        decoded = model.decode(params, z.reshape(-1, z.shape[-1]), labels)
        losses = model.likelihood.reconstruction_loss(decoded, x).reshape(log_q.shape)
        log_weights = log_p - log_q - losses + more
        bounds = importance_weighted_bound(log_weights.reshape(self.samples, -1)).reshape(self.groups, -1)
        bound = (1 - self.elbo_share) * jnp.mean(bounds, axis=0) + self.elbo_share * jnp.mean(log_weights, axis=0)
        kl = jax.vmap(lambda z: model.kl(known, posterior, z, batch.labels))(z)
        return Terms(-bound, jnp.mean(losses, axis=0), jnp.mean(kl, axis=0))

    def _of_each_latent(self, values: Array) -> Array:
        repeated = jnp.broadcast_to(values[None], (self.latents, *values.shape))
        return repeated.reshape(-1, *values.shape[1:])


@dataclasses.dataclass(frozen=True)
class DReG(IWAE):
    """The same bound, with a gradient for the encoder that gets less noisy with more samples (Tucker et al. 2018).

    IWAE's own gets noisier in relation to its size (Rainforth et al. 2018). Here the encoder gets the sum over samples
    of w^2 times the derivative of log w by way of the latent alone (equation 8), with the weights w normalised to a sum
    of 1; all other parameters get IWAE's.
    """

    def __post_init__(self) -> None:
        if self.elbo_share:
            raise UsageError(f"--elbo-share must be 0 for --objective dreg, got {self.elbo_share}.\nUse iwae.")

    def drawn(self, posterior: Any, keys: Key[Array, "latents batch"]) -> tuple[Any, Any, Any]:
        """Latents with the path of that gradient, and log densities of which the posterior gets none of its own."""
        fixed = jax.tree.map(jax.lax.stop_gradient, posterior)
        z = jax.vmap(posterior.sample)(keys)
        grouped, zeros = _weighed_path(z.reshape(self.samples, -1, z.shape[-1]))
        z = grouped.reshape(z.shape)
        return z, jax.vmap(fixed.log_prob)(z), zeros.reshape(keys.shape)


@jax.custom_vjp
def _weighed_path(z: Float[Array, "samples batch latent"]) -> tuple[Array, Array]:
    # The latents as they are, and zeros for the log weights. The gradient of a bound that comes back to those zeros is
    # the normalised weight of each sample, times one factor for all, and scales the gradient that comes back to z.
    return z, jnp.zeros(z.shape[:-1])


def _forward(z: Array) -> tuple[Any, None]:
    return _weighed_path(z), None


def _backward(_: None, cotangents: tuple[Array, Array]) -> tuple[Array]:
    path, weights = cotangents
    factor = jnp.sum(weights, axis=0, keepdims=True)
    normalised = jnp.where(factor == 0, 0.0, weights / jnp.where(factor == 0, 1.0, factor))
    return (normalised[..., None] * path,)


_weighed_path.defvjp(_forward, _backward)
