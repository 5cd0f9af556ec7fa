"""Training into a run directory: what goes to disk and when, so that it can go on after any interruption."""

import contextlib
import dataclasses
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import optax

from vae_jax.config import Settings
from vae_jax.data.dataset import Dataset, check_batch_size
from vae_jax.errors import Interrupted, UsageError
from vae_jax.files import append_line, check_locked, locked, remove_leftovers, writing
from vae_jax.models.autoencoders import AnyModel, build_model
from vae_jax.models.inputs import Inputs
from vae_jax.models.objectives import Objective
from vae_jax.runs.checkpoints import Checkpoints, set_aside_after
from vae_jax.runs.finish import finish_run
from vae_jax.runs.folders import changed_on_resume, check_available, check_resumable, has_begun
from vae_jax.runs.records import (
    read_dataset_record,
    read_metrics,
    read_own,
    read_resumed,
    read_summary,
    write_config,
    write_environment,
    write_metrics,
)
from vae_jax.training.devices import agreed
from vae_jax.training.fit import FitResult, Hooks, go_on, make_recipe
from vae_jax.training.history import Row
from vae_jax.training.processes import is_first, text_of_first, wait_for_others
from vae_jax.training.program import Progress
from vae_jax.training.recipe import Recipe
from vae_jax.training.step import StepMetrics, TrainState, init_state, zero_metrics
from vae_jax.training.streaming import are_streamed

NO_HOOKS = Hooks()
_REMEDY = "Make room or give another --run-dir; a run that has a checkpoint goes on with --resume."
_ALIKE = [field.name for field in dataclasses.fields(Settings) if field.name != "data_dir"]
"""Settings that several processes must share."""


def train_run(
    path: str | os.PathLike[str],
    model: AnyModel,
    settings: Settings,
    dataset: Dataset,
    *,
    resume: bool = False,
    objective: Objective | None = None,
    optimizer: optax.GradientTransformation | None = None,
    inputs: Inputs | None = None,
    on_epoch: Callable[[TrainState, Row], None] | None = None,
    stop: Callable[[], int] | None = None,
) -> FitResult:
    """Train into a run directory and finish it: config, environment, checkpoints, metrics, numbers on the test split.

    Of several processes all have to call it; the first one writes.

    Args:
        path: a directory that does not exist yet, or with `resume` the one to go on with.
        model: from `build_model`, or one of your own, which `load_run` then has to be given.
        settings: how; kept in config.json.
        dataset: train and validation split are used, and for the test numbers the test split.
        resume: go on from the latest checkpoint; from the beginning where there is none yet.
        objective: what to minimise, in place of that of the settings.
        optimizer: in place of that of the settings.
        inputs: what the model sees of an image, in place of what the settings say.
        on_epoch: called after each epoch with the state and the row, before its checkpoint is saved: what it writes
            is there for each epoch that does not come again. Where it raises, the epoch does.
        stop: asked every half second or so; another answer than 0, the number of a signal, saves and ends the run.

    Raises:
        UsageError: the directory is not available, or does not fit the settings.
        RunError: the loss is not finite, the disk refuses, or another process trains there.
        Interrupted: `stop` asked for it, and everything is saved.
    """
    path = Path(path)
    if settings.classes is not None:
        settings = dataclasses.replace(settings, classes=dataset.labels_of(settings.classes))
    recipe = make_recipe(model, dataset.train, settings, objective, optimizer, inputs)
    _check_before(path, recipe, dataset, resume)
    with locked(path) if is_first() else contextlib.nullcontext():
        result = record_training(path, recipe, dataset, resume=resume, hooks=Hooks(on_epoch), stop=stop)
        if is_first():
            finish_run(path, dataset, model=model, inputs=inputs)
        wait_for_others()  # one that ends early takes the others with it
    return result


