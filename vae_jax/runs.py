"""The run directory: settings, metrics and orbax checkpoints of one training run, and the way back from them.

Reading a directory runs no code from it: JSON, and arrays that are restored into a structure known beforehand.
"""

import dataclasses
import json
import os
import platform
import subprocess
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

import jax
from jaxtyping import Array, Key

from vae_jax.checkpoints import Checkpoints
from vae_jax.config import Settings, check_settings, epochs
from vae_jax.data import Dataset, load_dataset
from vae_jax.errors import RunError, UsageError
from vae_jax.files import replacing
from vae_jax.models import AnyModel, Parameters, build_model
from vae_jax.training import (
    FitResult,
    Keys,
    Row,
    TrainState,
    fit,
    init_state,
    make_optimizer,
)

SCHEMA_VERSION = 1


class Run(NamedTuple):
    """A run read back from its directory."""

    path: Path
    model: AnyModel
    params: Parameters
    config: Settings
    metrics: list[Row]
    dataset: dict[str, Any]
    """Name, source, sha256, image_shape and number of images of the data set it was trained on."""
    summary: dict[str, Any] | None
    """None while the run is not finished."""
    step: int
    """The step of the restored checkpoint."""

    @property
    def evaluation_key(self) -> Key[Array, ""]:
        """The key of the run's own evaluations, so that they can be repeated."""
        return Keys.from_seed(self.config.seed).evaluation


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically: whoever reads sees the old file or the new one."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file of a run directory.

    Raises:
        UsageError: there is no such file, or it is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"{path.parent} holds no readable {path.name} ({error.strerror}): not a run directory.\n"
            "Give the directory that a training command printed, such as runs/mnist-vae-z2."
        ) from error
    except ValueError as error:
        raise UsageError(f"{path} is damaged: no JSON ({error}).\nTrain the run again.") from error


def fresh_path(settings: Settings, dataset_name: str, root: Path = Path("runs")) -> Path:
    """A run directory that does not exist yet: runs/DATASET-MODEL-zDIM, with a number where that is taken."""
    name = f"{dataset_name}-{settings.model}-z{settings.latent_dim}"
    path, number = root / name, 2
    while path.exists():
        path, number = root / f"{name}-{number}", number + 1
    return path


def check_available(path: Path) -> None:
    """Refuse to train into a directory that holds something.

    Raises:
        UsageError: the path is a file, a finished run, an unfinished run or another directory that is not empty.
    """
    if path.exists() and not path.is_dir():
        raise UsageError(f"--run-dir {path} is a file. Give a directory that does not exist yet.")
    if not path.exists() or not any(path.iterdir()):
        return
    if (path / "summary.json").exists():
        found, remedy = "a finished run", "Give another --run-dir, or --resume with more --epochs"
    elif (path / "config.json").exists():
        found, remedy = "an unfinished run", "Give another --run-dir, or go on with it by --resume"
    else:
        found, remedy = "files that are no run", "Give a directory that does not exist yet"
    raise UsageError(f"--run-dir {path} holds {found}; nothing was changed.\n{remedy}.")


def read_settings(path: Path, kind: type[Settings] = Settings) -> Settings:
    """The settings saved in a run directory, as `kind`.

    Raises:
        UsageError: no run directory, another schema version, or settings outside their domains.
    """
    content = read_json(path / "config.json")
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA_VERSION:
        raise UsageError(
            f"{path / 'config.json'} has schema version {schema!r}, this vae_jax reads {SCHEMA_VERSION}.\n"
            "Use the vae_jax that wrote it, or train the run again."
        )
    try:
        hints = get_type_hints(kind)
        saved = content["settings"]
        settings = kind(**{name: _from_json(value, hints[name]) for name, value in saved.items() if name in hints})
        check_settings(settings)
    except (UsageError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path / 'config.json'} is damaged: {type(error).__name__} {error}\nTrain the run again."
        ) from error
    return settings


def _from_json(value: Any, hint: Any) -> Any:
    # JSON knows neither tuples nor paths.
    if isinstance(value, list):
        return tuple(value)
    return Path(value) if isinstance(value, str) and Path in get_args(hint) else value


def load_run(path: str | os.PathLike[str], checkpoint: str = "best") -> Run:
    """Read a run back: the model, its parameters and what was recorded, on whatever device is there.

    Args:
        path: the run directory.
        checkpoint: "best" on validation, or "latest".

    Raises:
        UsageError: no run directory, a damaged one, or one without a checkpoint.
    """
    directory = Path(path)
    settings = read_settings(directory)
    dataset = read_json(directory / "config.json")["dataset"]
    model = build_model(settings, tuple(dataset["image_shape"]))
    with Checkpoints(directory) as checkpoints:
        step = checkpoints.best_step if checkpoint == "best" else checkpoints.latest_step
        params = checkpoints.restore_params(step, jax.eval_shape(model.init, jax.random.key(0)))
    summary = directory / "summary.json"
    return Run(
        directory,
        model,
        params,
        settings,
        read_metrics(directory),
        dataset,
        read_json(summary) if summary.exists() else None,
        step,
    )


def read_metrics(path: Path) -> list[Row]:
    """The rows of metrics.jsonl; a last line cut short by a crash is left out."""
    rows = []
    file = path / "metrics.jsonl"
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def load_dataset_of(run: Run, data_dir: Path | None = None) -> Dataset:
    """The data set that a run was trained on, checked to be the same.

    Args:
        run: from `load_run`.
        data_dir: where the data lies, if not where the run found it.

    Raises:
        UsageError: the data can't be found, or is other data.
    """
    dataset = load_dataset(run.config.dataset, data_dir or run.config.data_dir)
    _check_same_data(dataset, run.dataset, run.path)
    return dataset


