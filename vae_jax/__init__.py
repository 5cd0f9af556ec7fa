"""Autoencoders and variational autoencoders in JAX and Flax: the public names, loaded when first used."""

import importlib
from typing import TYPE_CHECKING, Any

from vae_jax._xla import guard_against_miscompilation

guard_against_miscompilation()

if TYPE_CHECKING:
    from vae_jax.config import Settings as Settings
    from vae_jax.data import Dataset as Dataset
    from vae_jax.data import Split as Split
    from vae_jax.data import load as load_dataset
    from vae_jax.distributions import DiagonalGaussian as DiagonalGaussian
    from vae_jax.errors import RunError as RunError
    from vae_jax.errors import UsageError as UsageError
    from vae_jax.evaluation import evaluate as evaluate
    from vae_jax.models import Autoencoder as Autoencoder
    from vae_jax.models import VariationalAutoencoder as VariationalAutoencoder
    from vae_jax.models import build_model as build_model
    from vae_jax.runs import load_run as load_run
    from vae_jax.training import fit as fit

_HOME = {
    "Settings": ("config", "Settings"),
    "Dataset": ("data", "Dataset"),
    "Split": ("data", "Split"),
    "load_dataset": ("data", "load"),
    "DiagonalGaussian": ("distributions", "DiagonalGaussian"),
    "RunError": ("errors", "RunError"),
    "UsageError": ("errors", "UsageError"),
    "evaluate": ("evaluation", "evaluate"),
    "Autoencoder": ("models", "Autoencoder"),
    "VariationalAutoencoder": ("models", "VariationalAutoencoder"),
    "build_model": ("models", "build_model"),
    "load_run": ("runs", "load_run"),
    "fit": ("training", "fit"),
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    # Lazily, so that --help and config checks do not wait for JAX.
    if name not in _HOME:
        raise AttributeError(f"module 'vae_jax' has no attribute {name!r}")
    module, attribute = _HOME[name]
    return getattr(importlib.import_module(f"vae_jax.{module}"), attribute)
