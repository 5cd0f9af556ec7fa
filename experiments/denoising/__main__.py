"""`python -m experiments.denoising`."""

from experiments.denoising import Config, Denoise, denoise, run
from vae_jax.cli.command import main

main(Config, run, commands={"denoise": (Denoise, denoise)})
