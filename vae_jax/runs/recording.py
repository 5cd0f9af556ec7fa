"""Training into a run directory: what goes to disk and when, so that it can go on after any interruption."""

import contextlib
import dataclasses
import json
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from vae_jax.config import Settings
from vae_jax.data.dataset import Dataset
from vae_jax.errors import Interrupted, UsageError
from vae_jax.files import append_line, check_locked, locked, remove_leftovers, writing
from vae_jax.models.autoencoders import AnyModel
from vae_jax.runs.checkpoints import Checkpoints, set_aside_after
from vae_jax.runs.records import (
    read_metrics,
    read_resumed,
    read_summary,
    write_config,
    write_environment,
    write_metrics,
)
from vae_jax.runs.run import changed_on_resume, check_available, check_resumable, has_begun
from vae_jax.training.devices import agreed
from vae_jax.training.fit import FitResult, Progress, fit
from vae_jax.training.history import Row
from vae_jax.training.many import check_members, fit_many, member_of
from vae_jax.training.optimizer import make_optimizer, steps_per_epoch
from vae_jax.training.processes import is_first, text_of_first, wait_for_others
from vae_jax.training.step import StepMetrics, TrainState, init_state, zero_metrics
from vae_jax.training.streaming import are_streamed

_REMEDY = "Make room or give another --run-dir; a run that has a checkpoint goes on with --resume."
_ALIKE = [field.name for field in dataclasses.fields(Settings) if field.name != "data_dir"]
"""Settings that several processes must share."""


def train_run(
    path: Path,
    model: AnyModel,
    settings: Settings,
    dataset: Dataset,
    *,
    resume: bool = False,
    on_start: Callable[[], None] | None = None,
    on_epoch: Callable[[TrainState, Row], None] | None = None,
    stop: Callable[[], int] | None = None,
) -> FitResult:
    """Train into a run directory: config, environment, a checkpoint and a row of metrics each epoch.

    Of several processes all have to call it; the first one writes.

    Args:
        path: a directory that does not exist yet, or with `resume` the one to go on with.
        model: from `build_model`.
        settings: how; kept in config.json.
        dataset: train and validation split are used.
        resume: go on from the latest checkpoint; from the beginning where there is none yet.
        on_start: called when everything is compiled.
        on_epoch: called after each epoch with the state and the row, before its checkpoint is saved: what it writes
            is there for each epoch that does not come again. Where it raises, the epoch does.
        stop: asked every half second or so; another answer than 0, the number of a signal, saves and ends the run.

    Raises:
        UsageError: the directory is not available, or does not fit the settings.
        RunError: the loss is not finite, the disk refuses, or another process trains there.
        Interrupted: `stop` asked for it, and everything is saved.
    """
    dataset = dataset.of_classes(settings.classes)
    are_streamed(settings, dataset.train.images.nbytes)  # refused before anything is written
    _check_alike(settings, dataset)
    if not resume and is_first():
        check_available(path)
    with locked(path) if is_first() else contextlib.nullcontext():
        # As the first process sees it, which may begin the run at once.
        if resume and text_of_first("begun" if has_begun(path) else ""):
            progress, history = _resume(path, model, settings, dataset)
        else:
            progress, history = _begin(path, settings, dataset)
        with _ending_together(), Checkpoints(path, writing=True) as checkpoints:
            recorder = _Recorder(path, settings, dataset, checkpoints, stop)

            def start() -> None:
                if is_first():
                    (path / "summary.json").unlink(missing_ok=True)
                if on_start:
                    on_start()

            def record(state: TrainState, row: Row) -> None:
                recorder.row(row)
                if on_epoch:
                    on_epoch(state, row)
                recorder.epoch(state, row)

            return fit(
                *(model, dataset.train, dataset.validation, settings),
                progress=progress,
                history=history,
                on_start=start,
                on_epoch=record,
                on_part=recorder.part,
            )


@contextlib.contextmanager
def _ending_together() -> Iterator[None]:
    # A signal ends all processes alike; none may leave while another still closes its checkpoints.
    try:
        yield
    except Interrupted:
        wait_for_others()
        raise


