"""`python -m experiments.dimensionality`."""

from experiments.dimensionality import Config, Embed, embed, run
from vae_jax.cli.command import main

main(Config, run, commands={"embed": (Embed, embed)})
