"""`python -m experiments.compression`."""

from experiments.compression import Config, run
from vae_jax.cli import compress
from vae_jax.cli.command import main

main(
    Config,
    run,
    commands={
        "compress": (compress.Compress, compress.compress),
        "decompress": (compress.Decompress, compress.decompress),
    },
)
