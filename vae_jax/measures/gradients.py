"""What the reparametrisation does: gradients of an expected loss with respect to the posterior's parameters.

The loss is E_q[f(z)] with q = N(mean, exp(logvar)) and f the reconstruction loss of one image. Three estimators from
one sample z: the pathwise one (Kingma & Welling 2014, section 2.4), the score function (Williams 1992), and what is
left when z is drawn plainly, without a path from the parameters to it.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from vae_jax.models.distributions import DiagonalGaussian

Loss = Callable[[Array], Array]
"""Of one latent [latent], a number."""
Gradient = DiagonalGaussian
"""Derivatives with respect to mean and logvar, in the same places."""


def pathwise_gradient(loss: Loss, posterior: DiagonalGaussian, key: Key[Array, ""]) -> Gradient:
    """Gradient through z = mean + sigma * noise; unbiased. Here the loss has to be differentiable."""
    return jax.grad(lambda q: loss(q.sample(key)))(posterior)


def plain_gradient(loss: Loss, posterior: DiagonalGaussian, key: Key[Array, ""]) -> Gradient:
    """Gradient through a sample that is drawn plainly: zero, as a draw is a constant."""
    return jax.grad(lambda q: loss(jax.lax.stop_gradient(q.sample(key))))(posterior)


def score_function_gradient(
    loss: Loss, posterior: DiagonalGaussian, key: Key[Array, ""], baseline: Float[Array, ""] | float = 0.0
) -> Gradient:
    """(f(z) - baseline) times the gradient of log q(z); unbiased, and needs no derivative of the loss.

    The baseline is any number that does not depend on this sample.
    """
    z = jax.lax.stop_gradient(posterior.sample(key))
    score = jax.grad(lambda q: q.log_prob(z))(posterior)
    return jax.tree.map(lambda s: (loss(z) - baseline) * s, score)


def expected_loss(loss: Loss, posterior: DiagonalGaussian, keys: Key[Array, " samples"]) -> Float[Array, ""]:
    """Mean loss of one sample a key: with the same keys, common random numbers, a smooth function of the posterior."""
    return jnp.mean(jax.vmap(lambda key: loss(posterior.sample(key)))(keys))
