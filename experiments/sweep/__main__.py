"""`python -m experiments.sweep`."""

from experiments.sweep import Config, run
from vae_jax.cli.command import main

main(Config, run)
