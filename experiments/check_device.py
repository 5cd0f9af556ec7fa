"""Whether all is right, and how fast, on the device that is there: `make check-device`.

Each step is a process of its own, the most telling first: the tests of the numerics, the default command twice, the
benchmark, then the tests of training, parallel devices and checkpoints. What is not begun within --minutes is named.
On a CPU the steps are small. device.json and device.md are written anew after each step, so that a stop loses nothing.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments.markdown import markdown_table
from vae_jax.cli.command import main
from vae_jax.cli.outputs import make_folder
from vae_jax.domains import positive
from vae_jax.errors import RunError
from vae_jax.files import replacing

_LOOK = (
    "import json, jax; from vae_jax.runs.environment import device_name; "
    "print(json.dumps({'device': device_name(), 'backend': jax.default_backend(), 'jax': jax.__version__}))"
)
_NUMERICS = ("tests/models/test_numerics.py", "tests/models/test_distributions.py", "tests/models/test_discretized.py")
_TRAINING = ("tests/training/test_training.py", "tests/training/test_parallel.py", "tests/runs/test_recording.py")
_SECTIONS = ("training", "inference", "many")
_CONTESTANTS = ("ours", "torch", "torch_compile", "flax")
_LEAST_SECONDS = 20.0
"""Of time left, for a step to be begun."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Test and time vae_jax on this machine's device; write device.json and device.md."""

    output: Path = Path("runs/device")
    """The folder for both, and for what the steps print."""
    minutes: float = positive(9.0, most=1e4)
    """All of it together takes no longer."""


@dataclasses.dataclass(frozen=True)
class Step:
    """A process, and what it tells."""

    name: str
    arguments: Sequence[str]
    """Of Python."""
    most_seconds: float
    read: Callable[[str], dict[str, Any]]
    """What its standard output, or the files that it wrote, say; called also where the process was stopped."""


def run(config: Config) -> dict[str, Any]:
    """Take the steps; gives back what device.json holds.

    Raises:
        RunError: JAX finds no device, or a step failed; after all were taken.
    """
    start = time.monotonic()
    output = make_folder(config.output)
    found: dict[str, Any] = {**look(), "cores": os.cpu_count(), "steps": []}
    print(f"{found['device']}, jax {found['jax']}: at most {config.minutes:g} minutes", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for number, step in enumerate(steps(Path(folder), small=found["backend"] == "cpu"), 1):
            left = 60 * config.minutes - (time.monotonic() - start)
            log = output / f"{number}-{step.name.replace(' ', '-')}.log"
            found["steps"].append(_take(step, min(left, step.most_seconds), log))
            print(_line(found["steps"][-1]), flush=True)
            _write(output / "device.json", json.dumps(found, indent=2))
            _write(output / "device.md", report(found))
    failed = [step["name"] for step in found["steps"] if step["outcome"] == "failed"]
    if failed:
        raise RunError(f"Failed on {found['device']}: {', '.join(failed)}. What they printed is in {output}.")
    print(f"device.json and device.md are in {output}")
    return found


def look() -> dict[str, str]:
    """The device, the backend and the version of JAX, by a process of its own: none holds the device during the steps.

    Raises:
        RunError: JAX finds no device.
    """
    looked = subprocess.run([sys.executable, "-c", _LOOK], capture_output=True, text=True)
    if looked.returncode:
        raise RunError(f"JAX finds no device: {_last_line(looked.stderr)}")
    found: dict[str, str] = json.loads(looked.stdout.splitlines()[-1])
    return found


def steps(folder: Path, small: bool) -> list[Step]:
    """The steps in their order; on a CPU, small ones.

    Args:
        folder: for the runs that they write, which are not kept.
        small: few epochs and images.
    """
    command = ["-m", "experiments.mnist", "--latent-dim", "2", *(["--epochs", "2"] if small else [])]
    benchmark = ["-m", "experiments.benchmark", "--repetitions", "2", "--contestants", *_CONTESTANTS]
    benchmark += ["--quick"] if small else []

    def mnist(name: str, seed: int, most_seconds: float) -> Step:
        path = folder / f"run-{seed}"
        arguments = [*command, "--seed", str(seed), "--run-dir", str(path)]
        return Step(name, arguments, most_seconds, lambda _: _of_run(path / "summary.json"))

    def timed(section: str, most_seconds: float) -> Step:
        path = folder / f"benchmark-{section}"
        arguments = [*benchmark, "--sections", section, "--output", str(path)]
        return Step(f"benchmark {section}", arguments, most_seconds, lambda _: _of_benchmark(path, section))

    return [
        _tests("numerics", _NUMERICS, 120),
        mnist("default command", 0, 180),
        mnist("default command again", 1, 120),
        *(timed(section, 150) for section in _SECTIONS),
        _tests("training and checkpoints", _TRAINING, 240),
    ]


def _tests(name: str, files: Sequence[str], most_seconds: float) -> Step:
    arguments = ["-m", "pytest", "-q", "-x", "--no-header", *files]
    return Step(f"tests of {name}", arguments, most_seconds, lambda printed: {"result": _last_line(printed)})


def _take(step: Step, seconds: float, log: Path) -> dict[str, Any]:
    if seconds < min(_LEAST_SECONDS, step.most_seconds):
        return {"name": step.name, "outcome": "no time left", "seconds": 0.0}
    start = time.monotonic()
    with open(log, "w", encoding="utf-8") as written:
        try:
            code = subprocess.run(
                [sys.executable, *step.arguments], stdout=written, stderr=subprocess.STDOUT, timeout=seconds
            ).returncode
            outcome = "failed" if code else "done"
        except subprocess.TimeoutExpired:
            outcome = "stopped"
    told = {"name": step.name, "outcome": outcome, "seconds": time.monotonic() - start}
    try:
        return told | step.read(log.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError, KeyError):  # it ended before it wrote them
        return told


def _of_run(path: Path) -> dict[str, Any]:
    summary = json.loads(path.read_text(encoding="utf-8"))
    names = ("seconds", "training_seconds", "time_to_first_epoch_seconds")
    return {
        "dataset": summary["dataset"],
        "test_loss": summary["test"]["loss"],
        **{f"command_{name}": summary[name] for name in names if name in summary},
    }


def _of_benchmark(path: Path, section: str) -> dict[str, Any]:
    report = path / "report.md"
    content = json.loads((path / "benchmark.json").read_text(encoding="utf-8"))[section]
    text = report.read_text(encoding="utf-8").split("\n## ", 1)[1] if report.exists() else ""
    return {"found": content, "text": text}


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "nothing was printed")


def _line(step: dict[str, Any]) -> str:
    return f"{step['name']}: {_told(step)} ({step['seconds']:.0f} s)"


def _told(step: dict[str, Any]) -> str:
    told = step["outcome"]
    if "test_loss" in step:
        told += f", {step['test_loss']:.2f} nats on {step['dataset']}"
    return told + (f", {step['result'].strip('= ')}" if "result" in step else "")


def report(found: dict[str, Any]) -> str:
    """The steps as a table in Markdown, with the benchmark's own tables below it."""
    rows = [[step["name"], _told(step), f"{step['seconds']:.0f}"] for step in found["steps"]]
    tables = [f"## {step['text'].strip()}" for step in found["steps"] if step.get("text")]
    title = f"# vae_jax on {found['device']}"
    about = f"jax {found['jax']}, backend {found['backend']}, {found['cores']} processor cores."
    return "\n\n".join([title, about, markdown_table(["step", "outcome", "seconds"], rows), *tables]) + "\n"


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Config, run)
