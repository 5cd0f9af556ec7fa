"""Check everything that a run directory holds: `python -m experiments.verify runs/mnist-vae-z2`."""

from vae_jax.cli.command import main
from vae_jax.cli.verify import Config, run

__all__ = ["Config", "run"]

if __name__ == "__main__":
    main(Config, run)
