"""Run directories: which may be used or gone on with, and the way back from one to the model."""

import dataclasses
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from vae_jax.config import Settings, epochs
from vae_jax.data.dataset import Dataset, load_dataset
from vae_jax.errors import RunError, UsageError
from vae_jax.files import is_leftover
from vae_jax.models.autoencoders import AnyModel, Parameters, build_model
from vae_jax.models.chunks import ROWS, in_chunks
from vae_jax.models.codes import Codes
from vae_jax.models.evaluation import encode_images, evaluate
from vae_jax.runs.checkpoints import Checkpoints
from vae_jax.runs.records import read_dataset_record, read_metrics, read_settings, read_summary
from vae_jax.training.history import Row, has_stopped
from vae_jax.training.step import Keys


class Run(NamedTuple):
    """A run read back from its directory."""

    path: Path
    model: AnyModel
    params: Parameters
    config: Settings
    metrics: list[Row]
    dataset: dict[str, Any]
    """Name, source, sha256, image_shape and number of images of the data set it was trained on."""
    summary: dict[str, Any] | None
    """None while the run is not finished."""
    step: int
    """The step of the restored checkpoint."""

    @property
    def evaluation_key(self) -> Key[Array, ""]:
        """The key of the run's own evaluations, so that they can be repeated."""
        return Keys.from_seed(self.config.seed).evaluation

    def encode(self, images: Any) -> Codes:
        """Latents of images, as the run's own settings binarise them."""
        return Codes(
            *encode_images(self.model, self.params, images, self.evaluation_key, binarize=self.config.binarize)
        )

    def decode(self, codes: Any) -> Float[np.ndarray, "n height width channels"]:
        """Expected images of latents [n, latent]."""
        return np.asarray(_decode(self.model, self.params, jnp.asarray(codes, jnp.float32)))

    def reconstruct(self, images: Any) -> Float[np.ndarray, "n height width channels"]:
        """Expected images of the latent means of images."""
        return self.decode(self.encode(images).means)

    def evaluate(self, images: Any, *, samples: int = 16) -> dict[str, float]:
        """Means of loss, reconstruction and KL of images, seen as in training; see `vae_jax.evaluate`."""
        return evaluate(
            *(self.model, self.params, images, self.evaluation_key),
            samples=samples,
            binarize=self.config.binarize,
            corruption=self.config.corruption,
            corruption_level=self.config.corruption_level,
        )


@partial(jax.jit, static_argnums=0)
def _decode(model: AnyModel, params: Parameters, codes: Array) -> Array:
    return in_chunks(partial(model.decode_mean, params), ROWS, codes)


def load_run(path: str | os.PathLike[str], checkpoint: str = "best") -> Run:
    """Read a run back: the model, its parameters and what was recorded, on whatever device is there.

    Where the checkpoint is damaged, the other one that is kept is used, with a warning.

    Args:
        path: the run directory.
        checkpoint: "best" on validation, or "latest".

    Raises:
        UsageError: no run directory, a damaged one, or one without a checkpoint.
    """
    if checkpoint not in ("best", "latest"):
        raise UsageError(f"checkpoint must be 'best' or 'latest', got {checkpoint!r}.")
    directory = Path(path)
    settings, dataset = read_settings(directory, Settings), read_dataset_record(directory)
    metrics, summary = read_metrics(directory), read_summary(directory)
    model = build_model(settings, tuple(dataset["image_shape"]))
    with Checkpoints(directory) as checkpoints:
        step = checkpoints.best_step if checkpoint == "best" else checkpoints.latest_step
        params, step = checkpoints.restore_params(step, jax.eval_shape(model.init, jax.random.key(0)))
    return Run(directory, model, params, settings, metrics, dataset, summary, step)


def load_dataset_of(run: Run, data_dir: Path | None = None) -> Dataset:
    """The data set that a run was trained on, checked to be the same, with the images of its classes only.

    Args:
        run: from `load_run`.
        data_dir: where the data lies, if it no longer lies where the run found it.

    Raises:
        UsageError: the data can't be found, or is other data.
    """
    found_then = run.config.data_dir if run.config.data_dir and run.config.data_dir.is_dir() else None
    dataset = load_dataset(run.config.dataset, data_dir or found_then)
    _check_same_data(dataset, run.dataset, run.path)
    return dataset.of_classes(run.config.classes)


