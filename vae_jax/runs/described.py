"""The model that a run directory describes, and whether what is given in its place is the same."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vae_jax.config import Settings
from vae_jax.errors import UsageError
from vae_jax.models.autoencoders import Model, build_model
from vae_jax.models.fitted import KINDS, fitted_prior
from vae_jax.models.inputs import Inputs
from vae_jax.runs.records import NAMED, REMEDY, read_config, read_dataset_record, read_settings
from vae_jax.training.recipe import description

_OF_TRAINING: dict[str, Any] = {
    f.name: f.default for f in dataclasses.fields(Settings) if f.metadata["group"] == "training"
}
"""What a model that is trained does not depend on, such as an optimiser whose name may not be registered here."""


def described(path: Path, model: Model | None = None, inputs: Inputs | None = None) -> tuple[Model, Settings]:
    """The model of a run directory with the prior that it has by now, and its settings.

    Args:
        path: the run directory.
        model: that which was trained, where the settings do not describe it.
        inputs: those that it was trained with, to be checked.

    Raises:
        UsageError: no run directory, a damaged one, or a model or inputs that have to be given, or are others.
    """
    of_model = () if model else tuple(name for name in NAMED if name not in _OF_TRAINING)
    settings, record = read_settings(path, Settings, registered=of_model), read_dataset_record(path)
    given = {"model": model, "inputs": inputs}
    for name in given:
        if given[name] is None and name in read_config(path)["own"]:
            raise UsageError(
                f"{path} was trained with {name} of its own, which its settings do not describe.\n"
                f"Make the same again, and give it: load_run(path, {name}=...)."
            )
    check_described(path, {name: description(part) for name, part in given.items() if part is not None})
    if model is None:
        model = built(settings, record)
    return with_fitted_prior(path, model), settings


def built(settings: Settings, record: dict[str, Any]) -> Model:
    """The model of these settings, as it was trained on the data of that record."""
    of_model: Any = dataclasses.replace(settings, **_OF_TRAINING)
    model: Model = build_model(of_model, record["image_shape"], record.get("labels"))
    return model


def with_fitted_prior(path: Path, model: Model) -> Model:
    """The same with the prior that was fitted after training, if one was.

    Raises:
        UsageError: config.json does not say which.
    """
    fitted = read_config(path)["fitted_prior"]
    if not fitted:
        return model
    sizes = [fitted.get(name) for name in ("components", "layers")]
    if fitted.get("kind") not in KINDS or not all(type(size) is int and 0 < size <= 10_000 for size in sizes):
        raise UsageError(f"{path / 'config.json'} is damaged: fitted_prior is {str(fitted)[:100]}.\n{REMEDY}")
    return dataclasses.replace(model, prior=fitted_prior(**fitted))


def check_described(path: Path, given: Mapping[str, str]) -> None:
    """Refuse objects, described by name, that are not those that a run was trained with, as far as it tells.

    Raises:
        UsageError: naming the two.
    """
    recorded = read_config(path)["described"]
    for name, words in given.items():
        if recorded.get(name, words) != words:
            raise UsageError(
                f"{path} was trained with the {name} {recorded[name]}, got {words}.\nGive the same {name} as then."
            )
