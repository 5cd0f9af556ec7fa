"""Trains, measures and writes what is missing of a table, row by row: the study of `experiments.tables`."""

import time
from collections.abc import Iterable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from experiments.flags import check_budget
from experiments.study import open_folder, print_epoch, trained_together
from experiments.tables import DEFAULT_MINUTES, Config
from experiments.tables.measure import measure
from experiments.tables.report import NEEDED, text_of
from experiments.tables.rows import ARCHS, COMMON, DATA, MODELS, WARMUP
from experiments.tables.written import write_results
from vae_jax.cli.command import where_found
from vae_jax.cli.session import for_minutes
from vae_jax.combinations import with_effect
from vae_jax.config import Settings, epochs
from vae_jax.data.dataset import Dataset
from vae_jax.data.loading import load_dataset
from vae_jax.domains import flag_of
from vae_jax.errors import UsageError
from vae_jax.models.autoencoders import build_model
from vae_jax.runs.folders import check_same_settings
from vae_jax.runs.preflight import check_trainable
from vae_jax.runs.recording import train_run
from vae_jax.runs.records import read_json, write_json
from vae_jax.runs.run import Run, load_run
from vae_jax.training.fit import make_recipe

_REMEDY = "Give it as it was, or another --output."
_PARTS = {"trained": dict, "measured": dict, "seeds": dict, "steps": int | None}


class Place(NamedTuple):
    """Where a row belongs: names of `DATA`, `ARCHS` and `MODELS`."""

    data: str
    arch: str
    model: str

    @property
    def name(self) -> str:
        """Of its file and its runs, within the folder of its data."""
        return f"{self.arch}-{self.model}"

    def file(self, output: Path) -> Path:
        """Its record."""
        return output / self.data / f"{self.name}.json"


def run(config: Config) -> dict[str, Any]:
    """Train and measure what is missing, write all rows that are there; gives back the summary."""
    check_budget(config.minutes, config.steps)
    given = dict(each.partition("=")[::2] for each in config.data)
    datasets = {name: _load(config, name, path) for name, path in given.items()}
    places = [Place(*each) for each in product(given, config.arch, config.models)]
    makers = {
        place: partial(settings_of, config, place, given[place.data], datasets[place.data].name) for place in places
    }
    together = len(config.seeds) if config.patience == 0 else 1
    for place, maker in makers.items():
        check_trainable(maker(0, config.steps or 1), datasets[place.data], together)
    open_folder(config.output, "tables", "several data sets", "")
    for name, dataset in datasets.items():
        open_folder(config.output / name, "tables", dataset.name, dataset.sha256)
    rows = {place: begun_row(place, config) for place in places}
    summary: dict[str, Any] = {}
    for place, row in rows.items():
        _fill(place, row, config, datasets[place.data], makers[place])
        summary = write_results(config.output, _recorded(config.output))  # what is there, should the next one fail
    print(f"\n{text_of(summary['rows'])}\n\nTable, numbers and figure in {config.output}")
    return summary


def _load(config: Config, name: str, path: str) -> Dataset:
    size = None if path else DATA[name].image_size
    dataset = load_dataset(path or DATA[name].dataset, config.data_dir, image_size=size)
    if len(dataset.test) < 2:
        raise UsageError(f"--data {name}={path} must have at least 2 test images, got {len(dataset.test)}.")
    return dataset


def settings_of(config: Config, place: Place, path: str, name: str, seed: int, steps: int) -> Settings:
    """The settings of a run of a row; `path` and `name` are those of its data."""
    data = DATA[place.data]
    dataset, folder = where_found(path or data.dataset, config.data_dir, name)
    warmup = _trained(config, place)["kl_warmup"]
    changes: dict[str, Any] = {
        **COMMON,
        **ARCHS[place.arch][1],
        **MODELS[place.model][1],
        **{flag: getattr(config, flag) for flag in ("batch_size", "learning_rate", "patience")},
        **{"binarize": data.binarize, "image_size": None if path else data.image_size},
        **{"dataset": dataset, "data_dir": folder, "seed": seed, "steps": steps},
        "kl_warmup_steps": round(warmup * steps),
    }
    return with_effect(Settings(**changes))


def _trained(config: Config, place: Place) -> dict[str, Any]:
    # What of the flags decides the runs of a row.
    minutes = config.minutes or (None if config.steps else DEFAULT_MINUTES)
    warmup = WARMUP.get(place.arch, 0.0) if config.kl_warmup is None else config.kl_warmup
    # The steps are first, as what they are compared with says whether there are minutes.
    names = ("patience", "batch_size", "learning_rate")
    others = {name: getattr(config, name) for name in names}
    return {"steps": config.steps, "minutes": minutes, **others, "kl_warmup": warmup}


