"""What a run's settings are by its images, where the command line does not say."""

import dataclasses
import math
from typing import Any

from vae_jax.cli.command import TrainingConfig
from vae_jax.config import Settings, few_images_batch
from vae_jax.models.layers import places_of
from vae_jax.models.residual import block_of

_SMALL = 32 * 32  # pixels
_CHANNELS = 16  # of the latent at each place
_VECTOR = 128
_RESIDUAL_BATCH = 32
_RESIDUAL_RATES = {"map": 6e-3, "vector": 2e-3}  # a vector's dense layers want the lower one


def decided(config: TrainingConfig, image_shape: tuple[int, int, int], images: int) -> TrainingConfig:
    """The settings with what the command line leaves open, as suits so many training images of this shape.

    Args:
        config: the flags.
        image_shape: (height, width, channels).
        images: training images.
    """
    height, width, channels = image_shape
    small = channels == 1 and height * width <= _SMALL
    arch = config.arch or ("mlp" if small else "residual")
    chosen: dict[str, Any] = {
        "arch": arch,
        "likelihood": "bernoulli" if small or config.binarize != "none" else "discretized_logistic",
        "latent_dim": Settings.latent_dim,
        "batch_size": Settings.batch_size,
        "learning_rate": Settings.learning_rate,
    }
    if arch == "residual":
        places = math.prod(places_of((height, width), block_of(height, width)))
        chosen |= {"batch_size": _RESIDUAL_BATCH, "learning_rate": _RESIDUAL_RATES[config.latent]}
        chosen["latent_dim"] = _CHANNELS * places if config.latent == "map" else _VECTOR
    if images < chosen["batch_size"]:
        chosen["batch_size"] = few_images_batch(images)
    return dataclasses.replace(
        config, **{name: value for name, value in chosen.items() if getattr(config, name) is None}
    )


def in_words(config: TrainingConfig, decided: TrainingConfig, image_shape: tuple[int, int, int], images: int) -> str:
    """What was decided that is not the default of `Settings`, and why; empty where nothing was."""
    height, width, channels = image_shape
    names = ("arch", "likelihood", "latent_dim", "batch_size", "learning_rate")
    number = len(names) if decided.arch == "residual" else 3  # decided by the shape
    kind = "in grey" if channels == 1 else f"with {channels} channels"
    lines = []
    for reason, decisive in (
        (f"images of {height}x{width} {kind}", names[:number]),
        (f"{images} training images", names[number:]),
    ):
        told = [
            f"--{name.replace('_', '-')} {getattr(decided, name)}"
            for name in decisive
            if getattr(config, name) is None and getattr(decided, name) != getattr(Settings, name)
        ]
        if told:
            lines.append(f"For {reason}: {' '.join(told)}. Other values are taken where they are given.")
    return "\n".join(lines)
