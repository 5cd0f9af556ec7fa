"""`python -m experiments.benchmark`."""

from experiments.benchmark import Config, run
from vae_jax.cli.command import main

main(Config, run)
