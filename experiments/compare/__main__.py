"""`python -m experiments.compare`."""

from experiments.compare import Config, run
from vae_jax.cli.command import main

main(Config, run)
