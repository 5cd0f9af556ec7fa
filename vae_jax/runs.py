"""Runs: training into a run directory, going on with one, and the way back from it to the model."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Key

from vae_jax.checkpoints import Checkpoints
from vae_jax.config import Settings, epochs
from vae_jax.data import Dataset, load_dataset
from vae_jax.errors import RunError, UsageError
from vae_jax.fitting import FitResult, Progress, fit
from vae_jax.history import Row, has_stopped
from vae_jax.many import fit_many, member_of
from vae_jax.models import AnyModel, Parameters, build_model
from vae_jax.processes import is_first, wait_for_others
from vae_jax.records import (
    read_dataset_record,
    read_metrics,
    read_settings,
    read_summary,
    write_config,
    write_environment,
    write_metrics,
)
from vae_jax.training import Keys, TrainState, init_state, make_optimizer, steps_per_epoch, zero_metrics


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
    with Checkpoints(directory, alone=jax.process_count() > 1) as checkpoints:
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
    if not path.exists() or not any(path.iterdir()):
        return
    if (path / "summary.json").exists():
        found, remedy = "a finished run", "Give another --run-dir, or --resume with more --epochs"
    elif (path / "config.json").exists():
        found, remedy = "an unfinished run", "Give another --run-dir, or go on with it by --resume"
    else:
        found, remedy = "files that are no run", "Give a directory that does not exist yet"
    raise UsageError(f"--run-dir {path} holds {found}; nothing was changed.\n{remedy}.")


# What --resume may change; everything else decides the parameters that were trained so far.
_FREE_ON_RESUME = ("epochs", "patience", "data_dir", "parallel")


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
        path, settings, ("data_dir", "dataset", "parallel"), "Give {flag} as it was, or another --output."
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


def train_run(
    path: Path,
    model: AnyModel,
    settings: Settings,
    dataset: Dataset,
    *,
    resume: bool = False,
    on_start: Callable[[], None] | None = None,
    on_epoch: Callable[[TrainState, Row], None] | None = None,
) -> FitResult:
    """Train into a run directory: config, environment, a checkpoint and a row of metrics each epoch.

    Args:
        path: a directory that does not exist yet, or with `resume` the one to go on with.
        model: from `build_model`.
        settings: how; kept in config.json.
        dataset: train and validation split are used.
        resume: go on from the latest checkpoint.
        on_start: called when everything is compiled.
        on_epoch: called after each epoch with the state and the row.

    Raises:
        UsageError: the directory is not available, or does not fit the settings.
        RunError: the loss is not finite, or the disk refuses.
    """
    dataset = dataset.of_classes(settings.classes)
    progress, history = _resume(path, model, settings, dataset) if resume else _begin(path, settings, dataset)
    with Checkpoints(path) as checkpoints:

        def start() -> None:
            if is_first():
                (path / "summary.json").unlink(missing_ok=True)
            if on_start:
                on_start()

        def record(state: TrainState, row: Row) -> None:
            # First the row: one too many is dropped when the run goes on, one too few would be lost.
            _append(path, row)
            checkpoints.save(state, row)
            if on_epoch:
                on_epoch(state, row)

        splits = (dataset.train, dataset.validation)
        return fit(model, *splits, settings, progress=progress, history=history, on_start=start, on_epoch=record)


def train_runs(
    paths: Sequence[Path],
    model: AnyModel,
    members: Sequence[Settings],
    dataset: Dataset,
    *,
    on_epoch: Callable[[list[Row]], None] | None = None,
) -> list[FitResult]:
    """Train models together, each into a run directory of its own.

    Its checkpoints are those of a single run, the latest and the best, but written at the end only.

    Args:
        paths: directories that do not exist yet, one a model.
        model: from `build_model`.
        members: as in `vae_jax.many.fit_many`.
        dataset: train and validation split are used.
        on_epoch: called after each epoch with a row for each model.

    Raises:
        UsageError: a directory is not available, or the settings can't be trained together.
        RunError: a loss is not finite, or the disk refuses.
    """
    for path, settings in zip(paths, members, strict=True):
        _begin(path, settings, dataset.of_classes(settings.classes))

    best: list[tuple[TrainState, Row]] = []

    def record(states: TrainState, rows: list[Row]) -> None:
        for i, (path, row) in enumerate(zip(paths, rows, strict=True)):
            _append(path, row)
            if len(best) < len(rows) or row["validation"]["loss"] < best[i][1]["validation"]["loss"]:
                best[i : i + 1] = [(member_of(states, i), row)]
        if on_epoch:
            on_epoch(rows)

    results = fit_many(model, dataset.train, dataset.validation, members, on_epoch=record)
    for path, result, (state, row) in zip(paths, results, best, strict=True):
        with Checkpoints(path) as checkpoints:
            if row["step"] < result.history[-1]["step"]:
                checkpoints.save(state, row)
            checkpoints.save(result.state, result.history[-1])
    return results


def _append(path: Path, row: Row) -> None:
    if not is_first():
        return
    with _writing(path), open(path / "metrics.jsonl", "a", encoding="utf-8") as log:
        log.write(json.dumps(row) + "\n")


def _begin(path: Path, settings: Settings, dataset: Dataset) -> tuple[None, list[Row]]:
    if is_first():
        check_available(path)
        with _writing(path):
            path.mkdir(parents=True, exist_ok=True)
            write_config(path, settings, dataset)
            write_environment(path)
    wait_for_others()
    return None, []


def _resume(path: Path, model: AnyModel, settings: Settings, dataset: Dataset) -> tuple[Progress | None, list[Row]]:
    check_resumable(path, settings, dataset)
    optimizer = make_optimizer(settings, len(dataset.train))
    shapes = jax.eval_shape(lambda: init_state(model, optimizer, settings))
    rows, progress = read_metrics(path), None
    steps = steps_per_epoch(len(dataset.train), settings.batch_size)
    with Checkpoints(path) as checkpoints:
        # One epoch without a checkpoint: it ended while it wrote the first one, and begins again.
        if checkpoints.steps or len(rows) > 1 or read_summary(path):
            state = checkpoints.restore_state(checkpoints.latest_step, shapes)
            progress = Progress(state, zero_metrics(steps))
    done = int(progress.state.step) if progress else 0
    history = [row for row in rows if row["step"] <= done]
    wait_for_others()  # all have read what one of them writes now
    if is_first():
        with _writing(path):
            write_metrics(path, history)
            write_config(path, settings, dataset)
    return progress, history


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(
            f"The run directory {path} can't be written: {error.strerror or error}.\n"
            "Make room or give another --run-dir; a run that has a checkpoint goes on with --resume."
        ) from error
