"""`python -m experiments.semi_supervised`."""

from experiments.semi_supervised import Config, run
from vae_jax.cli.command import main

main(Config, run)
