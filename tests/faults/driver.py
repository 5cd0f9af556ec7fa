"""Runs of the training command in processes of their own, to be killed; and what is left of them."""

import dataclasses
import hashlib
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONTEXT = multiprocessing.get_context("forkserver")
COMMON = ["--dataset", "digits", "--hidden-sizes", "16", "--batch-size", "64", "--grid-size", "4"]
CONFIGURATIONS = {
    "vae mlp": "--epochs 20 --latent-dim 3 --test-samples 1",
    "vae mlp, EMA, KL warm-up, every 7 steps": (
        "--epochs 15 --ema-decay 0.9 --kl-warmup-steps 100 --binarize dynamic --checkpoint-every-steps 7"
    ),
    "ae mlp, early stopping": "--model ae --epochs 30 --patience 3 --learning-rate 0.02 --likelihood squared_error",
    "vae conv, every 5 steps": "--arch conv --hidden-sizes 4 --dense-size 4 --epochs 8 --checkpoint-every-steps 5",
    "vae mlp under pmap, every 7 steps": "--epochs 15 --parallel pmap --checkpoint-every-steps 7 --binarize dynamic",
    "ae mlp, streamed, every 7 steps": "--model ae --epochs 15 --device-data never --checkpoint-every-steps 7",
    "ae conv, denoising": "--model ae --arch conv --hidden-sizes 4 --epochs 12 --corruption masking",
}


PRELOADED = [
    *("experiments.mnist", "vae_jax.cli.progress", "vae_jax.runs.recording", "vae_jax.measures.sparsity"),
    *("orbax.checkpoint", "flax.linen", "optax", "tqdm", "sklearn.decomposition", "sklearn.datasets"),
]


def prepare(cache: Path) -> None:
    """Let the processes that are forked from now on find compiled programs and modules ready."""
    from vae_jax._xla import enable_compilation_cache, guard_against_miscompilation

    # One thread in NumPy's BLAS: what is forked must not have threads.
    os.environ |= {"XDG_CACHE_HOME": str(cache), "MPLCONFIGDIR": str(cache), "OPENBLAS_NUM_THREADS": "1"}
    os.environ |= {"PYTHONPATH": str(ROOT)}
    enable_compilation_cache()
    guard_against_miscompilation()
    CONTEXT.set_forkserver_preload(PRELOADED)


def command_line(path: Path, flags: list[str]) -> list[str]:
    """That starts a run and also goes on with the one there."""
    return [*COMMON, *flags, "--resume", "--run-dir", str(path)]


def _run(arguments: list[str], log: str) -> None:
    from experiments import mnist
    from vae_jax.cli.command import main

    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    main(mnist.Config, mnist.run, arguments)


class Running:
    """A run in a process of its own: forked from one that has imported everything, or with `whole` a new command."""

    def __init__(self, path: Path, flags: list[str], whole: bool = False):
        path.mkdir(exist_ok=True)
        self._log, arguments = path.with_name(f"{path.name}.log"), command_line(path, flags)
        self._whole = None
        if whole:
            with open(self._log, "w") as file:
                self._whole = subprocess.Popen(
                    [sys.executable, "-m", "experiments.mnist", *arguments], cwd=ROOT, stdout=file, stderr=file
                )
            self.pid = self._whole.pid
        else:
            self._forked = CONTEXT.Process(target=_run, args=(arguments, str(self._log)))
            self._forked.start()
            self.pid = self._forked.pid or 0

    def wait(self, seconds: float) -> int | None:
        """The exit code, None where it still runs after so many seconds."""
        if self._whole is None:
            self._forked.join(seconds)
            return self._forked.exitcode
        try:
            return self._whole.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    @property
    def output(self) -> str:
        """What it has printed."""
        return self._log.read_text(errors="replace")


def finish(path: Path, flags: list[str]) -> float:
    """Let a run reach its end; gives back the seconds that it took.

    Raises:
        RuntimeError: it did not end well.
    """
    began, process = time.monotonic(), Running(path, flags)
    code = process.wait(300)
    if code != 0:
        raise RuntimeError(f"exit code {code}:\n{process.output[-2000:]}")
    return time.monotonic() - began


