"""`python -m experiments.compression`."""

from experiments.compression import COMMANDS, Config, run
from vae_jax.cli.command import main

main(Config, run, commands=COMMANDS)
