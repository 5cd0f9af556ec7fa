"""Train a VAE or an AE, evaluate it on the test split, draw it: `vae-jax train DATASET`.

`python -m experiments.mnist --latent-dim 2` is the same with MNIST.
"""

import dataclasses
from typing import TYPE_CHECKING, Annotated

from vae_jax.cli.command import TrainingConfig
from vae_jax.cli.signals import Signals
from vae_jax.domains import choice

if TYPE_CHECKING:
    from vae_jax.runs.run import Run


@dataclasses.dataclass(frozen=True)
class Config(TrainingConfig):
    """Train on images, evaluate on the test split, write a run directory with figures."""


@dataclasses.dataclass(frozen=True)
class TrainConfig(Config):
    """Train a VAE or an AE on images, evaluate it on the test split, draw figures."""

    dataset: Annotated[str | None, "positional"] = choice(None, group="data", common=True)


def run(config: Config) -> "Run | None":
    """Train, evaluate, draw and print; gives back the finished run, but in the first of several processes only."""
    with Signals() as signals:
        # Here, as it imports JAX, which --help and a bad flag do not wait for.
        from vae_jax.cli.session import train

        return train(config, signals)
