"""Train a VAE or an AE, evaluate it on the test split, draw it: `vae-jax train DATASET`.

`python -m experiments.mnist --latent-dim 2` is the same with MNIST.
"""

import dataclasses
import shlex
import signal
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from vae_jax.cli.command import START, TrainingConfig, where_found
from vae_jax.cli.signals import Signals
from vae_jax.domains import choice
from vae_jax.errors import Interrupted

if TYPE_CHECKING:
    from vae_jax.data.dataset import Dataset
    from vae_jax.models.codes import Codes
    from vae_jax.runs.run import Run
    from vae_jax.training.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Config(TrainingConfig):
    """Train on images, evaluate on the test split, write a run directory with figures."""


@dataclasses.dataclass(frozen=True)
class TrainConfig(Config):
    """Train a VAE or an AE on images, evaluate it on the test split, draw figures."""

    dataset: Annotated[str | None, "positional"] = choice(None, group="data", common=True)


def run(config: Config) -> "Run | None":
    """Train, evaluate, draw and print; gives back the finished run, but in the first of several processes only."""
    with Signals() as signals:
        # Heavy imports wait until the flags are known to be good, so that --help is quick.
        from vae_jax.files import locked
        from vae_jax.runs.folders import check_available, fresh_path
        from vae_jax.training.processes import is_first, text_of_first

        if config.run_dir and not config.resume and is_first():
            check_available(config.run_dir)
        dataset, recipe = _load(config)
        path = config.run_dir
        if path is None:
            name = f"{dataset.name}-{config.model}-z{config.latent_dim}"
            path = Path(text_of_first(str(fresh_path(name)) if is_first() else ""))
        try:
            if not is_first():
                _train(config, recipe, dataset, path, signals, None)
                return None
            with locked(path):
                watch = _Watch(recipe, dataset, path)
                _train(config, recipe, dataset, path, signals, watch)
                return _finish(dataset, path, watch)
        except KeyboardInterrupt as stop:
            number = stop.number if isinstance(stop, Interrupted) else signal.SIGINT
            raise Interrupted(f"{str(stop) or 'Interrupted.'} Go on with\n{_command(path)}", number) from None


def _load(config: Config) -> tuple["Dataset", "Recipe"]:
    from vae_jax.data.dataset import load_dataset
    from vae_jax.models.autoencoders import build_model
    from vae_jax.runs.datasets import find_dataset
    from vae_jax.runs.folders import has_begun
    from vae_jax.runs.preflight import check_trainable
    from vae_jax.runs.records import read_dataset_record
    from vae_jax.training.fit import make_recipe

    begun = config.resume and config.run_dir is not None and has_begun(config.run_dir)
    if begun and config.run_dir:
        dataset = find_dataset(config, read_dataset_record(config.run_dir), config.data_dir, in_file=True)
    else:
        dataset = load_dataset(
            *(config.dataset, config.data_dir),
            in_file=True,
            background=config.background,
            skip_damaged=config.skip_damaged,
        )
    name, folder = where_found(config.dataset, config.data_dir, dataset.name)
    classes = None if config.classes is None else dataset.labels_of(config.classes, words=not begun)
    settings = dataclasses.replace(config, dataset=name, data_dir=folder, classes=classes)
    dataset = dataset.of_classes(classes)
    check_trainable(settings, dataset)
    return dataset, make_recipe(build_model(settings, dataset.image_shape), dataset.train, settings)


def _command(path: Path) -> str:
    from vae_jax.runs.folders import has_begun

    command = f"python -m vae_jax train --resume --run-dir {shlex.quote(str(path))}"
    return command if has_begun(path) else f"{command} and the same flags: it had not begun."


def _announce(config: Config, dataset: "Dataset", path: Path) -> None:
    from vae_jax.runs.folders import changed_on_resume, has_begun

    print(f"{dataset.name}: {len(dataset.train):,} training images from {dataset.source}; writing {path}", flush=True)
    if config.resume and not has_begun(path):
        print(f"{path} holds no run yet: it begins now.", flush=True)
    elif config.resume:
        for name, (old, new) in changed_on_resume(path, config).items():
            print(f"--{name.replace('_', '-')} was {old}, goes on with {new}", flush=True)


