"""Figures: NumPy arrays in, matplotlib figures out."""

from vae_jax.plots.run import latent_grid, latent_means, reconstructions, samples, training_curves
from vae_jax.plots.style import save, tile

__all__ = ["latent_grid", "latent_means", "reconstructions", "samples", "save", "tile", "training_curves"]
