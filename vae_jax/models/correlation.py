"""The total correlation of a latent: how far its dimensions are from being independent over all images, in nats."""

import dataclasses
import math
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.errors import UsageError
from vae_jax.models.inputs import Batch
from vae_jax.models.objectives import Objective, Terms

Rows: TypeAlias = Float[Array, "batch latent"]


class Sample(NamedTuple):
    """A latent drawn from the posterior of each example, and that posterior."""

    z: Rows
    mean: Rows
    logvar: Rows


class Decomposition(NamedTuple):
    """The parts of each example's log q(z | x) - log p(z) (Chen et al. 2018, equation 2); their means are the KL's."""

    information: Float[Array, " batch"]
    """log q(z | x) - log q(z): what the latent says of the image."""
    correlation: Float[Array, " batch"]
    """log q(z) - sum over dimensions of log q(z_d): the total correlation."""
    dimensions: Float[Array, " batch"]
    """The sum over dimensions of log q(z_d) - log p(z_d), with p = N(0, 1)."""


def decomposition(sample: Sample, weights: Float[Array, " batch"]) -> Decomposition:
    """The terms of each example, where q(z) is the mixture of the posteriors of the batch.

    Minibatch-weighted sampling (Chen et al. 2018, equation 5) sets q(z) to the sum of the batch's posteriors over the
    sizes of batch and data set; this is their mean. The two differ by a constant, so the gradients are the same, and
    with the mean the total correlation is an unbiased estimate of that of the mixture.

    Args:
        sample: of the whole batch.
        weights: 1 for an example, 0 for padding.
    """
    each = _log_normal(sample.z[:, None], sample.mean[None], sample.logvar[None])  # [batch, batch, latent]
    number = jnp.log(jnp.sum(weights))
    joint = jax.nn.logsumexp(jnp.sum(each, axis=-1), axis=1, b=weights[None]) - number
    marginals = jnp.sum(jax.nn.logsumexp(each, axis=1, b=weights[None, :, None]) - number, axis=-1)
    own = jnp.sum(_log_normal(*sample), axis=-1)
    prior = jnp.sum(_log_normal(sample.z, jnp.zeros(()), jnp.zeros(())), axis=-1)
    return Decomposition(own - joint, joint - marginals, marginals - prior)


def _log_normal(z: Array, mean: Array, logvar: Array) -> Array:
    return -0.5 * ((z - mean) ** 2 * jnp.exp(-logvar) + logvar + math.log(2 * math.pi))


@dataclasses.dataclass(frozen=True)
class TotalCorrelation(Objective):
    """Reconstruction + KL + (weight - 1) * total correlation: beta-TCVAE with alpha = gamma = 1 (Chen et al. 2018).

    The weight is the paper's beta; with 1 it is the negative evidence lower bound. An example's latent is compared with
    the posteriors of all examples of the batch, so that memory and work of a step grow with the square of the batch.
    """

    weight: Any = 6.0
    pairs = True

    @classmethod
    def from_settings(cls, settings: Any) -> "TotalCorrelation":
        """With the settings' weight."""
        return cls(settings.tc_weight)

    def check(self, model: Any) -> None:
        """Without a posterior of independent dimensions, or with one dimension, there is no total correlation."""
        if not model.stochastic or not model.posterior.independent or model.latent_dim < 2:
            raise UsageError(
                "--objective tc needs --model vae, a --posterior of independent dimensions and a --latent-dim of at "
                f"least 2,\ngot {model.name}, {type(model.posterior).__name__} and {model.latent_dim}."
            )

    def rows(self, model: Any, params: Any, batch: Batch) -> Float[Array, "part values"]:
        """A sample of each example, and its weight."""
        posterior = model.encode(params, batch.inputs, batch.labels)
        # As one array, which devices tell each other in one message.
        values = posterior.sample(batch.keys), posterior.mean, posterior.logvar, batch.weights[:, None]
        return jnp.concatenate(values, axis=-1)

    def coupled(self, rows: Float[Array, "batch values"]) -> tuple[Array, Sample]:
        """The total correlation of each example, and the gradient of the sum of all in its sample."""
        sample, weights = Sample(*jnp.split(rows[:, :-1], 3, axis=-1)), rows[:, -1]

        def summed(sample: Sample) -> tuple[Array, Array]:
            each = decomposition(sample, weights).correlation
            return jnp.sum(weights * each), each

        slopes, each = jax.grad(summed, has_aux=True)(sample)
        return each, slopes

    def __call__(self, model: Any, params: Any, batch: Batch, step: Float[Array, ""], statistics: Any = None) -> Terms:
        """The terms of each example; `kl` is without the weight."""
        self.check(model)
        posterior = model.encode(params, batch.inputs, batch.labels)
        z = posterior.sample(batch.keys)
        reconstruction = model.likelihood.reconstruction_loss(model.decode(params, z, batch.labels), batch.x)
        kl = model.kl(params, posterior, z, batch.labels)
        correlation, slopes = jax.lax.stop_gradient(statistics)
        # The value is known; its gradient comes by way of each example's own sample.
        for slope, own in zip(slopes, Sample(z, posterior.mean, posterior.logvar), strict=True):
            correlation = correlation + jnp.sum(slope * (own - jax.lax.stop_gradient(own)), axis=-1)
        return Terms(reconstruction + kl + (self.weight - 1) * correlation, reconstruction, kl)