def begun_row(place: Place, config: Config) -> dict[str, Any]:
    """A row as far as it is finished; what was measured otherwise than the flags say is dropped.

    Raises:
        UsageError: it was trained with other flags, or its file is damaged, or seeds that are not asked for would be
            dropped.
    """
    file, trained = place.file(config.output), _trained(config, place)
    measured = {"samples": config.samples, "nll_images": config.nll_images}
    row = {**place._asdict(), "trained": trained, "measured": measured, "steps": config.steps, "seeds": {}}
    if not file.exists():
        return row
    kept = _read_row(file)
    for name, value in trained.items():
        if kept["trained"].get(name, value) != value:
            was = "without it" if kept["trained"][name] is None else f"with {kept['trained'][name]}"
            now = "not given" if value is None else value
            raise UsageError(f"{flag_of(name)} is {now}, but {file} was begun {was}.\n{_REMEDY}")
    if kept["measured"] == measured:
        return {**row, "steps": kept["steps"], "seeds": kept["seeds"]}
    if lost := kept["seeds"].keys() - {*map(str, config.seeds)}:
        raise UsageError(
            f"{_flags(measured)} differ from {_flags(kept['measured'])} of {file}, whose seeds "
            f"{' '.join(sorted(lost))} are not among --seeds {' '.join(map(str, config.seeds))}.\n"
            "Add them to --seeds, and they are measured anew; or give the others as they were, or another --output."
        )
    return {**row, "steps": kept["steps"]}


def _flags(values: dict[str, Any]) -> str:
    return " ".join(f"{flag_of(name)} {value}" for name, value in values.items())


def _read_row(file: Path) -> dict[str, Any]:
    kept = read_json(file, _REMEDY)
    whole = isinstance(kept, dict) and all(isinstance(kept.get(name), kind) for name, kind in _PARTS.items())
    if not whole or not all(isinstance(each, dict) and each.keys() >= NEEDED for each in kept["seeds"].values()):
        raise UsageError(f"{file} is damaged: it must hold {', '.join(_PARTS)}.\nGive another --output.")
    return kept


def _recorded(output: Path) -> list[dict[str, Any]]:
    every = (Place(*each) for each in product(DATA, ARCHS, MODELS))
    rows = ({**_read_row(place.file(output)), **place._asdict()} for place in every if place.file(output).exists())
    return [row for row in rows if row["seeds"]]


def _fill(place: Place, row: dict[str, Any], config: Config, dataset: Dataset, maker: Any) -> None:
    # Train and measure the seeds that the row lacks, and write it after each.
    file, folder = place.file(config.output), config.output / place.data
    missing = [seed for seed in config.seeds if str(seed) not in row["seeds"]]
    if not missing:
        print(f"restored {file}", flush=True)
        return
    if row["steps"] is None:  # as many for all seeds, and whenever the row goes on
        print(f"{place.data}, {place.name}: ", end="", flush=True)
        settings = maker(0, 1)
        recipe = make_recipe(build_model(settings, dataset.image_shape), dataset.train, settings)
        row["steps"] = for_minutes(recipe, dataset, row["trained"]["minutes"]).settings.steps
        write_json(file, row)
    members = {folder / f"{place.name}-seed{seed}": maker(seed, row["steps"]) for seed in missing}
    if config.patience:
        runs: Iterable[Run] = (_trained_alone(path, settings, dataset) for path, settings in members.items())
    else:
        runs = trained_together([*members], [*members.values()], dataset)
    for seed, one in zip(missing, runs, strict=True):
        started = time.perf_counter()
        numbers = measure(one, dataset.train, dataset.test, config.samples, config.nll_images)
        measured_in = time.perf_counter() - started
        print(f"{one.path}: NLL {numbers['nll']:.2f}, measured in {measured_in:.0f} s", flush=True)
        row["seeds"][str(seed)] = {**numbers, "measuring_seconds": measured_in}
        write_json(file, row)


def _trained_alone(path: Path, settings: Settings, dataset: Dataset) -> Run:
    # Unlike those that are trained together, it goes on where it was interrupted.
    if (path / "summary.json").exists():
        check_same_settings(path, settings, dataset)
        print(f"restored {path}", flush=True)
        return load_run(path)
    number = epochs(settings, len(dataset.train))
    model = build_model(settings, dataset.image_shape)
    name = f"{path.parent.name}, {path.name}"
    train_run(path, model, settings, dataset, resume=True, on_epoch=lambda _, row: print_epoch(name, number, [row]))
    return load_run(path)
