"""`python -m experiments.colour`."""

from experiments.colour import Config, run
from vae_jax.cli.command import main

main(Config, run)
