"""`python -m experiments.results`."""

from experiments.results import Config, run
from vae_jax.cli.command import main

main(Config, run)
