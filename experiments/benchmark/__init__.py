"""Speed beside PyTorch, Keras and plain Flax, in one run: `make benchmark`, or `python -m experiments.benchmark`.

Every contestant trains the same architecture on the same images in memory, with the same batch size and Adam, in a
process of its own, warm; their repetitions alternate, and medians count. The roof is the largest rate of a float32
matrix product in the same run. What is not installed is named, never counted.
"""

import dataclasses
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from experiments.benchmark import figures
from experiments.benchmark.report import name_of, report
from experiments.benchmark.sections import Plan, inference, many, scaling, startup, streaming, training
from experiments.contestants.job import threads
from experiments.contestants.worker import CONTESTANTS
from experiments.study import StudyConfig, begin
from vae_jax.data.dataset import load_dataset
from vae_jax.domains import at_least, setting
from vae_jax.runs.environment import device_name
from vae_jax.runs.records import write_json

Section = Literal["training", "startup", "inference", "scaling", "streaming", "many"]
Name = Literal["ours", "torch", "torch_fused", "torch_compile", "keras_tensorflow", "keras_torch", "keras_jax", "flax"]
SECTIONS: dict[Section, Callable[..., Any]] = {
    "training": training,
    "startup": startup,
    "inference": inference,
    "scaling": scaling,
    "streaming": streaming,
    "many": many,
}
"""In the order in which they are measured."""


@dataclasses.dataclass(frozen=True)
class Config(StudyConfig):
    """Measure training, start-up, inference, scaling, streaming, many models at once; write a report and a figure."""

    sections: tuple[Section, ...] = setting(tuple(SECTIONS), "at least one section", lambda v: len(v) > 0)
    """What to measure."""
    contestants: tuple[Name, ...] = setting(tuple(CONTESTANTS), "at least one contestant", lambda v: len(v) > 0)
    """Who takes part."""
    repetitions: int = at_least(1, 5)
    """Timed repetitions of each contestant, after one that is not counted."""
    quick: bool = False
    """A trial with few images, two repetitions and one batch size: its numbers mean little."""


def run(config: Config) -> dict[str, Any]:
    """Measure, draw, report; gives back the summary."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the workers need the memory of a GPU
    dataset = load_dataset(config.dataset, config.data_dir)
    study = begin(config, "benchmark", dataset)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "images.npy"
        np.save(data, dataset.train.images)
        plan = Plan(
            data=str(data),
            available=len(dataset.train),
            image_shape=dataset.image_shape,
            contestants=config.contestants,
            repetitions=min(config.repetitions, 2) if config.quick else config.repetitions,
            quick=config.quick,
            accelerator=jax.default_backend() != "cpu",
            logs=study.path / "logs",
        )
        for name in [name for name in SECTIONS if name in config.sections]:
            found[name] = startup(plan, _data_flags(config)) if name == "startup" else SECTIONS[name](plan)
            write_json(study.path / "benchmark.json", found)  # what is done is kept
    if "training" in found:
        cases = [(f"{name_of(c['job'])}, batch {c['job']['batch_size']}", c["rows"]) for c in found["training"]]
        title = (
            f"Training on {device_name()}, {threads()} cores: images a second, and the share of the machine's\n"
            "largest float32 matrix product rate that the products and convolutions reach"
        )
        study.draw("benchmark.png", figures.training(cases, title))
    text = report(_introduction(plan, dataset.name), found)
    return study.finish(text, **{name: _without_raw(each) for name, each in found.items()})


def _data_flags(config: Config) -> list[str]:
    flags = {"--dataset": config.dataset, "--data-dir": config.data_dir}
    return [word for flag, value in flags.items() if value is not None for word in (flag, str(value))]


def _introduction(plan: Plan, dataset: str) -> str:
    quick = " A quick trial: the numbers mean little." if plan.quick else ""
    return (
        f"Medians of {plan.repetitions} repetitions that alternate between the contestants, each in a process of its "
        f"own with {threads()} threads, on {device_name()}; {dataset}, images in memory (but for streamed training), "
        f"compiled, first repetition left out, loading left out.{quick} The share of the roof counts the matrix "
        "products and convolutions of the forward and backward pass only. A loss is the mean of the last repetition, "
        "in nats an image."
    )


def _without_raw(section: Any) -> Any:
    # The raw repetitions are in benchmark.json; the summary holds what tables show.
    if isinstance(section, list):
        return [{name: value for name, value in each.items() if name != "measured"} for each in section]
    return section
