"""`python -m experiments.reparametrisation`."""

from experiments.reparametrisation import Config, run
from vae_jax.cli.command import main

main(Config, run)
