"""What training minimises and what evaluation reports: per-example values in nats, [batch].

beta = 1 without free bits is the negative evidence lower bound (Kingma & Welling 2014, equation 3).
"""

import math
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

T = TypeVar("T")


class Terms(NamedTuple):
    """The parts of a loss, one value an example."""

    objective: Float[Array, " batch"]
    """What the gradient is taken of: with warm-up, free bits or a sparsity penalty, not what the two terms say."""
    reconstruction: Float[Array, " batch"]
    kl: Float[Array, " batch"]
    """The full KL divergence, without beta and without free bits; 0 for an autoencoder."""


def kl_weight(step: Float[Array, ""], beta: float | Float[Array, ""], warmup_steps: int) -> Float[Array, ""]:
    """Weight of the KL term at a step: from 0 to beta in a straight line over the warm-up steps."""
    if warmup_steps == 0:
        return jnp.full_like(step, beta)
    return beta * jnp.minimum(step / warmup_steps, 1.0)


def total(values: T, axis: str | None = None) -> T:
    """The sum of each float32 array over the devices of a mapped axis; without one the arrays themselves."""
    if axis is None:
        return values
    # All in one message, as each costs milliseconds between processes.
    flat, unflatten = ravel_pytree(values)
    return unflatten(jax.lax.psum(flat, axis))


def free_bits_kl(
    kl_per_dimension: Float[Array, "batch latent"],
    free_bits: float,
    weights: Float[Array, " batch"],
    axis: str | None = None,
) -> Float[Array, " batch"]:
    """KL divergence in which a dimension costs at least `free_bits` nats (Kingma et al. 2016, equation 15).

    Its weighted mean over the batch is the sum over dimensions of max(free_bits, batch mean of that dimension's
    KL), and so is its gradient: a dimension below the threshold gives none.

    Args:
        kl_per_dimension: nats.
        free_bits: nats a dimension; 0 gives the plain sum over dimensions.
        weights: weight of each example in the batch mean, 0 for padding.
        axis: of the devices that hold the rest of the batch.
    """
    if free_bits == 0:
        return jnp.sum(kl_per_dimension, axis=-1)
    mean = _batch_mean(kl_per_dimension, weights, axis)
    free = (mean < free_bits)[None, :]
    return jnp.sum(jnp.where(free, free_bits, kl_per_dimension), axis=-1)


def l1_penalty(code: Float[Array, "batch latent"]) -> Float[Array, " batch"]:
    """Sum of the absolute values of each code."""
    return jnp.sum(jnp.abs(code), axis=-1)


def kl_penalty(
    code: Float[Array, "batch latent"], target: float, weights: Float[Array, " batch"], axis: str | None = None
) -> Float[Array, " batch"]:
    """Sum over units of KL[Bernoulli(target), Bernoulli(mean activation)] in nats (Ng 2011, section 3).

    The mean is taken over the batch, so that every example has the same value.

    Args:
        code: activations in (0, 1).
        target: the wanted mean activation.
        weights: weight of each example in the batch mean, 0 for padding.
        axis: of the devices that hold the rest of the batch.
    """
    mean = _batch_mean(code, weights, axis)
    mean = jnp.clip(mean, 1e-6, 1 - 1e-6)  # a sigmoid far out rounds to 0 or 1
    cross_entropy = -target * jnp.log(mean) - (1 - target) * jnp.log1p(-mean)
    entropy = -target * math.log(target) - (1 - target) * math.log1p(-target)
    return jnp.broadcast_to(jnp.sum(cross_entropy - entropy), weights.shape)


def _batch_mean(
    values: Float[Array, "batch latent"], weights: Float[Array, " batch"], axis: str | None
) -> Float[Array, " latent"]:
    sums, number = total((jnp.sum(values * weights[:, None], axis=0), jnp.sum(weights)), axis)
    return sums / number


def keep_largest(code: Float[Array, "batch latent"], share: float) -> Float[Array, "batch latent"]:
    """Set all units to 0 but the largest by magnitude (k-sparse autoencoder: Makhzani & Frey 2014, section 2).

    Args:
        code: codes.
        share: of the units that are kept, rounded to at least one unit.
    """
    kept = max(1, round(share * code.shape[-1]))
    size = jax.lax.stop_gradient(jnp.abs(code))
    least = jax.lax.platform_dependent(
        size,
        cpu=lambda size: _largest_by_bits(size, kept),
        default=lambda size: jax.lax.top_k(size, kept)[0][:, -1:],
    )
    return jnp.where(size >= least, code, 0.0)


def _largest_by_bits(size: Float[Array, "batch latent"], rank: int) -> Float[Array, "batch 1"]:
    # The value of this rank in each row of float32 values that are not negative, as `top_k` has it, which takes many
    # times as long on the CPU. Such values are in the order of their bits, so one bit after another is settled: it is
    # set if enough values stay at or above.
    bits = jax.lax.bitcast_convert_type(size, jnp.int32)

    def settle(i: Any, least: Array) -> Array:
        candidate = least | (1 << (30 - i))
        enough = jnp.sum(bits >= candidate, axis=-1, keepdims=True) >= rank
        return jnp.where(enough, candidate, least)

    least = jax.lax.fori_loop(0, 31, settle, jnp.zeros((len(size), 1), jnp.int32))
    return jax.lax.bitcast_convert_type(least, jnp.float32)


def importance_weighted_bound(
    log_weights: Float[Array, "samples batch"],
) -> Float[Array, " batch"]:
    """Log of the mean importance weight p(x, z) / q(z | x): a lower bound of log p(x) in nats.

    With one sample it is the evidence lower bound (Burda et al. 2015, equation 8).
    """
    return jax.nn.logsumexp(log_weights, axis=0) - jnp.log(float(log_weights.shape[0]))
