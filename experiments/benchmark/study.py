"""Trains, measures, draws and reports: the study of `experiments.benchmark`."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.benchmark import Config, figures
from experiments.benchmark.quality import quality
from experiments.benchmark.report import name_of, report
from experiments.benchmark.sections import Plan, inference, many, scaling, startup, streaming, training
from experiments.contestants.job import threads
from experiments.study import begin
from vae_jax.data.loading import load_dataset
from vae_jax.errors import counted
from vae_jax.runs.environment import device_name
from vae_jax.runs.records import write_json

SECTIONS: dict[str, Callable[..., Any]] = {
    each.__name__: each for each in (training, startup, inference, scaling, streaming, many, quality)
}
"""In the order in which they are measured."""


def run(config: Config) -> dict[str, Any]:
    """Measure, draw, report; gives back the summary."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the workers need the memory of a GPU
    dataset = load_dataset(config.dataset, config.data_dir)
    study = begin(config, "benchmark", dataset)
    found: dict[str, Any] = {}
    given = {"dataset": config.dataset, "data-dir": config.data_dir}
    with tempfile.TemporaryDirectory() as folder:
        data, held_out = Path(folder) / "images.npy", Path(folder) / "test.npy"
        np.save(data, dataset.train.images)
        np.save(held_out, dataset.test.images)
        plan = Plan(
            data=str(data),
            held_out=str(held_out),
            available=len(dataset.train),
            image_shape=dataset.image_shape,
            contestants=config.contestants,
            repetitions=min(config.repetitions, 2) if config.quick else config.repetitions,
            quick=config.quick,
            accelerator=jax.default_backend() != "cpu",
            logs=study.path / "logs",
            flags=[f"--{name}={value}" for name, value in given.items() if value is not None],
        )
        for name in [name for name in SECTIONS if name in config.sections]:
            found[name] = SECTIONS[name](plan)
            write_json(study.path / "benchmark.json", found)  # what is done is kept
    if "training" in found:
        cases = [(f"{name_of(c['job'])}, batch {c['job']['batch_size']}", c["rows"]) for c in found["training"]]
        title = (
            f"Training on {device_name()}, {counted(threads(), 'core')}: images a second, and the share of the\n"
            "machine's largest float32 matrix product rate that the products and convolutions reach"
        )
        study.draw("benchmark.png", figures.training(cases, title))
    text = report(_introduction(plan, dataset.name), found)
    return study.finish(text, **{name: _without_raw(each) for name, each in found.items()})


def _introduction(plan: Plan, dataset: str) -> str:
    quick = " A quick trial: the numbers mean little." if plan.quick else ""
    return (
        f"Medians of {counted(plan.repetitions, 'repetition')}, in turn between the contestants, each in a process of "
        f"its own with {counted(threads(), 'thread')}, on {device_name()}; {dataset}, images in memory (but for "
        f"streamed training), compiled, first repetition left out, loading left out.{quick} The share of the roof "
        "counts the matrix products and convolutions of the forward and backward pass only. A loss is the mean of the "
        "last repetition, in nats an image."
    )


def _without_raw(section: Any) -> Any:
    # The raw repetitions are in benchmark.json; the summary holds what tables show.
    if isinstance(section, list):
        return [{name: value for name, value in each.items() if name != "measured"} for each in section]
    return section
