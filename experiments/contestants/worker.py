"""A contestant in a process of its own: it is told line by line what to do, and answers with what it measured.

Keras's backends can't share a process, and the threads of PyTorch and XLA would compete in one. A worker that is not
asked anything waits on its pipe.
"""

import contextlib
import importlib
import json
import os
import select
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from experiments.contestants.job import Job, threads


class Contestant(NamedTuple):
    """Who takes part."""

    title: str
    module: str
    factory: str
    options: dict[str, Any]
    environment: dict[str, str]


def _keras(backend: str, name: str) -> Contestant:
    return Contestant(f"Keras on {name}", "keras", "Keras", {}, {"KERAS_BACKEND": backend})


CONTESTANTS = {
    "ours": Contestant("vae_jax", "ours", "Ours", {}, {}),
    "torch": Contestant("PyTorch", "torch", "Torch", {}, {}),
    "torch_fused": Contestant("PyTorch, fused Adam", "torch", "Torch", {"fused": True}, {}),
    "torch_compile": Contestant("torch.compile", "torch", "Torch", {"compiled": True}, {}),
    "keras_tensorflow": _keras("tensorflow", "TensorFlow"),
    "keras_torch": _keras("torch", "PyTorch"),
    "keras_jax": _keras("jax", "JAX"),
    "flax": Contestant("plain Flax loop", "flax", "PlainFlax", {}, {}),
}
DEFAULT = {"ours_default": Contestant("vae_jax, its default", "ours", "Default", {}, {})}
"""Takes part only where each trains by a recipe of its own."""
ROOFS = {
    "roof_xla": Contestant("matrix product by XLA", "ours", "Roof", {}, {}),
    "roof_torch": Contestant("matrix product by PyTorch", "torch", "TorchRoof", {}, {}),
}
_KNOWN = CONTESTANTS | DEFAULT | ROOFS
PACKAGES = ("torch", "keras", "tensorflow", "jax", "flax", "optax")


class Worker:
    """The benchmark's side of one contestant's process."""

    def __init__(self, name: str, folder: Path, job: Job):
        """Start the process; what it prints goes to a log in `folder`."""
        contestant = _KNOWN[name]
        number = str(threads())
        environment = os.environ | contestant.environment
        environment |= {"OMP_NUM_THREADS": number, "MKL_NUM_THREADS": number, "TF_NUM_INTRAOP_THREADS": number}
        # All contestants stay alive together, so none may take the whole memory of a GPU.
        environment |= {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
        environment |= {"TF_CPP_MIN_LOG_LEVEL": "3", "TOKENIZERS_PARALLELISM": "false"}
        if job.devices:
            environment["JAX_PLATFORMS"] = "cpu"
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / f"{name}.log", "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "experiments.contestants.worker", name],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )

    def ask(self, action: str, seconds: float, **arguments: Any) -> dict[str, Any]:
        """The answer, or {"failed": why} after so many seconds or where the process died."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write((json.dumps({"do": action, **arguments}) + "\n").encode())
            stdin.flush()
            if not select.select([stdout], [], [], seconds)[0]:
                self.process.kill()
                return {"failed": f"no answer to {action} within {seconds:.0f} s"}
            line = stdout.readline()
        except OSError:
            line = b""
        return json.loads(line) if line else {"failed": f"the process ended with code {self.process.wait()}"}

    def close(self) -> None:
        """End the process."""
        if self.process.stdin:
            with contextlib.suppress(OSError):  # it died, and never read what was asked last
                self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()


def _serve(name: str, answers: TextIO) -> None:
    contestant = _KNOWN[name]
    model: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["do"] == "prepare":
                module = importlib.import_module(f"experiments.contestants.{contestant.module}")
                job = Job.from_json(request["job"])
                model = getattr(module, contestant.factory)(job, **contestant.options)
                answer = {
                    known: getattr(model, known) for known in ("device", "version", "epochs") if hasattr(model, known)
                }
            else:
                answer = _measure(model, request["do"])
        except ModuleNotFoundError as error:
            answer = {"missing": f"no module named {error.name}"} if error.name in PACKAGES else _failure(error)
        except Exception as error:
            answer = _failure(error)
        print(json.dumps(answer), file=answers, flush=True)


def _measure(model: Any, action: str) -> dict[str, Any]:
    if action == "memory":
        on_device = model.device_bytes() if hasattr(model, "device_bytes") else None
        return {"peak_bytes": _peak_bytes(), "device_bytes": on_device}
    result = getattr(model, action)()
    if action == "train":
        return dict(zip(("seconds", "loss"), result, strict=True))
    return {{"rates": "rates", "held_out": "held_out"}.get(action, "seconds"): result}


def _failure(error: BaseException) -> dict[str, Any]:
    traceback.print_exc()
    lines = str(error).strip().splitlines()
    return {"failed": f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]}


def _peak_bytes() -> int | None:
    # Where Linux tells: ru_maxrss has what the parent held when it forked.
    with contextlib.suppress(OSError, IndexError, ValueError):
        status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    try:
        import resource
    except ImportError:  # no such thing on Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    # Whatever a framework prints must not reach the pipe of answers.
    private = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _serve(sys.argv[1], private)
