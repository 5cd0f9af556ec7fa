"""`python -m experiments.debiasing`."""

from experiments.debiasing import Config, run
from vae_jax.cli.command import main

main(Config, run)
