"""What the units of a sparse code stand for."""

import numpy as np
from jaxtyping import Float

from vae_jax.models.autoencoders import AnyModel, Parameters
from vae_jax.models.codes import active


def most_used_atoms(
    model: AnyModel, params: Parameters, codes: Float[np.ndarray, "n latent"], number: int
) -> Float[np.ndarray, "chosen height width channels"]:
    """Of the decoder's dictionary, the atoms of at most `number` units, by their mean absolute value in the codes.

    An atom is what a unit alone adds to the decoder's output for a code of zeros, set to its mean value where it is
    active, to its mean elsewhere. For a linear decoder it is the unit's row of the weight matrix times that value.

    Args:
        model: an autoencoder whose decoder gives one parameter a pixel.
        params: its parameters.
        codes: to take the values from.
        number: of atoms, the most used first.
    """
    on = active(codes)
    counts = on.sum(axis=0)
    values = np.where(counts > 0, (codes * on).sum(axis=0) / np.maximum(counts, 1), codes.mean(axis=0))
    used = np.argsort(-np.abs(codes).mean(axis=0), kind="stable")[:number]
    decoded = model.decode(params, np.diag(values).astype(np.float32)[used])
    return np.asarray(decoded - model.decode(params, np.zeros((1, len(values)), np.float32)))
