"""Speed beside PyTorch, Keras and plain Flax, in one run: `make benchmark`, or `python -m experiments.benchmark`.

Every contestant trains the same architecture on the same images in memory, with the same batch size and Adam, in a
process of its own, warm; their repetitions alternate, and medians count. The roof is the largest rate of a float32
matrix product in the same run. What is not installed is named, never counted.
"""

import dataclasses
import os
import platform
import tempfile
from pathlib import Path
from typing import Any, Literal

from experiments.benchmark.job import threads
from experiments.benchmark.report import name_of, report
from experiments.benchmark.sections import Plan, inference, many, scaling, startup, streaming, training
from experiments.benchmark.worker import CONTESTANTS
from experiments.study import StudyConfig, begin, finish
from vae_jax.domains import at_least, setting

Section = Literal["training", "startup", "inference", "scaling", "streaming", "many"]
Name = Literal["ours", "torch", "torch_fused", "torch_compile", "keras_tensorflow", "keras_torch", "keras_jax", "flax"]
ORDER: tuple[Section, ...] = ("training", "startup", "inference", "scaling", "streaming", "many")


@dataclasses.dataclass(frozen=True)
class Config(StudyConfig):
    """Measure training, start-up, inference, scaling, streaming, many models at once; write a report and a figure."""

    sections: tuple[Section, ...] = setting(ORDER, "at least one section", lambda v: len(v) > 0)
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
    import jax
    import numpy as np

    from experiments.benchmark import figures as plots_benchmark
    from vae_jax import plots
    from vae_jax.data.dataset import load_dataset
    from vae_jax.runs.records import device_name, write_json

    dataset = load_dataset(config.dataset, config.data_dir)
    path = begin(config, "benchmark", dataset)
    (path / "figures").mkdir(exist_ok=True)
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
            logs=path / "logs",
        )
        for name in [name for name in ORDER if name in config.sections]:
            found[name] = startup(plan, _data_flags(config)) if name == "startup" else SECTIONS[name](plan)
            write_json(path / "benchmark.json", {"machine": _machine(), **found})  # what is done is kept
    if "training" in found:
        cases = [(f"{name_of(c['job'])}, batch {c['job']['batch_size']}", c["rows"]) for c in found["training"]]
        title = f"Training on {device_name()}, {threads()} cores: images a second, and the share of the machine's\n" + (
            "largest float32 matrix product rate that the products and convolutions reach"
        )
        plots.save(plots_benchmark.training(cases, title), path / "figures" / "benchmark.png")
    text = report("Benchmark", _introduction(plan, dataset.name, device_name()), found)
    return finish(path, "benchmark", text, {name: _without_raw(each) for name, each in found.items()})


SECTIONS = {"training": training, "inference": inference, "scaling": scaling, "streaming": streaming, "many": many}


def _data_flags(config: Config) -> list[str]:
    flags = [] if config.dataset is None else ["--dataset", config.dataset]
    return flags + ([] if config.data_dir is None else ["--data-dir", str(config.data_dir)])


def _introduction(plan: Plan, dataset: str, device: str) -> str:
    quick = " A quick trial: the numbers mean little." if plan.quick else ""
    return (
        f"Medians of {plan.repetitions} repetitions that alternate between the contestants, each in a process of its "
        f"own with {threads()} threads, on {device}; {dataset}, images in memory (but for streamed training), "
        f"compiled, first repetition left out, loading left out.{quick} The share of the roof counts the matrix "
        "products and convolutions of the forward and backward pass only. A loss is the mean of the last repetition, "
        "in nats an image."
    )


def _machine() -> dict[str, Any]:
    return {"cores": threads(), "processor": platform.processor() or platform.machine(), "system": platform.platform()}


def _without_raw(section: Any) -> Any:
    # The raw repetitions are in benchmark.json; the summary holds what tables show.
    if isinstance(section, list):
        return [{name: value for name, value in each.items() if name != "measured"} for each in section]
    return section
