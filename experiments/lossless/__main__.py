"""`python -m experiments.lossless`."""

from experiments.lossless import Config, run
from vae_jax.cli.command import main

main(Config, run)