class _Recorder:
    """What of training goes to disk, and when."""

    def __init__(
        self,
        path: Path,
        settings: Settings,
        dataset: Dataset,
        checkpoints: Checkpoints,
        stop: Callable[[], int] | None,
    ):
        self._path, self._checkpoints, self._stop = path, checkpoints, stop
        self._every = settings.checkpoint_every_steps
        self._steps = steps_per_epoch(len(dataset.train), settings.batch_size)

    def part(self, progress: Progress) -> None:
        number = self._asked()
        if number or (self._every and int(progress.state.step) % self._every == 0):
            self._save(progress, None)
        else:
            _check_there(self._path)
            self._checkpoints.settle()
        self.end(number)

    def row(self, row: Row) -> None:
        # After the checkpoint before and before its own: one too many is dropped when the run goes on, one too few
        # would be lost.
        _check_there(self._path)
        self._checkpoints.wait()
        _append(self._path, row)

    def epoch(self, state: TrainState, row: Row) -> None:
        self._save(Progress(state, zero_metrics(self._steps)), row["validation"]["loss"])
        self.end()

    def end(self, number: int | None = None) -> None:
        """End the run if that signal came, or by default if one is there now; all that is done has been saved."""
        number = self._asked() if number is None else number
        if number:
            self._checkpoints.wait()
            name = signal.Signals(number).name
            raise Interrupted(f"Stopped by {name}, saved at step {self._checkpoints.latest_step}.", number)

    def _save(self, progress: Progress, loss: float | None) -> None:
        _check_there(self._path)
        self._checkpoints.save(progress, loss)

    def _asked(self) -> int:
        # The signal may have come to any of the processes; all of them have to ask alike.
        return agreed(self._stop() if self._stop else 0)


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
        members: as in `vae_jax.training.many.fit_many`.
        dataset: train and validation split are used.
        on_epoch: called after each epoch with a row for each model.

    Raises:
        UsageError: a directory is not available, or the settings can't be trained together.
        RunError: a loss is not finite, the disk refuses, or another process trains there.
    """
    check_members(dataset.train, members)
    with contextlib.ExitStack() as locks:
        for path, settings in zip(paths, members, strict=True):
            check_available(path)
            locks.enter_context(locked(path))
            _begin(path, settings, dataset.of_classes(settings.classes))

        best: list[tuple[TrainState, Row]] = []

        def record(states: TrainState, rows: list[Row]) -> None:
            for i, (path, row) in enumerate(zip(paths, rows, strict=True)):
                _check_there(path)
                _append(path, row)
                if len(best) < len(rows) or row["validation"]["loss"] < best[i][1]["validation"]["loss"]:
                    best[i : i + 1] = [(member_of(states, i), row)]
            if on_epoch:
                on_epoch(rows)

        results = fit_many(model, dataset.train, dataset.validation, members, on_epoch=record)
        for path, settings, result, (state, row) in zip(paths, members, results, best, strict=True):
            last = result.history[-1]
            images = len(dataset.train.of_classes(settings.classes))
            metrics = zero_metrics(steps_per_epoch(images, settings.batch_size))
            _check_there(path)
            with Checkpoints(path, writing=True) as checkpoints:
                if row["step"] < last["step"]:
                    checkpoints.save(Progress(state, metrics), row["validation"]["loss"])
                checkpoints.save(Progress(result.state, metrics), last["validation"]["loss"])
        return results


def state_shapes(model: AnyModel, settings: Settings, images: int) -> tuple[TrainState, StepMetrics]:
    """Shapes of what a checkpoint of a run on so many training images holds: state, and metrics [steps]."""
    optimizer = make_optimizer(settings, images)
    steps = steps_per_epoch(images, settings.batch_size)
    return jax.eval_shape(lambda: (init_state(model, optimizer, settings), zero_metrics(steps)))


def _check_alike(settings: Settings, dataset: Dataset) -> None:
    # Several processes with other settings or data would train, and what they learned would be worth nothing.
    own = {f"--{name.replace('_', '-')}": str(getattr(settings, name)) for name in _ALIKE}
    own["the data set's sha256"] = dataset.sha256
    first = json.loads(text_of_first(json.dumps(own)))
    for name, value in own.items():
        if first[name] != value:
            raise UsageError(f"{name} is {value} in this process, {first[name]} in the first. Start all of them alike.")


def _check_there(path: Path) -> None:
    # Where the directory is gone, orbax and a file that is appended to would begin another one.
    if is_first():
        with writing(path, _REMEDY):
            check_locked(path)


def _append(path: Path, row: Row) -> None:
    if is_first():
        with writing(path, _REMEDY):
            append_line(path / "metrics.jsonl", json.dumps(row))


def _begin(path: Path, settings: Settings, dataset: Dataset) -> tuple[None, list[Row]]:
    if is_first():
        check_available(path)
        with writing(path, _REMEDY):
            remove_leftovers(path)
            write_config(path, settings, dataset)
            write_environment(path)
    wait_for_others()
    return None, []


def _resume(path: Path, model: AnyModel, settings: Settings, dataset: Dataset) -> tuple[Progress | None, list[Row]]:
    check_resumable(path, settings, dataset)
    rows, progress, steps = read_metrics(path), None, steps_per_epoch(len(dataset.train), settings.batch_size)
    with Checkpoints(path, writing=True) as checkpoints:
        # One epoch without a checkpoint: it ended while it wrote the first one, and begins again.
        if checkpoints.steps or len(rows) > 1 or read_summary(path):
            shapes = state_shapes(model, settings, len(dataset.train))
            progress = checkpoints.restore_progress(checkpoints.latest_step, *shapes)
    done = int(progress.state.step) if progress else 0
    history = [row for row in rows if row["step"] <= done]
    if history and history[0]["step"] > steps:
        raise UsageError(
            f"{path} was trained together with runs of more images, at {history[0]['step']} steps an epoch in place of "
            f"{steps}: it can't go on alone.\nTrain it in another --run-dir."
        )
    if [row["step"] for row in history] != [steps * (i + 1) for i in range(done // steps)]:
        raise UsageError(
            f"{path / 'metrics.jsonl'} is damaged: it must hold the {done // steps} epochs before step {done} once "
            f"each, got {[row.get('epoch') for row in history]}.\nRestore the file, or train in another --run-dir."
        )
    changed, resumed = changed_on_resume(path, settings), read_resumed(path)
    wait_for_others()  # all have read what one of them writes now
    if is_first():
        _rewrite(
            path, settings, dataset, history, done, resumed + ([{"step": done, "changed": changed}] if changed else [])
        )
    return progress, history


def _rewrite(
    path: Path,
    settings: Settings,
    dataset: Dataset,
    history: list[Row],
    resumed_at: int,
    resumed: list[dict[str, Any]],
) -> None:
    with writing(path, _REMEDY):
        set_aside_after(path, resumed_at)
        remove_leftovers(path)
        remove_leftovers(path / "figures")
        write_metrics(path, history)
        write_config(path, settings, dataset, resumed)
        if not (path / "environment.json").exists():
            write_environment(path)
