"""Run directories: which may be written, and how a run begins there or goes on."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vae_jax.config import Settings, epochs
from vae_jax.data.dataset import Dataset
from vae_jax.domains import flag_of
from vae_jax.errors import RunError, UsageError, counted
from vae_jax.files import is_leftover, remove_leftovers, writing
from vae_jax.runs.checkpoints import Checkpoints, set_aside_after
from vae_jax.runs.datasets import as_recorded
from vae_jax.runs.described import check_described
from vae_jax.runs.environment import write_environment
from vae_jax.runs.records import (
    read_config,
    read_dataset_record,
    read_metrics,
    read_settings,
    read_summary,
    write_config,
    write_metrics,
)
from vae_jax.training.history import Row, has_stopped
from vae_jax.training.processes import is_first, wait_for_others
from vae_jax.training.program import Progress
from vae_jax.training.recipe import Recipe

REMEDY = "Make room or give another --run-dir; a run that has a checkpoint goes on with --resume."


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
    if read_config(path)["fitted_prior"]:
        raise UsageError(
            f"--run-dir {path} has a prior that was fitted after training, so it can't be trained on.\n"
            "Go on with the run that it came from, and fit its prior again by vae-jax fit-prior."
        )
    remedy = "Leave {flag} out to go on with it, or use another --run-dir."
    check_same_settings(path, settings, dataset, _FREE_ON_RESUME, remedy)
    rows = read_metrics(path)
    stopped = has_stopped(rows, settings, len(dataset.train))
    if read_summary(path) and (stopped or len(rows) >= epochs(settings, len(dataset.train))):
        remedy = "no --patience or a larger one" if stopped else "more --epochs"
        if settings.steps and not stopped:
            raise UsageError(
                f"--run-dir {path} holds a finished run of --steps {settings.steps}; nothing was changed.\n"
                "It can't go on: give another --run-dir."
            )
        raise UsageError(
            f"--run-dir {path} holds a finished run of {counted(len(rows), 'epoch')}; nothing was changed.\n"
            f"Give {remedy} to go on with it, or another --run-dir."
        )


def check_same_settings(
    path: Path,
    settings: Settings,
    dataset: Dataset,
    free: Sequence[str] = ("data_dir", "dataset", "device_data", "parallel"),
    remedy: str = "Give {flag} as it was, or another --output.",
) -> None:
    """Refuse to take a run for one of these settings, but those that are free, and of this data.

    Raises:
        UsageError: naming the first difference.
    """
    saved = read_settings(path, type(settings))
    for field in dataclasses.fields(Settings):
        old, new, flag = getattr(saved, field.name), getattr(settings, field.name), flag_of(field.name)
        if field.name not in free and old != new:
            raise UsageError(f"{flag} is {new!r}, but {path} was trained with {old!r}.\n{remedy.format(flag=flag)}")
    if as_recorded(dataset, read_dataset_record(path)["sha256"]) is not dataset:
        raise UsageError(
            f"The data set {dataset.name} ({dataset.source}) differs from the one {path} was trained on.\n"
            "Give the same data by --data-dir, or train a new run in another --run-dir."
        )


def begin(path: Path, recipe: Recipe, dataset: Dataset, started_from: str = "") -> None:
    """Write the records of a new run; `started_from` is the run whose parameters it begins with."""
    if is_first():
        check_available(path)
        with writing(path, REMEDY):
            remove_leftovers(path)
            about: Any = {"own": recipe.own, "described": recipe.described, "started_from": started_from}
            write_config(path, recipe.settings, dataset, labels=recipe.model.classes, **about)
            write_environment(path)
    wait_for_others()


def resume_run(path: Path, recipe: Recipe, dataset: Dataset) -> tuple[Progress | None, list[Row]]:
    """Where a run stands that is gone on with, and the rows that led there; its records are brought to that.

    Raises:
        UsageError: it can't be gone on with by this recipe or on this data, or is damaged.
    """
    settings, steps = recipe.settings, recipe.steps
    check_resumable(path, settings, dataset)
    saved, own, described = read_config(path), recipe.own, recipe.described
    if saved["own"] != own:
        raise UsageError(
            f"{path} was given {' and '.join(saved['own']) or 'nothing'} as objects, now "
            f"{' and '.join(own) or 'nothing'}.\nGive the same objects as then, or another --run-dir."
        )
    check_described(path, {name: described[name] for name in described if name in own})
    rows, progress = read_metrics(path), None
    with Checkpoints(path, writing=True) as checkpoints:
        # One epoch without a checkpoint: it ended while it wrote the first one, and begins again.
        if checkpoints.steps or len(rows) > 1 or read_summary(path):
            progress = checkpoints.restore_progress(checkpoints.latest_step, recipe)
    done = int(progress.state.step) if progress else 0
    history = [row for row in rows if row["step"] <= done]
    if history and history[0]["step"] > steps:
        raise UsageError(
            f"{path} was trained together with runs of more images, at {history[0]['step']} steps an epoch in place of "
            f"{steps}: it can't go on alone.\nTrain it in another --run-dir."
        )
    ends = [recipe.step_after(epoch) for epoch in range(-(-done // steps)) if recipe.step_after(epoch) <= done]
    if [row["step"] for row in history] != ends:
        raise UsageError(
            f"{path / 'metrics.jsonl'} is damaged: it must hold each epoch before step {done} once, {len(ends)} in "
            f"all, got {[row['epoch'] for row in history]}.\nRestore the file, or train in another --run-dir."
        )
    changed, resumed = changed_on_resume(path, settings), saved["resumed"]
    wait_for_others()  # all have read what one of them writes now
    if is_first():
        resumed += [{"step": done, "changed": changed}] if changed else []
        with writing(path, REMEDY):
            set_aside_after(path, done)
            remove_leftovers(path)
            remove_leftovers(path / "figures")
            write_metrics(path, history)
            more: Any = {"own": own, "described": described, "resumed": resumed, "started_from": saved["started_from"]}
            more |= {"labels": recipe.model.classes}
            write_config(path, settings, dataset, stratified=saved["dataset"].get("stratified", True), **more)
            if not (path / "environment.json").exists():
                write_environment(path)
    return progress, history