def _train(
    config: Config, recipe: "Recipe", dataset: "Dataset", path: Path, signals: Signals, watch: "_Watch | None"
) -> None:
    from vae_jax.runs.recording import record_training
    from vae_jax.training.fit import Hooks

    def start() -> None:
        if watch:
            watch.start()
        signals.saving = True

    if watch:
        _announce(config, dataset, path)
    hooks = Hooks(on_epoch=watch.epoch if watch else None, on_start=start)
    try:
        record_training(path, recipe, dataset, resume=config.resume, hooks=hooks, stop=lambda: signals.received)
        signals.end()
    finally:
        if watch:
            watch.stop()


class _Watch:
    """Progress on the terminal (one line an epoch where there is none) and the grids for the GIF."""

    def __init__(self, recipe: "Recipe", dataset: "Dataset", path: Path):
        from vae_jax.cli.progress import Progress
        from vae_jax.config import epochs
        from vae_jax.training.step import Keys

        self.path, settings = path, recipe.settings
        self.number = epochs(settings, recipe.images)
        key = Keys.from_seed(settings.seed).evaluation
        self.progress = Progress(
            recipe.model, dataset.validation, key, settings.binarize, self.number, path / "figures"
        )
        self.rows: list[dict[str, Any]] = []
        self.seconds_to_start = self.seconds_before = 0.0
        self.bar: Any = None

    def start(self) -> None:
        from tqdm import tqdm

        from vae_jax.runs.records import read_metrics

        self.rows = read_metrics(self.path)
        self.seconds_before = sum(row["seconds"] for row in self.rows)
        self.progress.recover()
        self.seconds_to_start = time.perf_counter() - START
        self.bar = tqdm(total=self.number, initial=len(self.rows), unit="epoch", disable=None)

    def epoch(self, state: Any, row: dict[str, Any]) -> None:
        self.rows.append(row)
        self.progress.add(state.evaluation_params, row["epoch"])
        loss, rate = row["validation"]["loss"], row["images_per_second"]
        if self.bar.disable:
            left = (self.number - row["epoch"]) * row["seconds"]
            print(
                f"epoch {row['epoch']}/{self.number}: train loss {row['train']['loss']:.2f}, "
                f"validation loss {loss:.2f}, {rate:,.0f} images/s, {left:.0f} s left",
                flush=True,
            )
        self.bar.set_postfix_str(f"validation loss {loss:.2f}, {rate:,.0f} images/s", refresh=False)
        self.bar.update()
        if row["epoch"] == self.number:
            self.bar.close()

    def stop(self) -> None:
        if self.bar is not None:
            self.bar.close()


def _finish(dataset: "Dataset", path: Path, watch: _Watch) -> "Run":
    from vae_jax.cli.figures import draw_run, headline
    from vae_jax.runs.finish import finish_run

    def draw(run: "Run", codes: "Codes", test: dict[str, Any]) -> dict[str, Any]:
        draw_run(run, codes, dataset, test)
        watch.progress.write(run.metrics, headline(run.model, dataset.name, test))
        return {
            "seconds": watch.seconds_before + time.perf_counter() - START,
            "time_to_first_epoch_seconds": watch.seconds_to_start,
        }

    run = finish_run(path, dataset, before=draw)
    watch.progress.forget()
    assert run.summary is not None
    print(_table(headline(run.model, dataset.name, None), run.summary, path))
    return run


def _table(title: str, summary: dict[str, Any], path: Path) -> str:
    test = summary["test"]
    rows = [("test loss", f"{test['loss']:.2f}"), ("reconstruction", f"{test['reconstruction']:.2f}")]
    if "active_units" in test:
        rows += [("KL", f"{test['kl']:.2f}"), ("active units", str(test["active_units"]))]
    if "dead_units" in test:
        rows += [("active share of a code", f"{test['active_share']:.1%}"), ("dead units", str(test["dead_units"]))]
    if "iwae_nll" in test:
        rows.append((f"NLL bound, {test['iwae_samples']} samples", f"{test['iwae_nll']:.2f}"))
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
