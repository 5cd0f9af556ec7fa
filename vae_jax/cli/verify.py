"""Check a run directory: `vae-jax verify RUN`. Exit code 0: all of it is good; 1: something is damaged."""

import dataclasses
from pathlib import Path

from vae_jax.cli.command import RunConfig
from vae_jax.errors import RunError, UsageError


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Check all that a run directory holds: records, checkpoints, data set, figures."""

    data_dir: Path | None = None
    """The data, or the folder that holds it, if it no longer lies where the run found it."""


def run(config: Config) -> None:
    """Check and print a table.

    Raises:
        UsageError: no run directory.
        RunError: something is damaged.
    """
    if not (config.run / "config.json").exists():
        raise UsageError(
            f"{config.run} holds no config.json: not a run directory.\n"
            "Give the directory that a training command printed, such as runs/mnist-vae-z2."
        )
    if config.data_dir is not None and not config.data_dir.exists():
        raise UsageError(f"--data-dir must be a file or folder that exists, got {str(config.data_dir)!r}.")
    # Here, as it imports JAX, which --help and a bad flag do not wait for.
    from vae_jax.runs.verify import check

    found = list(check(config.run, config.data_dir))
    width = max(len(name) for name, _, _ in found)
    for name, good, said in found:
        print(f"{'ok     ' if good else 'DAMAGED'}  {name:<{width}}  {said}")
    damaged = [name for name, good, _ in found if not good]
    if damaged:
        raise RunError(f"{config.run} is damaged: {', '.join(damaged)}.")
