"""Restore a run and look at its latent space: `python -m experiments.plot_latent RUN`, also `vae-jax plot RUN`."""

from vae_jax.cli.command import main
from vae_jax.cli.plot import Config, run

__all__ = ["Config", "run"]

if __name__ == "__main__":
    main(Config, run)
