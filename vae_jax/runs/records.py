"""The records of a run directory: JSON in, JSON out, checked; nothing in them is ever executed."""

import dataclasses
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import jax

from vae_jax.archives import read_bytes
from vae_jax.config import Settings, check_settings, without_effect
from vae_jax.data.dataset import Dataset
from vae_jax.domains import MOST_UNITS, check_fields
from vae_jax.errors import UsageError
from vae_jax.files import replacing
from vae_jax.training.history import Row

SCHEMA_VERSION = 5
_OLDEST = 1
_TERMS = ("loss", "reconstruction", "kl")
_MOST_TEXT = 2**28  # bytes: a million rows of metrics
_LARGEST = 1e300
_OF_THE_COMMAND = ("run_dir", "resume", "compilation_cache", "coordinator", "num_processes", "process_id")
"""What schemas up to 4 kept of the command beside the settings; it decides nothing."""
_NEWER = "Use the vae_jax that wrote it, or a newer one."
_REMEDY = "Restore the file, or train the run again in another --run-dir."

S = TypeVar("S", bound=Settings)


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically: whoever reads sees the old file or the new one."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")


def write_config(
    path: Path,
    settings: Settings,
    dataset: Dataset,
    *,
    own: Sequence[str] = (),
    resumed: Sequence[dict[str, Any]] = (),
    recorded: dict[str, Any] | None = None,
) -> None:
    """Write config.json.

    Args:
        path: the run directory.
        settings: all of `Settings` are written.
        dataset: which data it was.
        own: names of what was given as an object and can't be made from the settings: model, objective, ...
        resumed: what changed each time that the run was gone on with.
        recorded: what an earlier config.json of the run said of the data: how it was split stays so.
    """
    described = {
        "name": dataset.name,
        "source": dataset.source,
        "sha256": dataset.sha256,
        "image_shape": list(dataset.image_shape),
        "train": len(dataset.train),
        "validation": len(dataset.validation),
        "test": len(dataset.test),
        "class_names": dataset.class_names,
    }
    described |= {name: value for name, value in (recorded or {}).items() if name == "stratified"}
    saved = {field.name: getattr(settings, field.name) for field in dataclasses.fields(Settings)}
    content = {"schema": SCHEMA_VERSION, "settings": saved, "dataset": described}
    content |= {"own": list(own)} if own else {}
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


def read_settings(path: Path, kind: type[S], *, names: bool = True) -> S:
    """The settings saved in a run directory, as `kind`.

    A setting that came after the run was written has the default that does what was done before there was one.

    Args:
        path: the run directory.
        kind: `Settings`, or a class that adds fields to it.
        names: whether what the settings name, such as a likelihood, has to be registered.

    Raises:
        UsageError: no run directory, another schema version, a setting that is unknown or outside its domain.
    """
    file, content = path / "config.json", _read_config(path)
    saved = content["settings"]
    unknown = sorted(set(saved) - {field.name for field in dataclasses.fields(Settings)})
    if unknown:
        raise UsageError(f"{file} holds the setting {unknown[0]!r}, which this vae_jax does not know.\n{_NEWER}")
    for field in dataclasses.fields(Settings) if names else ():
        registry, name = field.metadata.get("registry"), saved.get(field.name)
        if registry is not None and isinstance(name, str) and name not in registry:
            raise UsageError(
                f"{file} names the {field.name} {name!r}, which is not registered here: {', '.join(registry)} are.\n"
                f"Register it first, as the program did that trained the run, or give load_run(path, model=...)."
            )
    settings = kind(**saved)
    try:
        check_fields(settings, names=names)
        if names and content["schema"] < 5:
            # Until then a setting that had no effect was kept as it was given.
            without = {name: getattr(Settings, name) for name in without_effect(settings)}
            settings = dataclasses.replace(settings, **without)
        if names:
            check_settings(settings)
    except UsageError as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(f"{file} is damaged: {reason}\n{_REMEDY}") from error
    return settings


def read_own(path: Path) -> list[str]:
    """Names of what a run was given as an object, and its settings can't describe: model, objective, ..."""
    own = _read_config(path).get("own", [])
    return [name for name in own if isinstance(name, str)] if isinstance(own, list) else []


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
    if type(schema) is not int or not _OLDEST <= schema <= SCHEMA_VERSION:
        raise UsageError(
            f"{file} has schema version {str(schema)[:20]}, this vae_jax reads {_OLDEST} to {SCHEMA_VERSION}.\n"
            "Use the vae_jax that wrote it, or train the run again."
        )
    for part in ("settings", "dataset"):
        if not isinstance(content.get(part), dict):
            raise UsageError(f"{file} is damaged: {part} is {str(content.get(part))[:60]!r}.\n{_REMEDY}")
    if schema < 5:
        settings = {name: value for name, value in content["settings"].items() if name not in _OF_THE_COMMAND}
        # Splits were not made by class then.
        content = {**content, "settings": settings, "dataset": {**content["dataset"], "stratified": False}}
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


def _git_commit() -> str | None:
    # Only of the repository that holds this package itself, not of one that an environment lies in.
    root = Path(__file__).parents[2]
    try:
        git = ["git", "-C", str(root), "rev-parse", "--show-toplevel", "HEAD"]
        lines = subprocess.run(git, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return None
    return lines[1] if Path(lines[0]) == root else None
