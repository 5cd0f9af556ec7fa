"""What training minimises: objectives, and the penalties and bounds that they are made of, in nats.

The values of an example stand in an array [batch]. An objective is a pure function of (model, params, batch, step).
"""

import dataclasses
import math
from typing import Any, ClassVar, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from vae_jax.errors import UsageError
from vae_jax.models.inputs import Batch

T = TypeVar("T")


class Terms(NamedTuple):
    """The parts of a loss, one value an example."""

    objective: Float[Array, " batch"]
    """What the gradient is taken of: with warm-up, free bits or a sparsity penalty, not what the two terms say."""
    reconstruction: Float[Array, " batch"]
    kl: Float[Array, " batch"]
    """The full KL divergence, without beta and without free bits; 0 for an autoencoder."""


def gathered(rows: T, axis: str | None = None) -> T:
    """The rows of each array from all devices of a mapped axis, one device's after another's; else as they are."""
    if axis is None:
        return rows
    return jax.tree.map(lambda values: jax.lax.all_gather(values, axis, tiled=True), rows)


def total(values: T, axis: str | None = None) -> T:
    """The sum of each float32 array over the devices of a mapped axis; without one the arrays themselves."""
    if axis is None:
        return values
    # All in one message, as each costs milliseconds between processes.
    flat, unflatten = ravel_pytree(values)
    return unflatten(jax.lax.psum(flat, axis))


