"""What the numbers of a run depend on beside its settings."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import jax

from vae_jax.runs.records import write_json


def write_environment(path: Path) -> None:
    """Write environment.json."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    content = {
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "device": device_name(),
        "cores": os.cpu_count(),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        "git_commit": _git_commit(),
    }
    write_json(path / "environment.json", content)


def device_name() -> str:
    """The devices in use, such as "2 x NVIDIA H200" or "cpu"."""
    devices = jax.devices()
    return devices[0].device_kind if len(devices) == 1 else f"{len(devices)} x {devices[0].device_kind}"


def _git_commit() -> str | None:
    # Only of the repository that holds this package itself, not of one that an environment lies in.
    root = Path(__file__).parents[2]
    try:
        git = ["git", "-C", str(root), "rev-parse", "--show-toplevel", "HEAD"]
        lines = subprocess.run(git, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return None
    return lines[1] if Path(lines[0]) == root else None
