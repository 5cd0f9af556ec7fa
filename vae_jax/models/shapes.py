"""Whether the networks of a model fit together, found without computing anything; and how large they are."""

import functools
from functools import partial

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.errors import UsageError
from vae_jax.models.autoencoders import Model, Parameters
from vae_jax.models.layers import applied


def check_model(model: Model) -> None:
    """Check the shapes of what the networks of a model give, without computing anything.

    Raises:
        UsageError: the encoder's output does not make latents, or the decoder's no image, or a network does not run.
    """
    try:
        hash(model)
    except TypeError as error:
        raise UsageError(
            "The fields of a model and of its networks must be hashable: give tuples in place of lists."
        ) from error
    _check_shapes(model)


@functools.cache
def _check_shapes(model: Model) -> None:
    features = model.posterior.features(model.latent_dim)
    try:
        params = jax.eval_shape(model.init, jax.random.key(0))
        x, z = jnp.zeros((2, *model.image_shape)), jnp.zeros((2, model.decoded_dim))
        labels = np.array(model.classes[:1] * 2, np.int32) if model.classes else None
        given = jax.eval_shape(partial(model.features, labels=labels), params, x).shape
        decoded = jax.eval_shape(lambda p, z: applied(model.decoder, p["decoder"], z, model.precision), params, z).shape
    except flax.errors.FlaxError as error:
        reason = str(error).partition("\n")[0].split(" (http")[0]
        raise UsageError(
            f"The networks of this {model.name} can't be run as functions of parameters and images: {reason}\n"
            "Layers that draw at random, such as nn.Dropout, or keep statistics are not supported."
        ) from error
    if model.infers and (judged := jax.eval_shape(model.classify, params, x).shape) != (2, len(model.classes)):
        raise UsageError(f"The classifier must give [batch, {len(model.classes)}], one a class, got {judged[1:]}.")
    if given != (2, features):
        raise UsageError(f"The encoder must give [batch, {features}] for {model.latent_dim} latents, got {given[1:]}.")
    height, width, channels = model.image_shape
    wanted_decoded = (2, height, width, channels * model.likelihood.parameters)
    if decoded != wanted_decoded:
        raise UsageError(
            f"The decoder must give {wanted_decoded[1:]} for images {model.image_shape} under "
            f"{type(model.likelihood).__name__}, got {decoded[1:]}."
        )


def count_parameters(params: Parameters) -> int:
    """Number of trained values."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
