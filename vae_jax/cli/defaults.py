"""What a run's settings are by its images, where the command line does not say."""

import dataclasses
import math
from typing import Any

from vae_jax.cli.command import TrainingConfig
from vae_jax.config import MANY_IMAGES, Settings, few_images_batch
from vae_jax.domains import flag_of
from vae_jax.errors import counted
from vae_jax.models.layers import places_of
from vae_jax.models.residual import block_of

_SMALL = 32 * 32  # pixels
_CHANNELS = 16  # of the latent at each place
_VECTOR = 128
_PLANE = {"hidden_sizes": (256,) * 4, "fourier_features": 64, "learning_rate": 2e-3, "epochs": 20}
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
    likelihood = "bernoulli" if small or config.binarize != "none" else "discretized_logistic"
    chosen: dict[str, Any] = {
        "arch": arch,
        "likelihood": likelihood,
        "latent_dim": Settings.latent_dim,
        "batch_size": Settings.batch_size,
        "learning_rate": Settings.learning_rate,
        "fourier_features": Settings.fourier_features,
    }
    if arch == "residual":
        places = math.prod(places_of((height, width), block_of(height, width)))
        chosen |= {"batch_size": _RESIDUAL_BATCH, "learning_rate": _RESIDUAL_RATES[config.latent]}
        chosen["latent_dim"] = _CHANNELS * places if config.latent == "map" else _VECTOR
    if _is_plane(config, arch, config.likelihood or likelihood) and images >= MANY_IMAGES:
        chosen |= _PLANE
        if config.steps or config.minutes:
            del chosen["epochs"]
    if images < chosen["batch_size"]:
        chosen["batch_size"] = few_images_batch(images)
    return dataclasses.replace(
        config, **{name: value for name, value in chosen.items() if getattr(config, name) is None}
    )


def _is_plane(config: TrainingConfig, arch: str, likelihood: str) -> bool:
    # Over a plane much changes fast, which dense layers learn slowly, and sooner if they are many and see waves.
    # Lossless coding takes no waves, hence none where it has a use.
    dim = Settings.latent_dim if config.latent_dim is None else config.latent_dim
    return (config.model, arch, likelihood, config.binarize) == ("vae", "mlp", "bernoulli", "none") and dim <= 2


def in_words(config: TrainingConfig, decided: TrainingConfig, image_shape: tuple[int, int, int], images: int) -> str:
    """What was decided that is not the default of `Settings`, and why; empty where nothing was."""
    height, width, channels = image_shape
    names = ("arch", "likelihood", "latent_dim", "batch_size", "learning_rate")
    number = len(names) if decided.arch == "residual" else 3  # decided by the shape
    plane = tuple(_PLANE) if _is_plane(decided, str(decided.arch), str(decided.likelihood)) else ()
    kind = "in grey" if channels == 1 else f"with {channels} channels"
    lines = []
    for reason, decisive in (
        (f"images of {height}x{width} {kind}", names[:number]),
        (f"{counted(images, 'training image')} and a plane as latent space", plane),
        (f"{images} training images", names[number:]),
    ):
        told = [
            f"{flag_of(name)} {_as_typed(getattr(decided, name))}"
            for name in decisive
            if getattr(config, name) is None and getattr(decided, name) != getattr(Settings, name)
        ]
        if told:
            lines.append(f"For {reason}: {' '.join(told)}. Other values are taken where they are given.")
    return "\n".join(lines)


def _as_typed(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
