"""Check everything that a run directory holds: `python -m experiments.verify runs/mnist-vae-z2`.

Exit code 0: all of it is good; 1: something is damaged. Nothing is changed.
"""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from vae_jax.cli.command import main
from vae_jax.errors import RunError, UsageError

if TYPE_CHECKING:
    from vae_jax.data.dataset import Dataset

FIELDS = ("epoch", "step", "beta", "train", "validation", "images_per_second", "seconds")
TOLERANCE = 1e-6
"""Relative, of loss == reconstruction + beta * KL, which holds to rounding."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Check a run directory: records, checkpoints, data set and figures."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run directory."""
    data_dir: Path | None = None
    """Where the data lies, if it no longer lies where the run found it."""
    compilation_cache: bool = True
    """Keep compiled programs in the user's cache directory, so that the next start is fast."""


def run(config: Config) -> None:
    """Check and print a table.

    Raises:
        UsageError: no run directory.
        RunError: something is damaged.
    """
    if not (config.run / "config.json").exists():
        raise UsageError(
            f"{config.run} holds no config.json: not a run directory.\n"
            "Give the directory that a training command printed, such as runs/mnist-vae-z2."
        )
    if config.data_dir is not None and not config.data_dir.is_dir():
        raise UsageError(f"--data-dir must be a folder that exists, got {str(config.data_dir)!r}.")
    found = list(check(config.run, config.data_dir))
    width = max(len(name) for name, _, _ in found)
    for name, good, said in found:
        print(f"{'ok     ' if good else 'DAMAGED'}  {name:<{width}}  {said}")
    damaged = [name for name, good, _ in found if not good]
    if damaged:
        raise RunError(f"{config.run} is damaged: {', '.join(damaged)}.")


def check(path: Path, data_dir: Path | None = None) -> Iterator[tuple[str, bool, str]]:
    """What there is in a run directory: its name, whether it is good, and what was found.

    Args:
        path: the run directory.
        data_dir: where the data lies, if it no longer lies where the run found it.
    """
    parts: list[tuple[str, Callable[[], str]]] = [
        ("config.json", lambda: _config(path)),
        ("environment.json", lambda: _environment(path)),
        ("metrics.jsonl", lambda: _metrics(path)),
        ("summary.json", lambda: _summary(path)),
        ("data set", lambda: _data(path, data_dir)),
    ]
    for name, examine in parts:
        yield name, *_examined(examine)
    yield from _checkpoints(path)
    folder = path / "figures"
    for file in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not file.name.startswith("."):
            yield f"figures/{file.name}", *_examined(lambda file=file: _figure(file))  # type: ignore[misc]


class _DamageError(Exception):
    """What is wrong with a part."""


def _examined(examine: Callable[[], str]) -> tuple[bool, str]:
    try:
        return True, examine()
    except (_DamageError, UsageError, OSError, ValueError, KeyError, TypeError, SyntaxError) as error:
        # Pillow raises SyntaxError where a PNG is damaged; a field that is missing or of another type is one, too.
        missing = isinstance(error, KeyError | TypeError)
        return False, (f"{error} is missing or of another type" if missing else str(error)).partition("\n")[0]


def _config(path: Path) -> str:
    from vae_jax.config import Settings
    from vae_jax.runs.records import read_dataset_record, read_resumed, read_settings

    settings, record, resumed = read_settings(path, Settings), read_dataset_record(path), read_resumed(path)
    changes = f", resumed {len(resumed)} times with changes" if resumed else ""
    return f"{settings.model}, {settings.latent_dim} latent dimensions, {record['name']}{changes}"


def _environment(path: Path) -> str:
    from vae_jax.runs.records import read_json

    content = read_json(path / "environment.json")
    if not (isinstance(content, dict) and {"python", "jax", "device"} <= set(content)):
        raise _DamageError("python, jax or device is missing")
    return f"Python {content['python']}, jax {content['jax']}, {content['device']}"


