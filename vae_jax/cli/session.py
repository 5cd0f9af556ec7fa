"""A training run from its data to its figures, as `vae-jax train` has it."""

import dataclasses
import shlex
import signal
import textwrap
import time
from pathlib import Path
from typing import Any

import jax

from vae_jax.cli.command import START, TrainingConfig, where_found
from vae_jax.cli.defaults import About, as_in, decided, in_words
from vae_jax.cli.figures import bits_in_words, draw_run, headline
from vae_jax.cli.outputs import check_name
from vae_jax.cli.progress import Progress
from vae_jax.cli.signals import Signals
from vae_jax.cli.track import check_track, tracker
from vae_jax.config import READING, Settings
from vae_jax.data.dataset import Dataset
from vae_jax.data.loading import load_dataset
from vae_jax.domains import MOST_STEPS
from vae_jax.errors import Interrupted, UsageError, counted
from vae_jax.files import locked
from vae_jax.models.autoencoders import build_model
from vae_jax.models.codes import Codes
from vae_jax.models.conditions import conditions_of
from vae_jax.runs.datasets import find_dataset
from vae_jax.runs.finish import finish_run
from vae_jax.runs.folders import changed_on_resume, check_available, fresh_path, has_begun
from vae_jax.runs.preflight import check_trainable
from vae_jax.runs.recording import record_training
from vae_jax.runs.records import read_dataset_record, read_settings
from vae_jax.runs.run import Run, filled, load_run
from vae_jax.training.fit import Hooks, make_recipe, seconds_per_step
from vae_jax.training.processes import is_first, text_of_first
from vae_jax.training.recipe import Recipe
from vae_jax.training.start import started_from
from vae_jax.training.step import TrainState
from vae_jax.training.streaming import are_streamed, memory_bytes


def train(config: TrainingConfig, signals: Signals) -> Run | None:
    """Train, evaluate, draw and print; gives back the finished run, but in the first of several processes only."""
    check_track(config.track)
    if config.run_dir and not config.resume and is_first():
        check_available(config.run_dir)
        check_name(config.run_dir, "", flag="--run-dir")
    dataset, recipe = load(config)
    path, begin = config.run_dir, initial_of(config, recipe, dataset)
    if path is None:
        name = f"{dataset.name}-{config.model}-z{recipe.settings.latent_dim}"
        path = Path(text_of_first(str(fresh_path(name)) if is_first() else ""))
    try:
        streamed = are_streamed(recipe.settings, dataset.train.images.nbytes)
        if not is_first():
            if config.minutes:
                recipe = for_minutes(recipe, dataset, config.minutes)
            _train(config, recipe, dataset, path, signals, None, begin)
            return None
        with locked(path):
            _announce(config, dataset, path, streamed)
            if config.minutes:
                recipe = for_minutes(recipe, dataset, config.minutes)
            progress = Progress(recipe, dataset, path, tracker(config.track, path))
            try:
                _train(config, recipe, dataset, path, signals, progress, begin)
                return _finish(dataset, path, progress)
            finally:
                progress.stop()
    except KeyboardInterrupt as stop:
        number = stop.number if isinstance(stop, Interrupted) else signal.SIGINT
        raise Interrupted(f"{str(stop) or 'Interrupted.'} Go on with\n{_command(path)}", number) from None


def load(config: TrainingConfig) -> tuple[Dataset, Recipe]:
    """The data of the flags, or of the run that goes on, and how to train on it.

    Raises:
        UsageError: the data can't be had, or the model can't be trained on it.
    """
    path = config.run_dir
    begun = config.resume and path is not None and has_begun(path)
    for name, is_given in (("resume", begun), ("epochs", config.epochs), ("steps", config.steps)):
        if config.minutes and is_given:
            reason = "a run that goes on keeps its steps" if name == "resume" else "both say when a run ends"
            raise UsageError(f"--minutes {config.minutes:g} can't be given with --{name}: {reason}.\nLeave one out.")
    if begun and path is not None:
        dataset, words = find_dataset(config, read_dataset_record(path), config.data_dir, in_file=True), False
    else:
        reading: Any = {name: getattr(config, name) for name in READING}
        dataset, words = load_dataset(config.dataset, config.data_dir, in_file=True, **reading), True
    name, folder = where_found(config.dataset, config.data_dir, dataset.name)
    classes = None if config.classes is None else dataset.labels_of(config.classes, words=words)
    settings = dataclasses.replace(config, dataset=name, data_dir=folder, classes=classes)
    dataset = dataset.of_classes(classes)
    # A run that goes on keeps what was decided, be it by an earlier version.
    if not begun:
        settings = _decided(settings, About.of(dataset.train))
    if settings.minutes:
        settings = dataclasses.replace(settings, steps=1)
    check_trainable(settings, dataset)
    model = build_model(settings, dataset.image_shape, conditions_of(settings, dataset))
    return dataset, make_recipe(model, dataset.train, settings)


def _decided(config: TrainingConfig, images: About) -> TrainingConfig:
    # The settings with what the flags leave open, which is said.
    given = config if config.init_from is None else as_in(config, read_settings(config.init_from, Settings))
    settings = decided(given, images)
    lines = [f"Networks as in {config.init_from}, where no flag says else."] * (given != config)
    if is_first() and (said := "\n".join([*lines, *filter(None, [in_words(given, settings, images)])])):
        print(said, flush=True)
    return settings