def record_training(
    path: Path,
    recipe: Recipe,
    dataset: Dataset,
    *,
    resume: bool = False,
    hooks: Hooks = NO_HOOKS,
    stop: Callable[[], int] | None = None,
) -> FitResult:
    """Train into a run directory, all but the numbers on the test split; see `train_run`.

    Args:
        path: the directory.
        recipe: what is trained, and how.
        dataset: train and validation split are used.
        resume: go on from the latest checkpoint.
        hooks: `on_start` and `on_epoch` are called.
        stop: as in `train_run`.

    Raises:
        UsageError, RunError, Interrupted: as `train_run`.
    """
    settings = recipe.settings
    dataset = dataset.of_classes(settings.classes)
    _check_before(path, recipe, dataset, resume)
    with locked(path) if is_first() else contextlib.nullcontext():
        # As the first process sees it, which may begin the run at once.
        if resume and text_of_first("begun" if has_begun(path) else ""):
            progress, history = _resume(path, recipe, dataset)
        else:
            progress, history = begin(path, recipe, dataset)
        with _ending_together(), Checkpoints(path, writing=True) as checkpoints:
            recorder = _Recorder(path, recipe, checkpoints, stop)

            def start() -> None:
                if is_first():
                    (path / "summary.json").unlink(missing_ok=True)
                if hooks.on_start:
                    hooks.on_start()

            def record(state: TrainState, row: Row) -> None:
                recorder.row(row)
                if hooks.on_epoch:
                    hooks.on_epoch(state, row)
                recorder.epoch(state, row)

            recorded = Hooks(record, recorder.part, start)
            return go_on(recipe, dataset.train, dataset.validation, progress, history, recorded)


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

    def __init__(self, path: Path, recipe: Recipe, checkpoints: Checkpoints, stop: Callable[[], int] | None):
        self._path, self._checkpoints, self._stop = path, checkpoints, stop
        self._every, self._steps = recipe.settings.checkpoint_every_steps, recipe.steps

    def part(self, progress: Progress) -> None:
        number = self._asked()
        if number or (self._every and int(progress.state.step) % self._every == 0):
            self._save(progress, None)
        else:
            check_there(self._path)
        self.end(number)

    def row(self, row: Row) -> None:
        # After the checkpoint before and before its own: one too many is dropped when the run goes on, one too few
        # would be lost.
        check_there(self._path)
        self._checkpoints.wait()
        append_row(self._path, row)

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
        check_there(self._path)
        self._checkpoints.save(progress, loss)

    def _asked(self) -> int:
        # The signal may have come to any of the processes; all of them have to ask alike.
        return agreed(self._stop() if self._stop else 0)


def state_shapes(recipe: Recipe) -> tuple[TrainState, StepMetrics]:
    """Shapes of what a checkpoint of a run holds: state, and metrics [steps]."""
    return jax.eval_shape(lambda: (init_state(recipe), zero_metrics(recipe.steps)))


def _check_before(path: Path, recipe: Recipe, dataset: Dataset, resume: bool) -> None:
    # What is refused before anything is written.
    chosen = dataset.of_classes(recipe.settings.classes)
    check_batch_size(chosen.train, recipe.settings.batch_size)
    are_streamed(recipe.settings, chosen.train.images.nbytes)
    _check_alike(recipe.settings, dataset)
    if not resume and is_first():
        check_available(path)


def _check_alike(settings: Settings, dataset: Dataset) -> None:
    # Several processes with other settings or data would train, and what they learned would be worth nothing.
    own = {f"--{name.replace('_', '-')}": str(getattr(settings, name)) for name in _ALIKE}
    own["the data set's sha256"] = dataset.sha256
    first = json.loads(text_of_first(json.dumps(own)))
    for name, value in own.items():
        if first[name] != value:
            raise UsageError(f"{name} is {value} in this process, {first[name]} in the first. Start all of them alike.")


def check_there(path: Path) -> None:
    """See that a directory which this process writes is still there.

    Raises:
        RunError: it was moved or deleted.
    """
    # Where the directory is gone, orbax and a file that is appended to would begin another one.
    if is_first():
        with writing(path, _REMEDY):
            check_locked(path)


def append_row(path: Path, row: Row) -> None:
    """Append a row to metrics.jsonl, in the first process."""
    if is_first():
        with writing(path, _REMEDY):
            append_line(path / "metrics.jsonl", json.dumps(row))


def _own(recipe: Recipe, dataset: Dataset) -> list[str]:
    # What of a recipe its settings do not describe: it can't be made from config.json again.
    try:
        described = build_model(recipe.settings, dataset.image_shape) == recipe.model
    except UsageError:
        described = False
    return [*([] if described else ["model"]), *recipe.own]


def begin(path: Path, recipe: Recipe, dataset: Dataset) -> tuple[None, list[Row]]:
    """Write the records of a new run; gives back where it stands: at its beginning."""
    if is_first():
        check_available(path)
        with writing(path, _REMEDY):
            remove_leftovers(path)
            write_config(path, recipe.settings, dataset, own=_own(recipe, dataset))
            write_environment(path)
    wait_for_others()
    return None, []


def _resume(path: Path, recipe: Recipe, dataset: Dataset) -> tuple[Progress | None, list[Row]]:
    settings, steps = recipe.settings, recipe.steps
    check_resumable(path, settings, dataset)
    own, given = read_own(path), _own(recipe, dataset)
    if own != given:
        raise UsageError(
            f"{path} was given {' and '.join(own) or 'nothing'} as objects, now {' and '.join(given) or 'nothing'}.\n"
            "Give the same objects as then, or another --run-dir."
        )
    rows, progress = read_metrics(path), None
    with Checkpoints(path, writing=True) as checkpoints:
        # One epoch without a checkpoint: it ended while it wrote the first one, and begins again.
        if checkpoints.steps or len(rows) > 1 or read_summary(path):
            progress = checkpoints.restore_progress(checkpoints.latest_step, *state_shapes(recipe))
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
        resumed += [{"step": done, "changed": changed}] if changed else []
        with writing(path, _REMEDY):
            set_aside_after(path, done)
            remove_leftovers(path)
            remove_leftovers(path / "figures")
            write_metrics(path, history)
            write_config(path, settings, dataset, own=own, resumed=resumed, recorded=read_dataset_record(path))
            if not (path / "environment.json").exists():
                write_environment(path)
    return progress, history
