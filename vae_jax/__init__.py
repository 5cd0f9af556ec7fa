"""Autoencoders and variational autoencoders in JAX and Flax: the public names, loaded when first used."""

import importlib
from typing import TYPE_CHECKING, Any

from vae_jax._xla import guard_against_miscompilation

guard_against_miscompilation()

if TYPE_CHECKING:
    from vae_jax.config import Settings
    from vae_jax.data import Dataset, Split, load_dataset
    from vae_jax.distributions import DiagonalGaussian
    from vae_jax.errors import RunError, UsageError
    from vae_jax.evaluation import encode_images, evaluate
    from vae_jax.fitting import fit
    from vae_jax.models import Autoencoder, VariationalAutoencoder, build_model
    from vae_jax.recording import train_run
    from vae_jax.runs import Run, load_run

# Where each public name lives: imported lazily, so that --help and the checks of settings do not wait for JAX.
_HOME = {
    "Autoencoder": "models",
    "Dataset": "data",
    "DiagonalGaussian": "distributions",
    "Run": "runs",
    "RunError": "errors",
    "Settings": "config",
    "Split": "data",
    "UsageError": "errors",
    "VariationalAutoencoder": "models",
    "build_model": "models",
    "encode_images": "evaluation",
    "evaluate": "evaluation",
    "fit": "fitting",
    "load_dataset": "data",
    "load_run": "runs",
    "train_run": "recording",
}
__all__ = [
    "Autoencoder",
    "Dataset",
    "DiagonalGaussian",
    "Run",
    "RunError",
    "Settings",
    "Split",
    "UsageError",
    "VariationalAutoencoder",
    "build_model",
    "encode_images",
    "evaluate",
    "fit",
    "load_dataset",
    "load_run",
    "train_run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'vae_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"vae_jax.{_HOME[name]}"), name)