def for_minutes(recipe: Recipe, dataset: Dataset, minutes: float) -> Recipe:
    """The same for as many steps as fit into so many minutes, by the pace of the first ones."""
    endless = dataclasses.replace(recipe, settings=dataclasses.replace(recipe.settings, steps=MOST_STEPS))
    seconds = seconds_per_step(endless, dataset.train, dataset.validation)
    steps = max(1, min(MOST_STEPS, round(60 * minutes / seconds)))
    if is_first():
        rate = recipe.settings.batch_size / seconds
        said = f"{counted(steps, 'step')}, {steps / recipe.steps:.1f} epochs, at {rate:,.0f} images/s"
        print(f"{minutes:g} {'minute' if minutes == 1 else 'minutes'} of training are {said}.", flush=True)
    return dataclasses.replace(recipe, settings=dataclasses.replace(recipe.settings, steps=steps))


def initial_of(config: TrainingConfig, recipe: Recipe, dataset: Dataset) -> tuple[str, TrainState] | None:
    """The run that --init-from names, where one is, and a state that begins with its parameters, which is said."""
    if config.init_from is None:
        return None
    origin = str(config.init_from.absolute())
    state, taken, new = started_from(recipe, dataset.train, load_run(config.init_from).params)
    if not taken:
        raise UsageError(
            f"--init-from {config.init_from} has no array of the names and shapes of this model.\n"
            "Give a run of the same --arch and sizes, or leave it out."
        )
    if is_first():
        values = sum(taken.values())
        print(f"{counted(len(taken), 'array')} of {config.init_from} taken, {counted(values, 'number')}.", flush=True)
        if new:
            print(f"Begun anew, as they are not there or of another shape: {', '.join(new)}.", flush=True)
    return origin, state


def _command(path: Path) -> str:
    command = f"python -m vae_jax train --resume --run-dir {shlex.quote(str(path))}"
    return command if has_begun(path) else f"{command} and the same flags: it had not begun."


def _announce(config: TrainingConfig, dataset: Dataset, path: Path, streamed: bool) -> None:
    number, size = counted(len(dataset.train), "training image"), dataset.train.images.nbytes / 1e6
    there = memory_bytes(jax.local_devices()[0]) / 1e9
    where = "fed from the host to" if streamed else "kept in"
    print(f"{dataset.name}: {number} from {dataset.source}; writing {path}", flush=True)
    print(f"They take {size:,.1f} MB and are {where} the device, whose memory is {there:,.1f} GB.", flush=True)
    if config.resume and not has_begun(path):
        print(f"{path} holds no run yet: it begins now.", flush=True)
    elif config.resume:
        for name, (old, new) in changed_on_resume(path, config).items():
            print(f"--{name.replace('_', '-')} was {old}, goes on with {new}", flush=True)


def _train(
    config: TrainingConfig,
    recipe: Recipe,
    dataset: Dataset,
    path: Path,
    signals: Signals,
    progress: Progress | None,
    initial: tuple[str, TrainState] | None,
) -> None:
    def start() -> None:
        if progress:
            progress.start()
        signals.saving = True

    hooks = Hooks(on_start=start)
    if progress:  # with --minutes the time is said already
        hooks = Hooks(progress.epoch, None if config.minutes else progress.part, start)
    options: Any = {"resume": config.resume, "stop": lambda: signals.received, "initial": initial}
    record_training(path, recipe, dataset, hooks=hooks, **options)
    signals.end()


def _finish(dataset: Dataset, path: Path, progress: Progress) -> Run:
    def draw(run: Run, codes: Codes, test: dict[str, Any]) -> dict[str, Any]:
        draw_run(run, codes, filled(run, dataset), test)
        progress.write(run.metrics, headline(run, test))
        progress.tracker.finish(test, run.metrics[-1]["step"], path / "figures")
        return {
            "seconds": progress.seconds_before + time.perf_counter() - START,
            "time_to_first_epoch_seconds": progress.seconds_to_start,
        }

    run = finish_run(path, dataset, before=draw)
    progress.forget()
    assert run.summary is not None
    print(_table(headline(run, None), run.summary, path))
    return run


def _table(title: str, summary: dict[str, Any], path: Path) -> str:
    test = summary["test"]
    rows = [("test loss", f"{test['loss']:.2f}"), ("reconstruction", f"{test['reconstruction']:.2f}")]
    if "bits_per_dim" in test:
        rows.append(("bits per dimension", bits_in_words(test)))
    if "active_units" in test:
        rows += [("KL", f"{test['kl']:.2f}"), ("active units", str(test["active_units"]))]
    if "dead_units" in test:
        rows += [("active share of a code", f"{test['active_share']:.1%}"), ("dead units", str(test["dead_units"]))]
    if "error_rate" in test:
        rows.append(("error of the classifier", f"{test['error_rate']:.2%} ± {test['error_rate_se']:.2%}"))
    if "iwae_nll" in test:
        rows.append((f"NLL bound, {counted(test['iwae_samples'], 'sample')}", f"{test['iwae_nll']:.2f}"))
    if "iwae_bits_per_dim" in test:
        rows.append(("the same in bits per dimension", f"{test['iwae_bits_per_dim']:.3f}"))
    rows += [
        ("images/s in training", f"{summary['images_per_second']:,.0f}"),
        ("seconds in all", f"{summary['seconds']:.1f}"),
        ("figures", str(path / "figures")),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"\n{title}", *(f"  {name:<{width}}  {value}" for name, value in rows)]
    if "diagnosis" in summary:
        lines += textwrap.wrap(summary["diagnosis"], 100, initial_indent="  ", subsequent_indent="  ")
    return "\n".join(lines)
