"""`python -m experiments.denoising`."""

from experiments.denoising import Config, run
from vae_jax.cli.command import main

main(Config, run)
