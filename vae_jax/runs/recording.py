"""Training into a run directory: what goes to disk and when, so that it can go on after any interruption."""

import contextlib
import dataclasses
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import optax

from vae_jax.config import Settings
from vae_jax.data.dataset import Dataset, check_batch_size
from vae_jax.domains import flag_of
from vae_jax.errors import Interrupted, UsageError
from vae_jax.files import append_line, check_locked, locked, writing
from vae_jax.models.autoencoders import AnyModel
from vae_jax.models.conditions import check_conditions
from vae_jax.models.inputs import Inputs
from vae_jax.models.objectives import Objective
from vae_jax.runs.checkpoints import Checkpoints
from vae_jax.runs.finish import finish_run
from vae_jax.runs.folders import REMEDY, begin, check_available, has_begun, resume_run
from vae_jax.runs.records import read_config
from vae_jax.training.devices import agreed
from vae_jax.training.fit import FitResult, Hooks, check_types, go_on, make_recipe
from vae_jax.training.history import Row, score
from vae_jax.training.processes import is_first, text_of_first, wait_for_others
from vae_jax.training.program import Progress
from vae_jax.training.recipe import Recipe
from vae_jax.training.sampling import Sampling
from vae_jax.training.step import TrainState, zero_metrics
from vae_jax.training.streaming import are_streamed

NO_HOOKS = Hooks()
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
    sampling: Sampling | None = None,
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
        sampling: which images an epoch is made of, in place of that of the settings.
        on_epoch: called after each epoch with the state and the row, before its checkpoint is saved: what it writes
            is there for each epoch that does not come again. Where it raises, the epoch does.
        stop: asked every half second or so; another answer than 0, the number of a signal, saves and ends the run.

    Raises:
        UsageError: the directory is not available, or does not fit the settings.
        RunError: the loss is not finite, the disk refuses, or another process trains there.
        Interrupted: `stop` asked for it, and everything is saved.
    """
    path = Path(path).expanduser()
    check_types(settings=(settings, Settings), dataset=(dataset, Dataset))
    if settings.classes is not None:
        settings = dataclasses.replace(settings, classes=dataset.labels_of(settings.classes))
    recipe = make_recipe(model, dataset.train, settings, objective, optimizer, inputs, sampling)

    def finish() -> None:
        finish_run(path, dataset, model=model, inputs=inputs)

    return record_training(path, recipe, dataset, resume=resume, hooks=Hooks(on_epoch), stop=stop, finish=finish)


def record_training(
    path: Path,
    recipe: Recipe,
    dataset: Dataset,
    *,
    resume: bool = False,
    hooks: Hooks = NO_HOOKS,
    stop: Callable[[], int] | None = None,
    finish: Callable[[], None] | None = None,
    initial: tuple[str, TrainState] | None = None,
) -> FitResult:
    """Train into a run directory as `train_run`, by a recipe, with what the hooks do beside.

    `finish` is called at the end, in the first process; the numbers on the test split are its. `initial` is the state
    to begin with, and which run it comes from.
    """
    dataset = dataset.of_classes(recipe.settings.classes)
    _check_before(path, recipe, dataset, resume)
    with locked(path) if is_first() else contextlib.nullcontext():
        progress, history = None, list[Row]()
        # As the first process sees it, which may begin the run at once.
        if resume and text_of_first("begun" if has_begun(path) else ""):
            progress, history = resume_run(path, recipe, dataset)
        else:
            begin(path, recipe, dataset, initial[0] if initial else "")
        if progress is None and initial:
            progress = Progress(initial[1], zero_metrics(recipe.steps))
        elif progress is None and (origin := read_config(path)["started_from"]):
            raise UsageError(f"{path} was to begin with the parameters of {origin}. Give --init-from {origin} again.")
        with _ending_together(), Checkpoints(path, writing=True) as checkpoints:
            recorder = _Recorder(path, checkpoints, recipe, hooks, stop or (lambda: 0))
            recorded = Hooks(recorder.epoch, recorder.part, recorder.start)
            result = go_on(recipe, dataset.train, dataset.validation, progress, history, recorded)
        if finish and is_first():
            finish()
        wait_for_others()  # one that ends early takes the others with it
    return result


@contextlib.contextmanager
def _ending_together() -> Iterator[None]:
    # A signal ends all processes alike; none may leave while another still closes its checkpoints.
    try:
        yield
    except Interrupted:
        wait_for_others()
        raise


class _Recorder(NamedTuple):
    """What of training goes to disk, and when."""

    path: Path
    checkpoints: Checkpoints
    recipe: Recipe
    hooks: Hooks
    stop: Callable[[], int]

    def start(self) -> None:
        if is_first():
            (self.path / "summary.json").unlink(missing_ok=True)
        if self.hooks.on_start:
            self.hooks.on_start()

    def part(self, progress: Progress) -> None:
        # The signal may have come to any of the processes; all of them have to ask alike.
        number, every = agreed(self.stop()), self.recipe.settings.checkpoint_every_steps
        check_there(self.path)
        if number or (every and int(progress.state.step) % every == 0):
            self.checkpoints.save(progress, None)
        self.end(number)
        if self.hooks.on_part:
            self.hooks.on_part(progress)

    def epoch(self, state: TrainState, row: Row) -> None:
        # The row comes after the checkpoint before and before its own: one too many is dropped when the run goes on,
        # one too few would be lost.
        check_there(self.path)
        self.checkpoints.wait()
        append_row(self.path, row)
        if self.hooks.on_epoch:
            self.hooks.on_epoch(state, row)
        check_there(self.path)
        self.checkpoints.save(Progress(state, zero_metrics(self.recipe.steps)), score(row))
        self.end(agreed(self.stop()))

    def end(self, number: int) -> None:
        """End the run if that signal came; all that is done has been saved."""
        if number:
            self.checkpoints.wait()
            name = signal.Signals(number).name
            raise Interrupted(f"Stopped by {name}, saved at step {self.checkpoints.latest_step}.", number)


def _check_before(path: Path, recipe: Recipe, dataset: Dataset, resume: bool) -> None:
    # What is refused before anything is written.
    chosen = dataset.of_classes(recipe.settings.classes)
    check_batch_size(chosen.train, recipe.settings.batch_size)
    check_conditions(recipe.model.classes, *chosen.splits.values(), unknown=recipe.model.infers)
    are_streamed(recipe.settings, chosen.train.images.nbytes)
    _check_alike(recipe.settings, dataset)
    if not resume and is_first():
        check_available(path)


def _check_alike(settings: Settings, dataset: Dataset) -> None:
    # Several processes with other settings or data would train, and what they learned would be worth nothing.
    own = {flag_of(name): str(getattr(settings, name)) for name in _ALIKE}
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
        with writing(path, REMEDY):
            check_locked(path)


def append_row(path: Path, row: Row) -> None:
    """Append a row to metrics.jsonl, in the first process."""
    if is_first():
        with writing(path, REMEDY):
            append_line(path / "metrics.jsonl", json.dumps(row))
