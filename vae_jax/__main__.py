"""The command `vae-jax`, also `python -m vae_jax`."""

import dataclasses
from collections.abc import Sequence

from vae_jax.cli import (
    compress,
    encode,
    explore,
    export,
    fit_prior,
    generate,
    interpolate,
    nearest,
    plot,
    reconstruct,
    score,
    train,
    verify,
)
from vae_jax.cli.command import Command, main

COMMANDS: dict[str, Command] = {
    "train": (train.TrainConfig, train.run),
    "encode": (encode.Config, encode.run),
    "reconstruct": (reconstruct.Config, reconstruct.run),
    "generate": (generate.Config, generate.run),
    "fit-prior": (fit_prior.Config, fit_prior.run),
    "interpolate": (interpolate.Config, interpolate.run),
    "nearest": (nearest.Config, nearest.run),
    "score": (score.Score, score.score),
    "calibrate": (score.Calibrate, score.calibrate),
    "compress": (compress.Compress, compress.compress),
    "decompress": (compress.Decompress, compress.decompress),
    "export": (export.Config, export.run),
    "plot": (plot.Config, plot.run),
    "explore": (explore.Config, explore.run),
    "verify": (verify.Config, verify.run),
}


@dataclasses.dataclass(frozen=True)
class Tool:
    """Train autoencoders, and use them on images of your own."""


def tool(arguments: Sequence[str] | None = None) -> None:
    """Run one of the commands; `arguments` are those of the command line where they are not given."""
    main(Tool, None, arguments, COMMANDS)


if __name__ == "__main__":
    tool()
