"""The sections of the benchmark: which jobs, which contestants, which actions."""

import dataclasses
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmark.measure import Entries, check_losses, images_per_second, measure, roof, unavailable
from experiments.contestants.job import Job, conv_job, mlp_job, training_flops
from experiments.contestants.worker import CONTESTANTS, ROOFS
from vae_jax.data.stored import SMALLEST_BYTES
from vae_jax.errors import RunError

QUICK_IMAGES = {"mlp": 1024, "conv": 256}
ACTIONS = ("encode", "decode", "evaluate")
"""Of inference."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much is measured, of what, and where the workers' logs go."""

    data: str
    """The .npy file of the training images."""
    available: int
    """Images in it."""
    image_shape: tuple[int, int, int]
    contestants: tuple[str, ...]
    repetitions: int
    quick: bool
    accelerator: bool
    """Whether the device is more than a CPU: then larger batches, and more images for the conv."""
    logs: Path
    flags: Sequence[str] = ()
    """--dataset and --data-dir of `experiments.mnist`."""
    held_out: str = ""
    """The .npy file of the test images."""

    def job(self, arch: str, batch_size: int, **changes: Any) -> Job:
        """The job of an architecture: as many whole batches as the data and the device allow."""
        wanted = 49_152 if arch == "mlp" or self.accelerator else 5_120
        wanted = min(QUICK_IMAGES[arch] if self.quick else wanted, self.available)
        images = max(wanted // batch_size, 1) * batch_size
        return (mlp_job if arch == "mlp" else conv_job)(self.data, images, batch_size=batch_size, **changes)

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Of the training section."""
        sizes = (128,) if self.quick else (128, 512, 8192) if self.accelerator else (128, 512)
        return tuple(size for size in sizes if size <= self.available)

    def measure(self, what: str, entries: Entries, actions: Sequence[str] = ("train",)) -> dict[str, dict[str, Any]]:
        """Say what is measured, and measure it."""
        print(what, flush=True)
        return measure(entries, actions, self.repetitions, self.logs)

    def own_series(self, title: str, jobs: Mapping[int, Job]) -> dict[str, Any]:
        """Images a second of vae_jax over a quantity."""
        entries: Entries = {str(value): ("ours", job) for value, job in jobs.items()}
        found = self.measure(f"vae_jax over {title}: {', '.join(entries)}", entries)
        rows = [{"value": value, **_timed(found[str(value)], job)} for value, job in jobs.items()]
        return {"title": title, "rows": rows, "measured": found}


def _timed(found: dict[str, Any], job: Job) -> dict[str, Any]:
    return {"unavailable": unavailable(found), "images_per_second": images_per_second(found, job)}


def training(plan: Plan) -> list[dict[str, Any]]:
    """Images a second of every contestant, by architecture and batch size, with the roof measured in between."""
    cases = []
    for job in [plan.job(arch, batch) for arch in QUICK_IMAGES for batch in plan.batch_sizes]:
        what = f"training: {job.arch}, batch {job.batch_size}, {job.images:,} images a repetition"
        found = plan.measure(what, {name: (name, job) for name in [*plan.contestants, *ROOFS]})
        cases.append({"job": job.to_json(), **summarise(found, job, plan.image_shape), "measured": found})
    return cases


def summarise(found: dict[str, dict[str, Any]], job: Job, image_shape: tuple[int, int, int]) -> dict[str, Any]:
    """The numbers of a training case: FLOP an image, the roof, and by contestant images/s and its share of the roof."""
    flops, top, wrong = training_flops(job, image_shape), roof(found), check_losses(found)
    rows = []
    for name, each in found.items():
        if name in ROOFS:
            continue
        timed = _timed(each, job)
        rate = timed["images_per_second"]
        rows.append(
            {
                "contestant": name,
                "title": CONTESTANTS[name].title,
                **timed,
                "roof_share": rate * flops / top if rate and top else None,
                "last_loss": each["losses"][-1] if each.get("losses") else None,
                "peak_bytes": each.get("device_bytes") or each.get("peak_bytes"),
                "wrong": wrong.get(name),
            }
        )
    return {"flops_per_image": flops, "roof_flops": top, "rows": rows}


def inference(plan: Plan) -> list[dict[str, Any]]:
    """Encoding, decoding and evaluating 10,000 images, against PyTorch."""
    names = [name for name in ("ours", "torch") if name in plan.contestants]
    cases = []
    for arch in QUICK_IMAGES:
        images = min(512 if plan.quick else 10_000, plan.available)
        job = dataclasses.replace(plan.job(arch, 128), images=images)
        found = plan.measure(f"inference: {arch}, {images:,} images", {name: (name, job) for name in names}, ACTIONS)
        rows = [
            {
                "title": CONTESTANTS[name].title,
                "unavailable": unavailable(found[name]),
                **{action: images_per_second(found[name], job, action) for action in ACTIONS},
            }
            for name in names
        ]
        cases.append({"job": job.to_json(), "rows": rows, "measured": found})
    return cases


def scaling(plan: Plan) -> list[dict[str, Any]]:
    """Images a second of vae_jax over batch size, latent dimension, data size and virtual CPU devices."""
    base = plan.job("mlp", 128)
    batches = (64, 256) if plan.quick else (32, 128, 512, 2048)
    sizes = (512, 1024) if plan.quick else (6_144, 12_288, 24_576, 49_152)
    devices = (1, 2) if plan.quick else (1, 2, 4, 8)
    sets = {
        "batch size": {batch: plan.job("mlp", batch) for batch in batches if batch <= plan.available},
        "latent dimensions": {dim: plan.job("mlp", 128, latent_dim=dim) for dim in (2, 20, 128)},
        "images": {size: dataclasses.replace(base, images=size) for size in sizes if size <= plan.available},
        "virtual CPU devices": {number: plan.job("mlp", 512, devices=number) for number in devices},
    }
    return [plan.own_series(title, jobs) for title, jobs in sets.items() if jobs]


def streaming(plan: Plan) -> list[dict[str, Any]]:
    """Images a second and peak memory of vae_jax, streamed from generated files of 1, 4 and 16 times the images.

    They lie beside the logs while it runs, 21 times `SMALLEST_BYTES` in all. One repetition, as each takes long.
    """
    once = QUICK_IMAGES["mlp"] if plan.quick else -(-SMALLEST_BYTES // math.prod(plan.image_shape))
    with tempfile.TemporaryDirectory(dir=plan.logs.parent) as folder:
        jobs = {}
        for times in (1, 4, 16):
            path = Path(folder) / f"{times}.npy"
            _generate(path, np.lib.format.open_memmap(plan.data, "r"), times * once)
            jobs[str(times)] = mlp_job(str(path), times * once // 128 * 128, batch_size=128, streamed=True)
        what = f"streaming: {', '.join(f'{job.images:,}' for job in jobs.values())} images"
        entries = {times: ("ours", job) for times, job in jobs.items()}
        found = dataclasses.replace(plan, repetitions=1).measure(what, entries)
        rows = [
            {
                "images": job.images,
                "file_bytes": os.path.getsize(job.data),
                **_timed(found[times], job),
                "peak_bytes": found[times].get("peak_bytes"),
            }
            for times, job in jobs.items()
        ]
    return [{"rows": rows, "measured": found}]


def _generate(path: Path, images: np.ndarray, number: int) -> None:
    # The images over and over.
    written = np.lib.format.open_memmap(path, "w+", np.uint8, (number, *images.shape[1:]))
    for start in range(0, number, len(images)):
        written[start : start + len(images)] = images[: number - start]


def many(plan: Plan) -> list[dict[str, Any]]:
    """Several seeds trained together by vmap: images a second of all of them, beside one alone."""
    counts = (1, 2) if plan.quick else (1, 2, 5, 8)
    return [
        plan.own_series(f"models together, {arch}", {n: plan.job(arch, 128, members=n) for n in counts})
        for arch in QUICK_IMAGES
    ]


def startup(plan: Plan) -> dict[str, Any]:
    """Seconds from the command to the first epoch, with an empty compilation cache and with a filled one."""
    with tempfile.TemporaryDirectory() as folder:
        runs = []
        for number in range(2 if plan.quick else 1 + plan.repetitions):
            print(f"start-up: experiments.mnist, {'warm' if number else 'cold'} compilation cache", flush=True)
            runs.append(_start(Path(folder), number, plan.flags))
    return {"cold": runs[:1], "warm": runs[1:]}


def _start(folder: Path, number: int, flags: Sequence[str]) -> dict[str, float]:
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment["XDG_CACHE_HOME"] = str(folder / "cache")
    path = folder / f"run-{number}"
    command = [sys.executable, "-m", "experiments.mnist", "--epochs", "1", "--run-dir", str(path), *flags]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    if ended.returncode:
        raise RunError(f"experiments.mnist failed in the start-up section: {ended.stderr.strip()[-300:]}")
    summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
    return {"to_first_epoch": summary["time_to_first_epoch_seconds"], "whole_command": summary["seconds"]}
