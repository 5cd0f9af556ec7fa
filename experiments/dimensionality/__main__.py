"""`python -m experiments.dimensionality`."""

from experiments.dimensionality import Config, run
from vae_jax.cli.command import main

main(Config, run)
