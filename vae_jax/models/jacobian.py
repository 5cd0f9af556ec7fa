"""How far the decoded image moves with the latent."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.models.autoencoders import Model, Parameters


def decoder_jacobian(
    model: Model, params: Parameters, z: Float[Array, " latent"], unit: Any = 1.0
) -> Float[Array, "values latent"]:
    """Derivatives of the expected image's values in each dimension of one latent, by steps of `unit`."""

    def values(step: Array) -> Array:
        return model.decode_mean(params, (z + step * unit)[None]).ravel()

    zero = jnp.zeros_like(z)
    if not getattr(model.decoder, "on_maps", False):
        return jax.jacfwd(values)(zero)
    # The products for maps have gradients of their own and no forward ones: a column is what the pullback,
    # which is linear, is pulled back to.
    y, pullback = jax.vjp(values, zero)
    _, push = jax.vjp(lambda u: pullback(u)[0], jnp.zeros_like(y))
    return jax.vmap(lambda column: push(column)[0], out_axes=1)(jnp.eye(len(z)))
