"""A prior fitted to the codes of a trained model: density estimation after the fact (Ghosh et al. 2020).

What is made as likely as possible is the aggregate posterior, the equal mixture of all images' posteriors; of an
autoencoder its codes.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from vae_jax.models.codes import Codes
from vae_jax.models.priors import FullGaussian, Parameters, Prior, whitened

ROUNDS = 20
"""After each, the parameters are kept that are best on codes they are not fitted to."""
BATCH = 256
RATE = 5e-3
MOST_HELD_OUT = 10_000


class _Latents(NamedTuple):
    means: Float[Array, "n latent"]
    sigmas: Float[Array, "n latent"]

    @classmethod
    def of(cls, codes: Codes) -> "_Latents":
        means = jnp.asarray(codes.means)
        return cls(means, jnp.zeros_like(means) if codes.logvars is None else jnp.exp(0.5 * jnp.asarray(codes.logvars)))

    def sample(self, key: Key[Array, ""], rows: Any = slice(None)) -> Float[Array, "rows latent"]:
        means = self.means[rows]
        return means + self.sigmas[rows] * jax.random.normal(key, means.shape)


def fit_prior(prior: Prior, train: Codes, validation: Codes, key: Key[Array, ""], steps: int) -> Parameters:
    """Parameters of a prior of `vae_jax.models.fitted`, fitted to codes.

    A `FullGaussian` has them in closed form. Others see latents that it has made white, and are trained by Adam, along
    a cosine, on samples that are drawn anew at each step.

    Args:
        prior: of as many dimensions as the codes.
        train: codes of training images.
        validation: codes of others, by which the best of ROUNDS parameters are chosen.
        key: decides the start and the samples.
        steps: of Adam.
    """
    moments = FullGaussian.fit(train.means, train.logvars)
    if getattr(prior, "base", None) is None:
        return moments
    held_out = _Latents.of(validation)
    held_out = _Latents(*(values[:MOST_HELD_OUT] for values in held_out))
    start, samples = jax.random.split(key)
    base = prior.init(start, train.means.shape[1])["base"]
    per_round = -(-steps // ROUNDS)
    return {
        **moments,
        "base": _rounds(prior, per_round, {**moments, "base": base}, _Latents.of(train), held_out, samples),
    }


@partial(jax.jit, static_argnums=(0, 1))
def _rounds(
    prior: Prior, steps: int, params: Parameters, train: _Latents, held_out: _Latents, key: Key[Array, ""]
) -> Parameters:
    base_of: Any = prior
    base = base_of.base
    optimizer = optax.chain(
        optax.clip_by_global_norm(20.0), optax.adam(optax.cosine_decay_schedule(RATE, ROUNDS * steps))
    )
    check = whitened(params, held_out.sample(jax.random.fold_in(key, ROUNDS * steps)))

    def loss(own: Parameters, white: Array) -> Array:
        return -jnp.mean(base.log_prob(own, white))

    def step(carry: Any, number: Array) -> Any:
        own, state = carry
        of_rows, of_noise = jax.random.split(jax.random.fold_in(key, number))
        rows = jax.random.randint(of_rows, (BATCH,), 0, len(train.means))
        gradient = jax.grad(loss)(own, whitened(params, train.sample(of_noise, rows)))
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(own, updates), state), None

    def one_round(carry: Any, first: Array) -> Any:
        training, best, least = carry
        training, _ = jax.lax.scan(step, training, first + jnp.arange(steps))
        found = loss(training[0], check)
        best = jax.tree.map(lambda new, old: jnp.where(found < least, new, old), training[0], best)
        return (training, best, jnp.fmin(found, least)), None

    own = params["base"]
    carry = ((own, optimizer.init(own)), own, loss(own, check))
    (_, best, _), _ = jax.lax.scan(one_round, carry, steps * jnp.arange(ROUNDS))
    return best
