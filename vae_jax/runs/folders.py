"""Which run directories may be written, and which settings and data a run may go on with."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vae_jax.config import Settings, epochs
from vae_jax.data.dataset import Dataset
from vae_jax.errors import RunError, UsageError
from vae_jax.files import is_leftover
from vae_jax.runs.datasets import as_recorded
from vae_jax.runs.records import read_dataset_record, read_metrics, read_settings, read_summary
from vae_jax.training.history import has_stopped


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
_FREE_ON_RESUME = (
    *("epochs", "patience", "dataset", "data_dir", "device_data", "parallel", "checkpoint_every_steps"),
    *("test_samples", "iwae_samples", "grid_size", "skip_damaged"),
)


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
    if as_recorded(dataset, recorded["sha256"]) is not dataset:
        raise UsageError(
            f"The data set {dataset.name} ({dataset.source}) differs from the one {path} was trained on.\n"
            "Give the same data by --data-dir, or train a new run in another --run-dir."
        )