def environment() -> dict[str, Any]:
    """What the numbers of a run depend on beside its settings."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    ).stdout.strip()
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "device": device_name(),
        "cores": os.cpu_count(),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        "git_commit": commit or None,
    }


def device_name() -> str:
    """The devices in use, such as "2 x NVIDIA H200" or "cpu"."""
    devices = jax.devices()
    return devices[0].device_kind if len(devices) == 1 else f"{len(devices)} x {devices[0].device_kind}"


def describe(dataset: Dataset) -> dict[str, Any]:
    """What config.json records of a data set."""
    return {
        "name": dataset.name,
        "source": dataset.source,
        "sha256": dataset.sha256,
        "image_shape": list(dataset.image_shape),
        "train": len(dataset.train),
        "validation": len(dataset.validation),
        "test": len(dataset.test),
    }


# What --resume may change; everything else decides the parameters that were trained so far.
_FREE_ON_RESUME = ("epochs", "patience", "data_dir")


def check_resumable(path: Path, settings: Settings, dataset: Dataset) -> None:
    """Refuse to go on with a run under other settings or with other data.

    Raises:
        UsageError: naming the first difference, or that the run is finished.
    """
    saved = read_settings(path, type(settings))
    for field in dataclasses.fields(Settings):
        old, new = getattr(saved, field.name), getattr(settings, field.name)
        if field.name not in _FREE_ON_RESUME and old != new:
            flag = "--" + field.name.replace("_", "-")
            raise UsageError(
                f"{flag} is {new!r}, but {path} was trained with {old!r}.\n"
                f"Leave {flag} out to go on with it, or train a new run in another --run-dir."
            )
    _check_same_data(dataset, read_json(path / "config.json")["dataset"], path)
    if (path / "summary.json").exists() and len(read_metrics(path)) >= epochs(settings, len(dataset.train)):
        raise UsageError(
            f"--run-dir {path} holds a finished run of {len(read_metrics(path))} epochs; nothing was changed.\n"
            "Give more --epochs to go on with it, or another --run-dir."
        )


def _check_same_data(dataset: Dataset, recorded: dict[str, Any], path: Path) -> None:
    if dataset.sha256 != recorded["sha256"]:
        raise UsageError(
            f"The data set {dataset.name} ({dataset.source}) differs from the one {path} was trained on.\n"
            "Give the same data by --data-dir, or train a new run in another --run-dir."
        )


def train_run(
    path: Path,
    model: AnyModel,
    settings: Settings,
    dataset: Dataset,
    *,
    resume: bool = False,
    on_start: Callable[[], None] | None = None,
    on_epoch: Callable[[TrainState, Row], None] | None = None,
) -> FitResult:
    """Train into a run directory: config, environment, a checkpoint and a row of metrics each epoch.

    Args:
        path: a directory that does not exist yet, or with `resume` the one to go on with.
        model: from `build_model`.
        settings: how; kept in config.json.
        dataset: train and validation split are used.
        resume: go on from the latest checkpoint.
        on_start: called when everything is compiled.
        on_epoch: called after each epoch with the state and the row.

    Raises:
        UsageError: the directory is not available, or does not fit the settings.
        RunError: the loss is not finite, or the disk refuses.
    """
    try:
        state, history = _resume(path, model, settings, dataset) if resume else _begin(path, settings, dataset)
        with Checkpoints(path) as checkpoints, open(path / "metrics.jsonl", "a", encoding="utf-8") as log:

            def record(state: TrainState, row: Row) -> None:
                checkpoints.save(state, row)
                log.write(json.dumps(row) + "\n")
                log.flush()
                if on_epoch:
                    on_epoch(state, row)

            return fit(
                model,
                dataset.train,
                dataset.validation,
                settings,
                state=state,
                history=history,
                on_start=on_start,
                on_epoch=record,
            )
    except OSError as error:
        raise RunError(
            f"Can't write to the run directory {path}: {error.strerror or error}.\n"
            "Make room or give another --run-dir; finished checkpoints go on with --resume."
        ) from error


def _begin(path: Path, settings: Settings, dataset: Dataset) -> tuple[None, list[Row]]:
    check_available(path)
    path.mkdir(parents=True, exist_ok=True)
    _write_config(path, settings, dataset)
    write_json(path / "environment.json", environment())
    return None, []


def _resume(path: Path, model: AnyModel, settings: Settings, dataset: Dataset) -> tuple[TrainState | None, list[Row]]:
    check_resumable(path, settings, dataset)
    optimizer = make_optimizer(settings, len(dataset.train))
    shapes = jax.eval_shape(lambda: init_state(model, optimizer, settings))
    with Checkpoints(path) as checkpoints:
        started = checkpoints.saved  # else it ended before the first checkpoint: go on from the beginning
        state = checkpoints.restore_state(checkpoints.latest_step, shapes) if started else None
    done = int(state.step) if state else 0
    history = [row for row in read_metrics(path) if row["step"] <= done]
    with replacing(path / "metrics.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in history), encoding="utf-8")
    (path / "summary.json").unlink(missing_ok=True)
    _write_config(path, settings, dataset)
    return state, history


def _write_config(path: Path, settings: Settings, dataset: Dataset) -> None:
    settings_dict = dataclasses.asdict(settings)
    content = {"schema": SCHEMA_VERSION, "settings": settings_dict, "dataset": describe(dataset)}
    write_json(path / "config.json", content)