def fresh_path(name: str, root: Path = Path("runs")) -> Path:
    """Make a new directory runs/NAME, with a number where that is taken.

    Raises:
        RunError: it can't be made.
    """
    number = 1
    while True:
        path = root / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)  # fails where it exists: two commands at once get two directories
        except FileExistsError:
            number += 1
        except OSError as error:
            raise RunError(f"{path} can't be made: {error.strerror}. Give another --run-dir.") from error
        else:
            return path


def check_available(path: Path) -> None:
    """Refuse to train into a directory that holds something.

    Raises:
        UsageError: the path is a file, a finished run, an unfinished run or another directory that is not empty.
    """
    if path.exists() and not path.is_dir():
        raise UsageError(f"--run-dir {path} is a file. Give a directory that does not exist yet.")
    if not has_begun(path):
        return
    if (path / "summary.json").exists():
        found, remedy = "a finished run", "Give another --run-dir, or --resume with more --epochs"
    elif (path / "config.json").exists():
        found, remedy = "an unfinished run", "Give another --run-dir, or go on with it by --resume"
    else:
        found, remedy = "files that are no run", "Give a directory that does not exist yet"
    raise UsageError(f"--run-dir {path} holds {found}; nothing was changed.\n{remedy}.")


def has_begun(path: Path) -> bool:
    """Whether a directory holds anything but what a process left that was killed before its first record."""
    return path.is_dir() and not all(is_leftover(child) for child in path.iterdir())


# What --resume may change; everything else decides the parameters that were trained so far.
_FREE_ON_RESUME = ("epochs", "patience", "data_dir", "device_data", "parallel", "checkpoint_every_steps")


def changed_on_resume(path: Path, settings: Settings) -> dict[str, list[Any]]:
    """The settings that differ from the saved ones, of those that may: by name, the old and the new value.

    Raises:
        UsageError: no run directory, or a damaged one.
    """
    saved = read_settings(path, type(settings))
    pairs = {name: [getattr(saved, name), getattr(settings, name)] for name in _FREE_ON_RESUME}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def check_resumable(path: Path, settings: Settings, dataset: Dataset) -> None:
    """Refuse to go on with a run under other settings or with other data.

    Raises:
        UsageError: naming the first difference, or that the run is finished.
    """
    _check_same_settings(
        path, settings, _FREE_ON_RESUME, "Leave {flag} out to go on with it, or use another --run-dir."
    )
    _check_same_data(dataset, read_dataset_record(path), path)
    rows = read_metrics(path)
    stopped = has_stopped(rows, settings, len(dataset.train))
    if read_summary(path) and (stopped or len(rows) >= epochs(settings, len(dataset.train))):
        remedy = "no --patience or a larger one" if stopped else "more --epochs"
        raise UsageError(
            f"--run-dir {path} holds a finished run of {len(rows)} epochs; nothing was changed.\n"
            f"Give {remedy} to go on with it, or another --run-dir."
        )


def check_same_settings(path: Path, settings: Settings, dataset: Dataset) -> None:
    """Refuse to take a run for one of these settings and this data.

    Raises:
        UsageError: naming the first difference.
    """
    _check_same_settings(
        path,
        settings,
        ("data_dir", "dataset", "device_data", "parallel"),
        "Give {flag} as it was, or another --output.",
    )
    _check_same_data(dataset, read_dataset_record(path), path)


def _check_same_settings(path: Path, settings: Settings, free: Sequence[str], remedy: str) -> None:
    saved = read_settings(path, type(settings))
    for field in dataclasses.fields(Settings):
        old, new = getattr(saved, field.name), getattr(settings, field.name)
        if field.name not in free and old != new:
            flag = "--" + field.name.replace("_", "-")
            raise UsageError(f"{flag} is {new!r}, but {path} was trained with {old!r}.\n{remedy.format(flag=flag)}")


def _check_same_data(dataset: Dataset, recorded: dict[str, Any], path: Path) -> None:
    if dataset.sha256 != recorded["sha256"]:
        raise UsageError(
            f"The data set {dataset.name} ({dataset.source}) differs from the one {path} was trained on.\n"
            "Give the same data by --data-dir, or train a new run in another --run-dir."
        )
