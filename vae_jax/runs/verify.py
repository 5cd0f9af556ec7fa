"""Whether all that a run directory holds is good: records, data set, checkpoints, figures. Nothing is changed."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
from PIL import Image, ImageSequence

from vae_jax.archives import UNREADABLE, read_arrays
from vae_jax.config import Settings
from vae_jax.domains import MOST_STEPS
from vae_jax.errors import UsageError, counted
from vae_jax.models.autoencoders import Parameters
from vae_jax.runs.checkpoints import Checkpoints
from vae_jax.runs.datasets import MissingDataError, find_dataset
from vae_jax.runs.described import built, with_fitted_prior
from vae_jax.runs.records import (
    read_config,
    read_dataset_record,
    read_json,
    read_metrics,
    read_settings,
    read_summary,
)

_TOLERANCE = 1e-6
"""Relative, of loss == reconstruction + beta * KL, which holds to rounding."""


def check(path: Path, data_dir: Path | None = None) -> Iterator[tuple[str, bool, str]]:
    """What there is in a run directory: its name, whether it is good, and what was found.

    `data_dir` is where the data lies, if it no longer lies where the run found it.
    """
    records = {"config.json": _config, "environment.json": _environment, "metrics.jsonl": _metrics}
    for name, examine in (records | {"summary.json": _summary, "data set": partial(_data, data_dir)}).items():
        yield name, *_examined(examine, path)
    yield from _checkpoints(path)
    for file in sorted(path.glob("codec-*.npz")):
        yield file.name, *_examined(_codec, file)
    folder = path / "figures"
    for file in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not file.name.startswith("."):
            yield f"figures/{file.name}", *_examined(_figure, file)


def _examined(examine: Any, path: Path) -> tuple[bool, str]:
    try:
        return True, examine(path)
    except (KeyError, TypeError) as error:
        return False, f"{error} is missing or of another type"
    except (UsageError, OSError, ValueError, SyntaxError) as error:  # the last from Pillow, of a damaged PNG
        return False, str(error).partition("\n")[0]


def _config(path: Path) -> str:
    settings, record, resumed = read_settings(path, Settings), read_dataset_record(path), read_config(path)["resumed"]
    changes = f", resumed with changes {counted(len(resumed), 'time')}" if resumed else ""
    return f"{settings.model}, {counted(settings.latent_dim, 'latent dimension')}, {record['name']}{changes}"


def _environment(path: Path) -> str:
    content = read_json(path / "environment.json")
    return f"Python {content['python']}, jax {content['jax']}, {content['device']}"


def _metrics(path: Path) -> str:
    file, rows = path / "metrics.jsonl", read_metrics(path)
    written = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    # A last line cut short is what a kill leaves; going on drops it.
    if len(written) > len(rows) + (0 if read_summary(path) else 1):
        raise ValueError(f"line {len(rows) + 1} is no JSON")
    end = read_settings(path, Settings).steps or MOST_STEPS  # where the last epoch may end early
    for i, row in enumerate(rows):
        if row["epoch"] != i + 1 or row["step"] != min(rows[0]["step"] * (i + 1), end):
            raise ValueError(
                f"line {i + 1} is epoch {row['epoch']} at step {row['step']}: each epoch must be there once"
            )
        for split in ("train", "validation"):
            loss, wanted = row[split]["loss"], row[split]["reconstruction"] + row["beta"] * row[split]["kl"]
            if not abs(loss - wanted) <= _TOLERANCE * max(1.0, abs(wanted)):
                raise ValueError(f"line {i + 1}, {split}: loss {loss} is not reconstruction + beta * KL = {wanted}")
    return f"{counted(len(rows), 'epoch')}, each once; loss = reconstruction + beta * KL in each"


def _summary(path: Path) -> str:
    summary, steps = read_summary(path), [row["step"] for row in read_metrics(path)]
    if summary is None:
        return "not there: the run is not finished"
    # Studies used to call the step of the best checkpoint "steps".
    trained, best = summary["steps"], summary.get("best_step", summary["steps"])
    whole = trained == steps[-1] if steps and "best_step" in summary else trained in steps
    if summary["epochs"] != len(steps) or not whole or best not in steps:
        raise ValueError(
            f"says {counted(summary['epochs'], 'epoch')} and {counted(trained, 'step')}, the best at {best}; "
            f"metrics.jsonl has {counted(len(steps), 'epoch')} and {counted(max(steps, default=0), 'step')}"
        )
    return f"test loss {summary['test']['loss']:.2f} after {counted(summary['epochs'], 'epoch')}"


def _data(data_dir: Path | None, path: Path) -> str:
    try:
        dataset = find_dataset(read_settings(path, Settings), read_dataset_record(path), data_dir, in_file=True)
    except MissingDataError:
        return "not found, so not checked; give --data-dir"
    return f"{dataset.name} from {dataset.source}: the same"


def _codec(file: Path) -> str:
    # Of `vae-jax compress`: all that it wrote needs it.
    try:
        arrays, _ = read_arrays(file)
    except UNREADABLE as error:
        raise ValueError(f"can't be read, and with it no file that it compressed: {error}") from error
    return f"{counted(len(arrays), 'array')}, each as its checksum says"


def _checkpoints(path: Path) -> Iterator[tuple[str, bool, str]]:
    try:
        params, rows, finished = _parameters(path), read_metrics(path), read_summary(path)
        is_fitted = bool(read_config(path)["fitted_prior"])
    except UsageError:
        yield "checkpoints", False, "can't be checked without the records"
        return
    with Checkpoints(path) as checkpoints:
        steps = checkpoints.steps
        for step in steps:
            problem = checkpoints.problem(step, params)
            yield f"checkpoints/{step}", problem is None, problem or "every array is what was saved"
    # A prior is fitted to the best checkpoint, which alone is kept with it.
    last = finished["best_step"] if finished and is_fitted else rows[-1]["step"] if rows else 0
    if finished and rows and (not steps or steps[-1] != last):
        yield "checkpoints", False, f"the one of the {'best' if is_fitted else 'last'} step {last} is missing"
    elif not steps:
        yield "checkpoints", len(rows) < 2, "none yet"


def _parameters(path: Path) -> Parameters | None:
    # Shapes of those that config.json asks for; None of a model that it does not describe.
    if "model" in read_config(path)["own"]:
        return None
    model = with_fitted_prior(path, built(read_settings(path, Settings), read_dataset_record(path)))
    shapes: Parameters = jax.eval_shape(model.init, jax.random.key(0))
    return shapes


def _figure(file: Path) -> str:
    with Image.open(file) as image:
        frames = sum(1 for frame in ImageSequence.Iterator(image) if frame.load())
        return f"{image.width} x {image.height}" + (f", {frames} frames" if frames > 1 else "")
