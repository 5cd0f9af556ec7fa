"""The records of a run directory: JSON in, JSON out, checked; nothing in them is ever executed."""

import dataclasses
import json
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import jax

from vae_jax.config import Settings, check_settings
from vae_jax.data import Dataset
from vae_jax.errors import UsageError
from vae_jax.files import replacing
from vae_jax.history import Row

SCHEMA_VERSION = 4
_REMEDY = "Restore the file, or train the run again in another --run-dir."

S = TypeVar("S", bound=Settings)


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically: whoever reads sees the old file or the new one."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")


def write_config(path: Path, settings: Settings, dataset: Dataset) -> None:
    """Write config.json: schema version, every setting, and which data it was."""
    described = {
        "name": dataset.name,
        "source": dataset.source,
        "sha256": dataset.sha256,
        "image_shape": list(dataset.image_shape),
        "train": len(dataset.train),
        "validation": len(dataset.validation),
        "test": len(dataset.test),
    }
    content = {"schema": SCHEMA_VERSION, "settings": dataclasses.asdict(settings), "dataset": described}
    write_json(path / "config.json", content)


def write_metrics(path: Path, rows: list[Row]) -> None:
    """Replace metrics.jsonl by these rows."""
    with replacing(path / "metrics.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_environment(path: Path) -> None:
    """Write environment.json: what the numbers of a run depend on beside its settings."""
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


def read_settings(path: Path, kind: type[S]) -> S:
    """The settings saved in a run directory, as `kind`.

    Raises:
        UsageError: no run directory, another schema version, a setting missing or outside its domain.
    """
    file, saved = path / "config.json", _read_config(path)["settings"]
    hints = get_type_hints(kind)
    missing = sorted({field.name for field in dataclasses.fields(Settings)} - set(saved))
    if missing:
        raise UsageError(f"{file} is damaged: the setting {missing[0]} is missing.\n{_REMEDY}")
    settings = kind(**{name: _from_json(value, hints[name]) for name, value in saved.items() if name in hints})
    try:
        check_settings(settings)
    except UsageError as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(f"{file} is damaged: {reason}\n{_REMEDY}") from error
    return settings


def read_dataset_record(path: Path) -> dict[str, Any]:
    """What config.json says of the data set: name, source, sha256, image_shape, number of images.

    Raises:
        UsageError: no run directory, or something is missing.
    """
    record = _read_config(path)["dataset"]
    for name, kind in (("name", str), ("sha256", str), ("image_shape", list)):
        if not isinstance(record.get(name), kind):
            raise UsageError(f"{path / 'config.json'} is damaged: dataset.{name} is {record.get(name)!r}.\n{_REMEDY}")
    shape = record["image_shape"]
    if len(shape) != 3 or not all(type(side) is int and side > 0 for side in shape):
        raise UsageError(f"{path / 'config.json'} is damaged: dataset.image_shape is {shape!r}.\n{_REMEDY}")
    return record


def read_metrics(path: Path) -> list[Row]:
    """The rows of metrics.jsonl; a last line cut short by a crash, and what follows it, is left out.

    Raises:
        UsageError: the file can't be read.
    """
    file, rows = path / "metrics.jsonl", []
    for line in _read_text(file).splitlines() if file.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            break
        if not (isinstance(row, dict) and isinstance(row.get("step"), int) and "validation" in row):
            raise UsageError(f"{file} is damaged: {line[:60]!r} is no row of metrics.\n{_REMEDY}")
        rows.append(row)
    return rows


def read_summary(path: Path) -> dict[str, Any] | None:
    """The summary of a finished run, None of an unfinished one.

    Raises:
        UsageError: the file is damaged.
    """
    file = path / "summary.json"
    if not file.exists():
        return None
    summary = _read_json(file)
    test = summary.get("test") if isinstance(summary, dict) else None
    if not (isinstance(test, dict) and {"loss", "reconstruction", "kl"} <= set(test)):
        raise UsageError(f"{file} is damaged: no test loss in it.\n{_REMEDY}")
    return summary


def _read_config(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    if not file.exists():
        raise UsageError(
            f"{path} holds no config.json: not a run directory.\n"
            "Give the directory that a training command printed, such as runs/mnist-vae-z2."
        )
    content = _read_json(file)
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA_VERSION:
        raise UsageError(
            f"{file} has schema version {schema!r}, this vae_jax reads {SCHEMA_VERSION}.\n"
            "Use the vae_jax that wrote it, or train the run again."
        )
    for part in ("settings", "dataset"):
        if not isinstance(content.get(part), dict):
            raise UsageError(f"{file} is damaged: {part} is {content.get(part)!r}.\n{_REMEDY}")
    return content


def _read_json(file: Path) -> Any:
    try:
        return json.loads(_read_text(file))
    except ValueError as error:
        raise UsageError(f"{file} is damaged: no JSON ({error}).\n{_REMEDY}") from error


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} can't be read: {error}.\n{_REMEDY}") from error


def _from_json(value: Any, hint: Any) -> Any:
    # JSON knows neither tuples nor paths.
    if isinstance(value, list):
        return tuple(value)
    return Path(value) if isinstance(value, str) and Path in get_args(hint) else value


def _git_commit() -> str | None:
    # Only of the repository that holds this package itself, not of one that an environment lies in.
    root = Path(__file__).parents[1]
    try:
        git = ["git", "-C", str(root), "rev-parse", "--show-toplevel", "HEAD"]
        lines = subprocess.run(git, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return None
    return lines[1] if Path(lines[0]) == root else None
