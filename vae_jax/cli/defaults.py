"""What a run's settings are by its images, where the command line does not say."""

import dataclasses
import functools
import math
from typing import Any

import numpy as np

from vae_jax.cli.command import TrainingConfig
from vae_jax.config import MANY_IMAGES, Settings, few_images_batch, hidden_sizes
from vae_jax.data.split import Split
from vae_jax.data.stored import pieces
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


@dataclasses.dataclass(frozen=True)
class About:
    """What decides of training images."""

    image_shape: tuple[int, int, int]
    """(height, width, channels)."""
    images: int
    """How many there are."""
    split: Split | None = None
    """The images themselves, where they are at hand."""

    @classmethod
    def of(cls, train: Split) -> "About":
        """What decides of these images."""
        return cls(train.images.shape[1:], len(train), train)

    @functools.cached_property
    def binary(self) -> bool:
        """Whether each value is known to be 0 or 255; all are read for it, so it is asked last."""
        return self.split is not None and all(map(_of_two_values, pieces(self.split.images)))


def _of_two_values(images: np.ndarray) -> bool:
    return bool(((images == 0) | (images == 255)).all())


def as_in(config: TrainingConfig, origin: Settings) -> TrainingConfig:
    """The settings with the networks of another run, where the command line leaves them open."""
    if config.arch not in (None, origin.arch):
        return config
    known = {name: getattr(origin, name) for name in ("arch", "fourier_features", "latent_dim")}
    known["hidden_sizes"] = hidden_sizes(origin)
    return dataclasses.replace(
        config, **{name: value for name, value in known.items() if getattr(config, name) is None}
    )


def decided(config: TrainingConfig, about: About) -> TrainingConfig:
    """The settings with what the command line leaves open, as suits these training images."""
    height, width, channels = about.image_shape
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
    if _is_plane(config, about, arch, config.likelihood or likelihood):
        chosen |= _PLANE
        if config.steps or config.minutes:
            del chosen["epochs"]
    if about.images < chosen["batch_size"]:
        chosen["batch_size"] = few_images_batch(about.images)
    return dataclasses.replace(
        config, **{name: value for name, value in chosen.items() if getattr(config, name) is None}
    )


def _is_plane(config: TrainingConfig, about: About, arch: str, likelihood: str) -> bool:
    # Over a plane much changes fast, which dense layers learn slowly, and sooner if they are many and see waves.
    # Lossless coding takes no waves, hence none where it has a use; and none where it was not tried.
    dim = Settings.latent_dim if config.latent_dim is None else config.latent_dim
    tried = (config.model, arch, likelihood, config.binarize, config.condition, config.prior, config.posterior)
    return (
        tried == ("vae", "mlp", "bernoulli", "none", "none", "standard", "diagonal")
        and config.objective in (None, "elbo")
        and (dim <= 2 and about.image_shape[2] == 1 and about.images >= MANY_IMAGES and not about.binary)
    )


def in_words(config: TrainingConfig, decided: TrainingConfig, about: About) -> str:
    """What was decided that is not the default of `Settings`, and why; empty where nothing was."""
    (height, width, channels), images = about.image_shape, about.images
    names = ("arch", "likelihood", "latent_dim", "batch_size", "learning_rate")
    number = len(names) if decided.arch == "residual" else 3  # decided by the shape
    plane = tuple(_PLANE) if _is_plane(decided, about, str(decided.arch), str(decided.likelihood)) else ()
    kind = "in grey" if channels == 1 else f"with {channels} channels"
    lines = []
    for reason, decisive in (
        (f"images of {height}x{width} {kind}", names[:number]),
        (f"{counted(images, 'training image')} and at most two latent dimensions", plane),
        (f"{images} training images", [name for name in names[number:] if name not in plane]),
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
