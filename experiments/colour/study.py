"""Trains, measures, draws and reports: the study of `experiments.colour`."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from experiments.colour import DEFAULT_MINUTES, FEWEST, Config
from experiments.colour.figures import sheet
from experiments.colour.measure import GAUSSIAN, PRIOR, SHOWN, Measured, Yardstick, measure
from experiments.colour.report import NAMES, report
from experiments.flags import check_budget
from experiments.study import Study, begin
from vae_jax.cli.command import TrainingConfig
from vae_jax.cli.defaults import About, decided
from vae_jax.cli.session import for_minutes
from vae_jax.config import Settings
from vae_jax.data.dataset import Dataset
from vae_jax.data.loading import load_dataset
from vae_jax.errors import UsageError, counted
from vae_jax.measures.images import as_rows
from vae_jax.models.autoencoders import build_model
from vae_jax.runs.records import read_json, write_json
from vae_jax.training.fit import make_recipe

_DECIDED = ("arch", "likelihood", "latent", "latent_dim", "batch_size", "learning_rate")


def run(config: Config) -> dict[str, Any]:
    """Train what is missing, measure, draw, report; gives back the summary."""
    check_budget(config.minutes, config.steps)
    dataset = load_dataset(config.dataset, config.data_dir)
    if len(dataset.test) < FEWEST:
        found = counted(len(dataset.test), "test image")
        raise UsageError(f"--dataset must have at least {FEWEST} test images for precision and recall, got {found}.")
    members: dict[str, Settings] = {name: _settings(config, name, dataset) for name in config.models}
    study = begin(config, "colour", dataset, members.values())
    if not config.steps:
        members = _for_minutes(config.minutes or DEFAULT_MINUTES, study, members)
    yardstick = Yardstick.of(dataset, config.samples)
    models: dict[str, list[dict[str, float]]] = {}
    for name, settings in members.items():
        seeds = {f"{name}-seed{s}": dataclasses.replace(settings, seed=s) for s in range(config.seeds)}
        measured = [measure(one, dataset, yardstick) for one in study.train(seeds).values()]
        study.draw(f"{name}.png", _sheet(study, name, settings.latent_dim, measured[0]))
        models[name] = [one.numbers for one in measured]
    data = {"layout": yardstick.layout}
    sizes = len(dataset.train), len(dataset.test)
    published = dataset.name == "cifar10" and dataset.image_shape == (32, 32, 3)
    return study.finish(report(study.title, models, data, sizes, published), models=models, test_images=data)


def _settings(config: Config, name: str, dataset: Dataset) -> Settings:
    # Those of vae-jax train for photographs, also where the images are small and grey.
    model, _, latent = name.partition("-")
    given: Any = {"arch": "residual", "latent": latent or "map", "likelihood": "discretized_logistic"}
    chosen = decided(TrainingConfig(**given), About.of(dataset.train))
    # Without --steps one is what the checks are made with.
    changes = {name: getattr(chosen, name) for name in _DECIDED} | {"model": model, "steps": config.steps or 1}
    return config.settings(dataset, **changes)


def _for_minutes(minutes: float, study: Study, members: dict[str, Settings]) -> dict[str, Settings]:
    # How many steps that is, is kept: a study that goes on must not train for others.
    file, dataset = study.path / "steps.json", study.dataset
    steps = _kept_steps(file, minutes) if file.exists() else {}
    for name, settings in members.items():
        if name not in steps:
            print(f"{NAMES[name]}: ", end="", flush=True)
            recipe = make_recipe(build_model(settings, dataset.image_shape), dataset.train, settings)
            steps[name] = for_minutes(recipe, dataset, minutes).settings.steps
            write_json(file, {"minutes": minutes, "steps": steps})
    return {name: dataclasses.replace(each, steps=steps[name]) for name, each in members.items()}


def _kept_steps(file: Path, minutes: float) -> dict[str, Any]:
    remedy = "Give another --output."
    saved = read_json(file, remedy)
    kept, steps = (saved.get(name) if isinstance(saved, dict) else None for name in ("minutes", "steps"))
    if not (isinstance(kept, int | float) and isinstance(steps, dict) and all(type(n) is int for n in steps.values())):
        raise UsageError(f"{file} is damaged: it must hold minutes, and the steps of each model.\n{remedy}")
    if kept != minutes:
        raise UsageError(f"--minutes is {minutes:g}, but {file.parent} was begun with {kept:g}.\n{remedy}")
    return steps


def _sheet(study: Study, name: str, latent_dim: int, measured: Measured) -> Any:
    numbers, images = measured.numbers, np.asarray(study.dataset.test.images[:SHOWN])
    title = f"{study.title} · {NAMES[name]} of {counted(latent_dim, 'latent dimension')}"
    if f"bits_per_dim, {PRIOR}" in numbers:
        bits = [numbers[f"bits_per_dim, {source}"] for source in (PRIOR, GAUSSIAN)]
        title += f"\n{bits[0]:.3f} bits a dimension, and {bits[1]:.3f} with the Gaussian fitted afterwards as the prior"
    panels = {
        "test images": as_rows(images).reshape(images.shape),
        f"reconstructions, {numbers['psnr']:.1f} dB": measured.reconstructions,
        **{f"samples, {source}": drawn for source, drawn in measured.samples.items()},
    }
    return sheet(panels, title)
