"""`python -m experiments.tables`."""

from experiments.tables import Config, run
from vae_jax.cli.command import main

main(Config, run)