def result(path: Path) -> dict[str, object]:
    """All that two equal runs have in common: every array of training, the rows without times, the files, the test."""
    from vae_jax.data.loading import load_dataset
    from vae_jax.files import LOCK
    from vae_jax.runs.checkpoints import Checkpoints
    from vae_jax.runs.run import load_run
    from vae_jax.training.recipe import Recipe

    run, images = load_run(path), len(load_dataset("digits").train)
    with Checkpoints(path) as checkpoints:
        latest, best = checkpoints.latest_step, checkpoints.best_step
        progress = checkpoints.restore_progress(latest, Recipe(run.model, run.config, images))
        best_params, _ = checkpoints.restore_params(best, run.params)
    arrays = {"latest": progress[:2], "best": best_params}
    rows = [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in run.metrics]
    # A kill after all is done leaves the file of the lock, which the next start takes over.
    files = [file for file in path.rglob("*") if "checkpoints" not in file.parts and file.name != LOCK]
    drawn = {name: _digest(path / "figures" / name) for name in ("training_progress.gif", "latent_grid.png")}
    assert run.summary is not None
    return {
        "steps": (latest, best),
        "arrays": _leaves(arrays),
        "rows": rows,
        "files": sorted(str(file.relative_to(path)) for file in files),
        "figures": drawn,
        "test": run.summary["test"],
    }


def _leaves(tree: object) -> dict[str, str]:
    import jax
    import numpy as np

    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(p): hashlib.sha256(np.asarray(leaf).tobytes()).hexdigest() for p, leaf in leaves}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclasses.dataclass
class Tally:
    """What became of the interruptions of one kind."""

    tried: int = 0
    survived: int = 0
    detected: int = 0
    lost: list[str] = dataclasses.field(default_factory=list)
    phases: dict[str, int] = dataclasses.field(default_factory=dict)

    def row(self, name: str) -> str:
        """A line of the table."""
        phases = ", ".join(f"{phase} {number}" for phase, number in sorted(self.phases.items()))
        numbers = f"{self.tried:6d} {self.survived:9d} {self.detected:9d} {len(self.lost):5d}"
        return f"{name:45s} {numbers}  {phases}"


HEADER = f"{'':45s} {'tried':>6s} {'survived':>9s} {'detected':>9s} {'lost':>5s}"


def phase(path: Path) -> str:
    """How far a run had come when it was killed, by what it left."""
    if not (path / "config.json").exists():
        return "before config"
    if (path / "summary.json").exists():
        return "finished"
    if any(file.name.endswith(".orbax-checkpoint-tmp") for file in (path / "checkpoints").glob("*")):
        return "while saving"
    if not any(file.name.isdigit() for file in (path / "checkpoints").glob("*")):
        return "before a checkpoint"
    if (path / "figures" / "latent_means.png").exists():
        return "while drawing"
    return "while training or evaluating"


def kill_and_go_on(
    path: Path, flags: list[str], seconds: float, kills: int, seed: int, by: signal.Signals = signal.SIGKILL
) -> Tally:
    """Kill a run so often, at moments drawn over its whole life.

    Args:
        path: the run directory.
        flags: of the run.
        seconds: that an undisturbed run takes.
        kills: how many.
        seed: of the moments.
        by: SIGKILL, or one that the command answers by saving.
    """
    tally, moments = Tally(), random.Random(seed)
    while tally.tried < kills:
        process = Running(path, flags, whole=moments.random() < 0.1)
        code = process.wait(moments.uniform(0.1, seconds))
        if code is None:
            process.send(by)
            code = process.wait(60)
        if code == 0:
            break  # it was quicker this time: the rest of the kills go to another run
        answered = code == 128 + by and "Stopped by" in process.output
        if code != -by and not answered:
            tally.lost += [f"{path.name}: exit code {code}", process.output[-1000:]]
            return tally
        tally.tried += 1
        where = phase(path)
        tally.phases[where] = tally.phases.get(where, 0) + 1
        if where == "finished":
            break
    return tally
