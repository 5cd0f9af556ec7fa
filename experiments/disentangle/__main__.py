"""`python -m experiments.disentangle`."""

from experiments.disentangle import Config, run
from vae_jax.cli.command import main

main(Config, run)
