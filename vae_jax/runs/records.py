"""The records of a run directory: JSON in, JSON out, checked; nothing in them is ever executed."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from vae_jax.archives import read_bytes
from vae_jax.combinations import check_settings, with_effect
from vae_jax.config import Settings
from vae_jax.data.dataset import Dataset
from vae_jax.domains import MOST_UNITS, check_fields
from vae_jax.errors import UsageError
from vae_jax.files import replacing
from vae_jax.runs.forms import TERMS, are_labels, are_pictures, has_numbers, is_row
from vae_jax.training.history import Row

SCHEMA_VERSION = 5
_OLDEST = 1
_MOST_TEXT = 2**28  # bytes: a million rows of metrics
_OF_THE_COMMAND = ("run_dir", "resume", "compilation_cache", "coordinator", "num_processes", "process_id")
"""What schemas up to 4 kept of the command beside the settings; it decides nothing."""
_SETTINGS: dict[str, Any] = {field.name: field.metadata.get("registry") for field in dataclasses.fields(Settings)}
NAMED = tuple(name for name, registry in _SETTINGS.items() if registry)
"""The settings that name what can be registered."""
_KNOWN = {
    "": ("schema", "settings", "dataset", "own", "described", "resumed", "started_from", "fitted_prior"),
    "fitted_prior": ("kind", "components", "layers"),
    "settings": tuple(_SETTINGS),
    "dataset": (
        *("name", "source", "sha256", "image_shape", "train", "validation", "test"),
        *("class_names", "stratified", "pictures", "labels"),
    ),
}
"""What each part of config.json may hold."""
_NEWER = "Use the vae_jax that wrote it, or a newer one."
REMEDY = "Restore the file, or train the run again in another --run-dir."
"""What to do about a damaged record."""

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
    stratified: bool = True,
    own: Sequence[str] = (),
    described: dict[str, str] | None = None,
    resumed: Sequence[dict[str, Any]] = (),
    started_from: str = "",
    labels: Sequence[int] = (),
) -> None:
    """Write config.json.

    `stratified` says whether the splits were held out by class, where one lacked a class; `own` names what was given as
    an object and can't be made from the settings, such as a model; `described` says what the objects are, by name, and
    `resumed` what changed each time that the run was gone on with. `started_from` is the run whose parameters it began
    with; `labels` are those that a conditional model knows.
    """
    about = {name: getattr(dataset, name) for name in ("name", "source", "sha256", "image_shape", "class_names")}
    about |= {name: len(split) for name, split in dataset.splits.items()} | {"stratified": stratified}
    about |= {"labels": list(labels)} if labels else {}
    about["pictures"] = dataset.pictures and dataset.pictures._asdict()
    content = {"schema": SCHEMA_VERSION, "settings": {name: getattr(settings, name) for name in _SETTINGS}}
    content |= {"dataset": about, "own": own, "described": described or {}, "resumed": resumed}
    content |= {"started_from": started_from}
    write_json(path / "config.json", content)


def write_metrics(path: Path, rows: list[Row]) -> None:
    """Replace metrics.jsonl by these rows."""
    with replacing(path / "metrics.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read_settings(path: Path, kind: type[S], *, registered: Sequence[str] = NAMED) -> S:
    """The settings saved in a run directory, as `kind`.

    A setting that came after the run was written has the default that does what was done before there was one; one
    that has no effect, which earlier versions took, is its default.

    Args:
        path: the run directory.
        kind: `Settings`, or a class that adds fields to it.
        registered: which of the settings that name something, such as a likelihood, must name what is registered here.

    Raises:
        UsageError: no run directory, another schema version, a setting that is unknown or outside its domain.
    """
    file, saved = path / "config.json", read_config(path)["settings"]
    missing = {name: saved[name] for name in NAMED if isinstance(saved.get(name), str)}
    missing = {name: value for name, value in missing.items() if value not in _SETTINGS[name]}
    for name in missing.keys() & set(registered):
        raise UsageError(
            f"{file} names the {name} {missing[name]!r}, which is not registered here: {', '.join(_SETTINGS[name])} "
            "are.\nRegister it first, as the program did that trained the run, or give load_run(path, model=...)."
        )
    settings = kind(**(vars(Settings()) | saved))
    try:
        check_fields(settings, names=False)
        if not missing:
            settings = with_effect(settings)
            check_settings(settings)
    except UsageError as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(f"{file} is damaged: {reason}\n{REMEDY}") from error
    return settings


def read_dataset_record(path: Path) -> dict[str, Any]:
    """What config.json says of the data set: name, source, sha256, image_shape, number of images.

    Raises:
        UsageError: no run directory, or something is missing.
    """
    record = read_config(path)["dataset"]
    for name, kind in (("name", str), ("sha256", str), ("image_shape", list), ("train", int)):
        if not isinstance(record.get(name), kind):
            found = str(record.get(name))[:60]
            raise UsageError(f"{path / 'config.json'} is damaged: dataset.{name} is {found!r}.\n{REMEDY}")
    shape = record["image_shape"]
    if len(shape) != 3 or not all(type(side) is int and 0 < side <= MOST_UNITS for side in shape):
        raise UsageError(f"{path / 'config.json'} is damaged: dataset.image_shape is {shape!r}.\n{REMEDY}")
    if read_config(path)["settings"].get("condition", "none") != "none" and not are_labels(record.get("labels")):
        found = str(record.get("labels"))[:60]
        raise UsageError(f"{path / 'config.json'} is damaged: dataset.labels is {found}.\n{REMEDY}")
    if record.get("pictures") is not None and not are_pictures(record["pictures"], shape):
        found = str(record["pictures"])[:100]
        raise UsageError(f"{path / 'config.json'} is damaged: dataset.pictures is {found}.\n{REMEDY}")
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
        except (ValueError, RecursionError):
            break
        if not is_row(row):
            raise UsageError(f"{file} is damaged: {line[:60]!r} is no row of metrics.\n{REMEDY}")
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
    if not (isinstance(summary, dict) and has_numbers(summary.get("test"), *TERMS)):
        raise UsageError(f"{file} is damaged: no test loss in it.\n{REMEDY}")
    return summary


def read_config(path: Path) -> dict[str, Any]:
    """What config.json holds, as this schema has it.

    Raises:
        UsageError: no run directory, another schema version, something unknown or of another type.
    """
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
    content = {"own": [], "described": {}, "resumed": [], "started_from": "", "fitted_prior": {}, **content}
    for name, kind, inner in (
        *(("settings", dict, object), ("dataset", dict, object)),
        *(("own", list, str), ("described", dict, str), ("resumed", list, dict), ("started_from", str, str)),
        ("fitted_prior", dict, int | str),
    ):
        value: Any = content.get(name)
        items = value.values() if isinstance(value, dict) else value
        if not isinstance(value, kind) or not all(isinstance(item, inner) for item in items):
            raise UsageError(f"{file} is damaged: {name} is {str(value)[:60]!r}.\n{REMEDY}")
    if schema < 5:
        settings = {name: value for name, value in content["settings"].items() if name not in _OF_THE_COMMAND}
        # Splits were not made by class then.
        content |= {"settings": settings, "dataset": {**content["dataset"], "stratified": False}}
    for part, known in _KNOWN.items():
        if unknown := sorted(set(content[part] if part else content) - set(known)):
            where = f" in its {part}" if part else ""
            raise UsageError(f"{file} holds {unknown[0][:60]!r}{where}, which this vae_jax does not know.\n{_NEWER}")
    return content


def read_json(file: Path, remedy: str = REMEDY) -> Any:
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


def _read_text(file: Path, remedy: str = REMEDY) -> str:
    try:
        return read_bytes(file, _MOST_TEXT).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} can't be read: {error}.\n{remedy}") from error
