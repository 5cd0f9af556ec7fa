"""Autoencoders and variational autoencoders in JAX and Flax: the public names, loaded when first used."""

import importlib
from typing import TYPE_CHECKING, Any

from vae_jax._xla import guard_against_miscompilation

guard_against_miscompilation()

if TYPE_CHECKING:
    from vae_jax.config import Settings
    from vae_jax.data.dataset import Dataset, Split
    from vae_jax.data.loading import load_dataset
    from vae_jax.errors import RunError, UsageError
    from vae_jax.models.autoencoders import Autoencoder, VariationalAutoencoder, build_model
    from vae_jax.models.distributions import DiagonalGaussian
    from vae_jax.models.evaluation import encode_images, evaluate
    from vae_jax.runs.recording import train_run
    from vae_jax.runs.run import Run, load_run
    from vae_jax.training.fit import fit

# Where the public names live: imported when first used, so that --help and the checks of settings do not wait for JAX.
_HOMES = {
    "config": ("Settings",),
    "data.dataset": ("Dataset", "Split"),
    "data.loading": ("load_dataset",),
    "errors": ("RunError", "UsageError"),
    "models.autoencoders": ("Autoencoder", "VariationalAutoencoder", "build_model"),
    "models.distributions": ("DiagonalGaussian",),
    "models.evaluation": ("encode_images", "evaluate"),
    "runs.recording": ("train_run",),
    "runs.run": ("Run", "load_run"),
    "training.fit": ("fit",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'vae_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"vae_jax.{_HOME[name]}"), name)