def _metrics(path: Path) -> str:
    from vae_jax.runs.records import read_metrics, read_summary

    file = path / "metrics.jsonl"
    rows = read_metrics(path)
    written = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    # A last line cut short is what a kill leaves; going on drops it.
    if len(written) > len(rows) + (0 if read_summary(path) else 1):
        raise _DamageError(f"line {len(rows) + 1} is no JSON")
    for i, row in enumerate(rows):
        missing = [field for field in FIELDS if field not in row]
        if missing:
            raise _DamageError(f"line {i + 1}: {missing[0]} is missing")
        if row["epoch"] != i + 1 or row["step"] != rows[0]["step"] * (i + 1):
            raise _DamageError(
                f"line {i + 1} is epoch {row['epoch']} at step {row['step']}: each epoch must be there once"
            )
        for split in ("train", "validation"):
            _adds_up(row[split], row["beta"], f"line {i + 1}, {split}")
    return f"{len(rows)} epochs, each once; loss = reconstruction + beta * KL in each"


def _adds_up(part: dict[str, float], beta: float, where: str) -> None:
    loss, wanted = part["loss"], part["reconstruction"] + beta * part["kl"]
    if not abs(loss - wanted) <= TOLERANCE * max(1.0, abs(wanted)):
        raise _DamageError(f"{where}: loss {loss} is not reconstruction + beta * KL = {wanted}")


def _summary(path: Path) -> str:
    from vae_jax.runs.records import read_metrics, read_summary

    summary, rows = read_summary(path), read_metrics(path)
    if summary is None:
        return "not there: the run is not finished"
    # A study's summary names the step of the best checkpoint.
    if summary["epochs"] != len(rows) or summary["steps"] not in [row["step"] for row in rows]:
        raise _DamageError(f"says {summary['epochs']} epochs and {summary['steps']} steps, metrics.jsonl {len(rows)}")
    return f"test loss {summary['test']['loss']:.2f} after {summary['epochs']} epochs"


def _data(path: Path, data_dir: Path | None) -> str:
    dataset = _find_data(path, data_dir)
    if dataset is None:
        return "not found, so not checked; give --data-dir"
    return f"{dataset.name} from {dataset.source}: the same"


def _find_data(path: Path, data_dir: Path | None) -> "Dataset | None":
    from vae_jax.config import Settings
    from vae_jax.data.dataset import load_dataset
    from vae_jax.runs.records import read_dataset_record, read_settings

    settings, record = read_settings(path, Settings), read_dataset_record(path)
    then = settings.data_dir if settings.data_dir and settings.data_dir.is_dir() else None
    try:
        dataset = load_dataset(settings.dataset, data_dir or then, in_file=True)
    except (UsageError, RunError) as error:
        if settings.dataset and Path(settings.dataset).is_absolute() and Path(settings.dataset).exists():
            raise _DamageError(f"the data can't be read any more: {str(error).partition(chr(10))[0]}") from error
        return None
    if dataset.sha256 != record["sha256"]:
        raise _DamageError(f"{dataset.name} ({dataset.source}) is other data than the run was trained on")
    return dataset


def _checkpoints(path: Path) -> Iterator[tuple[str, bool, str]]:
    from vae_jax.config import Settings
    from vae_jax.models.autoencoders import build_model
    from vae_jax.runs.checkpoints import Checkpoints
    from vae_jax.runs.recording import state_shapes
    from vae_jax.runs.records import read_dataset_record, read_metrics, read_settings, read_summary

    try:
        settings, record = read_settings(path, Settings), read_dataset_record(path)
        rows, finished = read_metrics(path), read_summary(path) is not None
    except UsageError:
        yield "checkpoints", False, "can't be checked without the records"
        return
    model = build_model(settings, tuple(record["image_shape"]))
    shapes = state_shapes(model, settings, record["train"])
    with Checkpoints(path) as checkpoints:
        steps = checkpoints.steps
        for step in steps:
            problem = checkpoints.problem(step, *shapes)
            yield f"checkpoints/{step}", problem is None, problem or "every array is what was saved"
    if finished and rows and (not steps or steps[-1] != rows[-1]["step"]):
        yield "checkpoints", False, f"the one of the last step {rows[-1]['step']} is missing"
    elif not steps:
        yield "checkpoints", len(rows) < 2, "none yet"


def _figure(file: Path) -> str:
    from PIL import Image, ImageSequence

    with Image.open(file) as image:
        frames = sum(1 for frame in ImageSequence.Iterator(image) if frame.load())
        return f"{image.width} x {image.height}" + (f", {frames} frames" if frames > 1 else "")


if __name__ == "__main__":
    main(Config, run)