@dataclasses.dataclass(frozen=True)
class Objective:
    """What training minimises: the mean of `Terms.objective` over the examples.

    A new one overrides `__call__`, and is named by `vae_jax.registry.OBJECTIVES.register`. A batch may be worked on in
    chunks and on many devices. So where it needs means over the whole batch, it gives the sums for them in
    `statistics`; where it needs every pair of examples, it says so in `pairs`, gives a row an example in `rows`, and
    makes of the rows of all what each example needs in `coupled`.
    """

    pairs: ClassVar[bool] = False
    """Whether it has `rows` and `coupled`."""
    infers: ClassVar[bool] = False
    """Whether it teaches the classifier of a model that infers classes."""

    @classmethod
    def from_settings(cls, settings: Any) -> "Objective":
        """The objective that the settings describe."""
        return cls()

    @property
    def couples(self) -> bool:
        """Whether `statistics` gives something, so that an example's terms depend on the rest of the batch."""
        return self.pairs

    @property
    def latents(self) -> int:
        """How many latents of an image are decoded in a step."""
        return 1

    @property
    def bound_samples(self) -> int:
        """Samples of the importance-weighted bound that validation goes by; 0: it goes by reconstruction + KL."""
        return 0

    def check(self, model: Any) -> None:
        """Refuse, by a UsageError, a model that it has no meaning for."""

    def statistics(self, model: Any, params: Any, batch: Batch) -> Any:
        """Sums over the examples of a part of the batch, each with its weight; they are added over all parts.

        Of an objective of pairs, what each example needs of this batch, which is a whole one.
        """
        return self.coupled(self.rows(model, params, batch)) if self.pairs else None

    def rows(self, model: Any, params: Any, batch: Batch) -> Any:
        """Arrays [part, ...] of what the others need of each example of a part of the batch."""
        raise NotImplementedError

    def coupled(self, rows: Any) -> Any:
        """Arrays [batch, ...] of what each example needs of the rows of all examples."""
        raise NotImplementedError

    def __call__(self, model: Any, params: Any, batch: Batch, step: Float[Array, ""], statistics: Any = None) -> Terms:
        """The terms of each example.

        Args:
            model: what is trained.
            params: its parameters.
            batch: a part of the batch.
            step: how many steps were done before, as float32.
            statistics: of the whole batch; of an objective of pairs, what these examples need of it. No gradient goes
                through them.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class ELBO(Objective):
    """Reconstruction + beta * KL, from one latent sample an example (Kingma & Welling 2014, equation 7).

    With beta = 1 it is the negative evidence lower bound; another beta is that of Higgins et al. (2017). With free
    bits a latent dimension costs at least that many nats of KL (Kingma et al. 2016, equation 15): the mean over the
    batch is the sum over dimensions of max(free_bits, batch mean of that dimension's KL), and so is its gradient.
    """

    beta: Any = 1.0
    """Weight of the KL term."""
    kl_warmup_steps: int = 0
    """Steps over which the weight rises from 0 to beta in a straight line."""
    free_bits: float = 0.0
    """Nats a dimension; 0: off."""

    @classmethod
    def from_settings(cls, settings: Any) -> "ELBO":
        """With the settings' beta, warm-up and free bits."""
        return cls(settings.beta, settings.kl_warmup_steps, settings.free_bits)

    @property
    def couples(self) -> bool:
        """With free bits."""
        return self.free_bits > 0

    def check(self, model: Any) -> None:
        """Free bits need a KL divergence that is a sum over the dimensions."""
        if self.couples and not model.prior.per_dimension:
            raise UsageError(
                f"--free-bits must be 0 for the prior {type(model.prior).__name__}, whose KL is no sum over the "
                f"dimensions, got {self.free_bits}.\nLeave --free-bits out, or use --prior standard."
            )
        if self.couples and not model.posterior.independent:
            raise UsageError(
                f"--free-bits must be 0 for the posterior {type(model.posterior).__name__}, whose dimensions are not "
                f"independent, got {self.free_bits}.\nLeave --free-bits out, or use --posterior diagonal."
            )

    def weight(self, step: Float[Array, ""]) -> Float[Array, ""]:
        """Weight of the KL term at a step."""
        if self.kl_warmup_steps == 0:
            return jnp.full_like(step, self.beta)
        return self.beta * jnp.minimum(step / self.kl_warmup_steps, 1.0)

    def statistics(self, model: Any, params: Any, batch: Batch) -> Any:
        """Sums of the KL divergence of each dimension, and of the weights."""
        if not self.couples:
            return None
        return _sums(model.encode(params, batch.inputs, batch.labels).kl_per_dimension(), batch.weights)

    def __call__(self, model: Any, params: Any, batch: Batch, step: Float[Array, ""], statistics: Any = None) -> Terms:
        """The terms of each example; `kl` is without beta and without free bits."""
        posterior = model.encode(params, batch.inputs, batch.labels)
        z = posterior.sample(batch.keys)
        reconstruction = model.likelihood.reconstruction_loss(model.decode(params, z, batch.labels), batch.x)
        kl = penalty = model.kl(params, posterior, z, batch.labels)
        if self.couples:
            self.check(model)
            sums, number = statistics
            free = (sums / number < self.free_bits)[None, :]
            penalty = jnp.sum(jnp.where(free, self.free_bits, posterior.kl_per_dimension()), axis=-1)
        return Terms(reconstruction + self.weight(step) * penalty, reconstruction, kl)


@dataclasses.dataclass(frozen=True)
class Sparse(Objective):
    """Reconstruction + weight * penalty of an autoencoder's code.

    The penalty is the sum of |code| ("l1"), or the sum over units of KL[Bernoulli(target), Bernoulli(mean activation)]
    in nats ("kl": Ng 2011, section 3), whose mean is taken over the batch, so that every example has the same value.
    """

    penalty: str = "l1"
    weight: Any = 0.1
    target: float = 0.05
    """Wanted mean activation, for "kl"."""

    def __post_init__(self) -> None:
        if self.penalty not in ("l1", "kl"):
            raise UsageError(f"The penalty of a sparse code must be l1 or kl, got {self.penalty!r}.")

    @classmethod
    def from_settings(cls, settings: Any) -> "Sparse":
        """With the settings' sparsity, its weight and its target."""
        return cls(settings.sparsity, settings.sparsity_weight, settings.sparsity_target)

    @property
    def couples(self) -> bool:
        """The KL penalty does."""
        return self.penalty == "kl"

    def statistics(self, model: Any, params: Any, batch: Batch) -> Any:
        """Sums of the activations of each unit, and of the weights."""
        if not self.couples:
            return None
        return _sums(model.encode(params, batch.inputs, batch.labels).mean, batch.weights)

    def __call__(self, model: Any, params: Any, batch: Batch, step: Float[Array, ""], statistics: Any = None) -> Terms:
        """The terms of each example."""
        code = model.encode(params, batch.inputs, batch.labels).mean
        reconstruction = model.likelihood.reconstruction_loss(model.decode(params, code, batch.labels), batch.x)
        penalty = l1_penalty(code)
        if self.couples:
            sums, number = statistics
            value, slope = jax.value_and_grad(kl_penalty)(sums / number, self.target)
            # The value is that of the batch; its gradient comes by way of each example's own share of the mean.
            share = jnp.sum(slope[None, :] * (code - jax.lax.stop_gradient(code)), axis=-1)
            penalty = value + share
        return Terms(reconstruction + self.weight * penalty, reconstruction, jnp.zeros_like(reconstruction))


def l1_penalty(code: Float[Array, "batch latent"]) -> Float[Array, " batch"]:
    """Sum of the absolute values of each code."""
    return jnp.sum(jnp.abs(code), axis=-1)


def kl_penalty(mean: Float[Array, " latent"], target: float) -> Float[Array, ""]:
    """Sum over units of KL[Bernoulli(target), Bernoulli(mean)] in nats (Ng 2011, section 3).

    Args:
        mean: mean activation of each unit, in (0, 1).
        target: the wanted one.
    """
    mean = jnp.clip(mean, 1e-6, 1 - 1e-6)  # a sigmoid far out rounds to 0 or 1
    cross_entropy = -target * jnp.log(mean) - (1 - target) * jnp.log1p(-mean)
    entropy = -target * math.log(target) - (1 - target) * math.log1p(-target)
    return jnp.sum(cross_entropy - entropy)


def _sums(values: Float[Array, "batch latent"], weights: Float[Array, " batch"]) -> tuple[Array, Array]:
    return jnp.sum(values * weights[:, None], axis=0), jnp.sum(weights)


def keep_largest(code: Float[Array, "batch latent"], share: float) -> Float[Array, "batch latent"]:
    """Set all units to 0 but the largest by magnitude (k-sparse autoencoder: Makhzani & Frey 2014, section 2).

    The share is that of the units that are kept, rounded to at least one unit.
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

    least = jax.lax.fori_loop(0, 31, settle, jnp.zeros((size.shape[0], 1), jnp.int32))
    return jax.lax.bitcast_convert_type(least, jnp.float32)


def importance_weighted_bound(log_weights: Float[Array, "samples batch"]) -> Float[Array, " batch"]:
    """Log of the mean importance weight p(x, z) / q(z | x): a lower bound of log p(x) in nats.

    With one sample it is the evidence lower bound (Burda et al. 2015, equation 8).
    """
    return jax.nn.logsumexp(log_weights, axis=0) - jnp.log(float(log_weights.shape[0]))
