"""The records of a run directory: JSON in, JSON out, checked; nothing in them is ever executed."""

import dataclasses
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import jax

from vae_jax.archives import read_bytes
from vae_jax.config import Settings, check_settings
from vae_jax.data.dataset import Dataset
from vae_jax.domains import MOST_UNITS
from vae_jax.errors import UsageError
from vae_jax.files import replacing
from vae_jax.training.history import Row

SCHEMA_VERSION = 4
_TERMS = ("loss", "reconstruction", "kl")
_MOST_TEXT = 2**28  # bytes: a million rows of metrics
_LARGEST = 1e300
_OF_COMMANDS = {
    *("run_dir", "resume", "compilation_cache", "coordinator", "num_processes", "process_id"),
    *("test_samples", "iwae_samples", "grid_size"),
}
"""What the training command kept beside the settings of the model."""
_NEWER = "Use the vae_jax that wrote it, or a newer one."
_REMEDY = "Restore the file, or train the run again in another --run-dir."

S = TypeVar("S", bound=Settings)


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically: whoever reads sees the old file or the new one."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")


def write_config(path: Path, settings: Settings, dataset: Dataset, resumed: Sequence[dict[str, Any]] = ()) -> None:
    """Write config.json: schema version, every setting, which data it was, and what changed when it was resumed."""
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
    content |= {"resumed": list(resumed)} if resumed else {}
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
        UsageError: no run directory, another schema version, a setting that is unknown or outside its domain.
    """
    file, saved = path / "config.json", _read_config(path)["settings"]
    hints = get_type_hints(kind)
    unknown = sorted(set(saved) - {field.name for field in dataclasses.fields(Settings)} - _OF_COMMANDS)
    if unknown:
        raise UsageError(f"{file} holds the setting {unknown[0]!r}, which this vae_jax does not know.\n{_NEWER}")
    # A setting that came after the run was written has a default that does what was done before there was one.
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
    for name, kind in (("name", str), ("sha256", str), ("image_shape", list), ("train", int)):
        if not isinstance(record.get(name), kind):
            found = str(record.get(name))[:60]
            raise UsageError(f"{path / 'config.json'} is damaged: dataset.{name} is {found!r}.\n{_REMEDY}")
    shape = record["image_shape"]
    if len(shape) != 3 or not all(type(side) is int and 0 < side <= MOST_UNITS for side in shape):
        raise UsageError(f"{path / 'config.json'} is damaged: dataset.image_shape is {shape!r}.\n{_REMEDY}")
    return record


def read_resumed(path: Path) -> list[dict[str, Any]]:
    """Each change of settings on resuming: the step it was at, and by name the old and the new value.

    Raises:
        UsageError: no run directory, or the list is damaged.
    """
    resumed = _read_config(path).get("resumed", [])
    if not (isinstance(resumed, list) and all(isinstance(entry, dict) for entry in resumed)):
        raise UsageError(f"{path / 'config.json'} is damaged: resumed is {resumed!r}.\n{_REMEDY}")
    return resumed


def read_metrics(path: Path) -> list[Row]:
    """The rows of metrics.jsonl; a last line cut short by a crash, and what follows it, is left out.

    Raises:
        UsageError: the file can't be read.
    """
    file, rows = path / "metrics.jsonl", []
    for line in _read_text(file).splitlines() if file.exists() else []:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not _is_row(row):
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
    summary = read_json(file)
    if not (isinstance(summary, dict) and _has_numbers(summary.get("test"), *_TERMS)):
        raise UsageError(f"{file} is damaged: no test loss in it.\n{_REMEDY}")
    return summary


def _read_config(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    if not file.exists():
        raise UsageError(
            f"{path} holds no config.json: not a run directory.\n"
            "Give the directory that a training command printed, such as runs/mnist-vae-z2."
        )
    content = read_json(file)
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA_VERSION:
        raise UsageError(
            f"{file} has schema version {str(schema)[:20]}, this vae_jax reads {SCHEMA_VERSION}.\n"
            "Use the vae_jax that wrote it, or train the run again."
        )
    for part in ("settings", "dataset"):
        if not isinstance(content.get(part), dict):
            raise UsageError(f"{file} is damaged: {part} is {str(content.get(part))[:60]!r}.\n{_REMEDY}")
    return content


def read_json(file: Path, remedy: str = _REMEDY) -> Any:
    """What a JSON file holds; `remedy` is the message's last line.

    Raises:
        UsageError: it can't be read, or is no JSON.
    """
    try:
        return json.loads(_read_text(file, remedy))
    except (ValueError, RecursionError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{file} is damaged: no JSON ({error}).\n{remedy}") from error


def _read_text(file: Path, remedy: str = _REMEDY) -> str:
    try:
        return read_bytes(file, _MOST_TEXT).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} can't be read: {error}.\n{remedy}") from error


def _is_row(row: Any) -> bool:
    return (
        _has_numbers(row, "epoch", "step", "beta", "images_per_second", "seconds")
        and type(row["epoch"]) is type(row["step"]) is int
        and all(_has_numbers(row.get(part), *_TERMS) for part in ("train", "validation"))
    )


def _has_numbers(content: Any, *names: str) -> bool:
    # A number is finite and no integer beyond any float.
    return isinstance(content, dict) and all(
        type(content.get(name)) in (int, float) and abs(content[name]) < _LARGEST for name in names
    )


def _from_json(value: Any, hint: Any) -> Any:
    # JSON knows neither tuples nor paths.
    if isinstance(value, list):
        return tuple(value)
    return Path(value) if isinstance(value, str) and Path in get_args(hint) else value


def _git_commit() -> str | None:
    # Only of the repository that holds this package itself, not of one that an environment lies in.
    root = Path(__file__).parents[2]
    try:
        git = ["git", "-C", str(root), "rev-parse", "--show-toplevel", "HEAD"]
        lines = subprocess.run(git, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return None
    return lines[1] if Path(lines[0]) == root else None
