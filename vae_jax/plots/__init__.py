"""Figures: NumPy arrays in, matplotlib figures out."""

from vae_jax.plots.run import (
    conditions,
    dictionaries,
    latent_grid,
    latent_means,
    prior_density,
    reconstructions,
    samples,
    training_curves,
)
from vae_jax.plots.sheets import tile
from vae_jax.plots.style import save
from vae_jax.plots.traversal import interpolations, neighbours, traversals

__all__ = [
    "conditions",
    "dictionaries",
    "interpolations",
    "latent_grid",
    "latent_means",
    "neighbours",
    "prior_density",
    "reconstructions",
    "samples",
    "save",
    "tile",
    "training_curves",
    "traversals",
]
