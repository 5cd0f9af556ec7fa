"""How sparse a code is, and what its units stand for."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from vae_jax.models.autoencoders import AnyModel, Parameters


class Sparsity(NamedTuple):
    """Of a set of codes."""

    active_share: float
    """Mean share of the units of a code that are active."""
    mean_activation: float
    """Mean over units and images of the absolute value."""
    hoyer: float
    """Mean of (sqrt(n) - |c|_1 / |c|_2) / (sqrt(n) - 1): 0 where all units are equal, 1 where one is active
    (Hoyer 2004). Codes of zeros are left out."""
    dead: int
    """Units that are active for no image."""


def active(codes: Float[np.ndarray, "n latent"], threshold: float = 0.1) -> Bool[np.ndarray, "n latent"]:
    """Which units are active: above `threshold` times the largest absolute value of all the codes."""
    size = np.abs(codes)
    return size > threshold * max(float(size.max()), 1e-30)


def measure_sparsity(codes: Float[np.ndarray, "n latent"], threshold: float = 0.1) -> Sparsity:
    """How sparse codes are.

    Args:
        codes: of images of a held-out set; at least two units.
        threshold: share of the largest absolute value above which a unit is active.
    """
    on, size = active(codes, threshold), np.abs(codes.astype(np.float64))
    root, norms = np.sqrt(codes.shape[1]), np.linalg.norm(size, axis=1)
    some = norms > 0
    hoyer = (root - size[some].sum(axis=1) / norms[some]) / (root - 1)
    return Sparsity(
        active_share=float(on.mean()),
        mean_activation=float(size.mean()),
        hoyer=float(hoyer.mean()) if some.any() else 0.0,
        dead=int(np.count_nonzero(~on.any(axis=0))),
    )


def atoms(
    model: AnyModel, params: Parameters, codes: Float[np.ndarray, "n latent"]
) -> Float[np.ndarray, "latent height width channels"]:
    """The decoder's dictionary: what each unit alone adds to the decoder's output for a code of zeros.

    Each unit is set to its mean value where it is active, to its mean elsewhere. For a linear decoder an atom is
    the unit's row of the weight matrix times that value.

    Args:
        model: an autoencoder whose decoder gives one parameter a pixel.
        params: its parameters.
        codes: to take the values from.
    """
    on = active(codes)
    counts = on.sum(axis=0)
    values = np.where(counts > 0, (codes * on).sum(axis=0) / np.maximum(counts, 1), codes.mean(axis=0))
    decoded = model.decode(params, np.diag(values).astype(np.float32))
    return np.asarray(decoded - model.decode(params, np.zeros((1, len(values)), np.float32)))


def most_used_atoms(
    model: AnyModel, params: Parameters, codes: Float[np.ndarray, "n latent"], number: int
) -> Float[np.ndarray, "chosen height width channels"]:
    """The atoms of the units with the largest mean absolute value, at most `number` of them, the largest first."""
    used = np.argsort(-np.abs(codes).mean(axis=0), kind="stable")[:number]
    return atoms(model, params, codes)[used]
