"""What the studies share: where they write, the runs that they train or restore, tables and reports."""

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vae_jax.cli.command import START, where_found
from vae_jax.config import Settings
from vae_jax.errors import UsageError

if TYPE_CHECKING:
    from vae_jax.data.dataset import Dataset
    from vae_jax.runs.run import Run


@dataclasses.dataclass(frozen=True)
class StudyConfig:
    """The flags of every study."""

    dataset: str | None = None
    """mnist, fashion_mnist, kmnist, digits, another prepared TFDS data set, or the path of an .npz
    or .npy file or a folder of images. Default: mnist, and digits where mnist can't be had."""
    data_dir: Path | None = None
    """Where the data lies. Default: the environment variable VAE_JAX_DATA_DIR."""
    output: Path | None = None
    """Folder for the report, the figures and the runs. Default: a new one under runs/. Of a folder that holds
    this study already, the finished runs are taken over."""
    compilation_cache: bool = True
    """Keep compiled programs in the user's cache directory, so that the next start is fast."""

    def settings(self, dataset: "Dataset", **changes: Any) -> Settings:
        """The settings of a run on this data, which it finds again from any other folder."""
        name, folder = where_found(self.dataset, self.data_dir, dataset.name)
        return Settings(dataset=name, data_dir=folder, **changes)


def open_output(config: StudyConfig, name: str) -> Path:
    """The study's folder, made where it is missing.

    Raises:
        UsageError: --output is a file, can't be made, or holds something else.
    """
    from vae_jax.runs.run import fresh_path

    if config.output is None:
        return fresh_path(name)
    path = config.output
    if path.exists() and not path.is_dir():
        raise UsageError(f"--output {path} is a file. Give a folder that does not exist yet.")
    if path.exists() and any(path.iterdir()) and not (path / "study.json").exists():
        raise UsageError(f"--output {path} holds files of something else. Give a folder that does not exist yet.")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"--output must be a folder that can be made, got {str(path)!r} ({error.strerror})."
        ) from error
    return path


def begin(
    config: StudyConfig, study: str, dataset: "Dataset", members: Sequence[Settings] = (), together: int = 1
) -> Path:
    """Open the study's folder and write study.json: which study of which data.

    Args:
        config: the study's flags.
        study: its name.
        dataset: its data.
        members: settings of the models to train, which are checked before anything is written.
        together: how many of them are trained in one program at most.

    Raises:
        UsageError: a model can't be trained; --output can't be used, or holds another study or one of other data.
    """
    from vae_jax.runs.preflight import check_trainable
    from vae_jax.runs.records import write_environment, write_json

    for settings in {dataclasses.replace(each, seed=0) for each in members}:
        check_trainable(settings, dataset, together)
    path = open_output(config, f"{dataset.name}-{study}")
    file = path / "study.json"
    if file.exists():
        saved = read_study(path)
        if (saved["study"], saved["sha256"]) != (study, dataset.sha256):
            raise UsageError(
                f"--output {path} holds the study {saved['study']} of {saved['dataset']}. Give another folder."
            )
    else:
        write_json(file, {"study": study, "dataset": dataset.name, "sha256": dataset.sha256})
        write_environment(path)
    print(f"{dataset.name}: {len(dataset.train):,} training images from {dataset.source}; writing {path}", flush=True)
    return path


def read_study(path: Path) -> dict[str, Any]:
    """What study.json says.

    Raises:
        UsageError: it is damaged.
    """
    from vae_jax.runs.records import read_json

    remedy = "Give another --output."
    content = read_json(path / "study.json", remedy)
    names = ("study", "dataset", "sha256")
    if not (isinstance(content, dict) and all(isinstance(content.get(name), str) for name in names)):
        raise UsageError(f"{path / 'study.json'} is damaged: it must hold {', '.join(names)}.\n{remedy}")
    return {name: content[name] for name in names}


def trained(path: Path, settings: Settings, dataset: "Dataset") -> "Run":
    """The run at `path`: restored where it is finished with these settings, else trained, line by line.

    Raises:
        UsageError: it was trained with other settings or data, naming the difference.
    """
    return trained_together([path], [settings], dataset)[0]


def trained_together(paths: Sequence[Path], members: Sequence[Settings], dataset: "Dataset") -> list["Run"]:
    """The runs at `paths`, one for each of the settings: the finished ones restored, the others trained together.

    Raises:
        UsageError: one was trained with other settings or data, naming the difference.
    """
    from vae_jax.files import locked
    from vae_jax.runs.run import check_same_settings, load_run

    with contextlib.ExitStack() as locks:
        for path in paths:  # until its summary is written: another study must not take it for unfinished
            locks.enter_context(locked(path))
        missing = []
        for path, settings in zip(paths, members, strict=True):
            if (path / "summary.json").exists():
                check_same_settings(path, settings, dataset)
                print(f"restored {path}", flush=True)
            else:
                missing.append((path, settings))
        if missing:
            _train([path for path, _ in missing], [settings for _, settings in missing], dataset)
    return [load_run(path) for path in paths]


def _train(paths: Sequence[Path], members: Sequence[Settings], dataset: "Dataset") -> None:
    from vae_jax.config import epochs
    from vae_jax.models.autoencoders import build_model
    from vae_jax.runs.recording import train_runs

    for path, settings in zip(paths, members, strict=True):
        _remove_unfinished(path, settings, dataset)
    model = build_model(members[0], dataset.image_shape)
    name = paths[0].name if len(paths) == 1 else f"{paths[0].name} to {paths[-1].name}"
    number = epochs(members[0], max(len(dataset.train.positions(member.classes)) for member in members))
    train_runs(paths, model, members, dataset, on_epoch=partial(_print_epoch, name, number))
    for path in paths:
        _summarise(path, dataset)


def _remove_unfinished(path: Path, settings: Settings, dataset: "Dataset") -> None:
    # What a study that was interrupted left: a run with these very settings, and nothing else is ever removed.
    from vae_jax.files import LOCK
    from vae_jax.runs.run import check_same_settings, has_begun

    if not has_begun(path):
        return
    if not (path / "config.json").exists():
        raise UsageError(f"{path} holds files that are no run; nothing was changed. Give another --output.")
    check_same_settings(path, settings, dataset)
    for child in path.iterdir():
        if child.name != LOCK:  # which this study holds
            shutil.rmtree(child) if child.is_dir() else child.unlink()


def _print_epoch(name: str, number: int, rows: list[dict[str, Any]]) -> None:
    losses = [row["validation"]["loss"] for row in rows]
    found = f"{losses[0]:.2f}" if len(rows) == 1 else f"from {min(losses):.2f} to {max(losses):.2f}"
    rate = sum(row["images_per_second"] for row in rows)
    left = (number - rows[0]["epoch"]) * rows[0]["seconds"]
    print(
        f"{name}: epoch {rows[0]['epoch']}/{number}, validation loss {found}, {rate:,.0f} images/s, {left:.0f} s left",
        flush=True,
    )


def _summarise(path: Path, dataset: "Dataset") -> None:
    # What makes a run a finished one: its numbers on the test split.
    from vae_jax.cli.figures import Codes
    from vae_jax.models.autoencoders import count_parameters
    from vae_jax.models.evaluation import active_units, diagnose, evaluate
    from vae_jax.runs.records import device_name, write_json
    from vae_jax.runs.run import load_run

    run = load_run(path)
    images = dataset.test.of_classes(run.config.classes).images
    test = evaluate(
        *(run.model, run.params, images, run.evaluation_key),
        binarize=run.config.binarize,
        corruption=run.config.corruption,
        corruption_level=run.config.corruption_level,
    )
    codes, diagnosis = Codes.of(run, images), {}
    if codes.logvars is not None:
        test["active_units"] = int(active_units(codes.means).sum())
        diagnosis["diagnosis"] = diagnose(codes.kl(), codes.relative_sigma(), run.config.beta)
        print(f"{path.name}: {diagnosis['diagnosis']}", flush=True)
    summary = {
        "test": test,
        **diagnosis,
        "epochs": len(run.metrics),
        "steps": run.step,
        "training_seconds": sum(row["seconds"] for row in run.metrics),
        "parameters": count_parameters(run.params),
        "dataset": dataset.name,
        "device": device_name(),
    }
    write_json(path / "summary.json", summary)


def interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and half the width of its 95% interval by Student's t; None for a single value."""
    from scipy import stats

    mean, number = sum(values) / len(values), len(values)
    if number == 1:
        return mean, None
    variance = sum((value - mean) ** 2 for value in values) / (number - 1)
    return mean, float(stats.t.ppf(0.975, number - 1)) * (variance / number) ** 0.5


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns are aligned, so that it is readable on a screen too; numbers to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    right = [i > 0 for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True))
        return f"| {' | '.join(padded)} |"

    rule = "|".join("-" * (w + 1) + (":" if r else "-") for w, r in zip(widths, right, strict=True))
    return "\n".join([line(header), f"|{rule}|", *map(line, rows)])


def finish(path: Path, study: str, text: str, numbers: dict[str, Any]) -> dict[str, Any]:
    """Print the report, write it as report.md, and the numbers as summary.json; gives the summary back."""
    from vae_jax.files import replacing
    from vae_jax.runs.records import device_name, write_json

    seconds = time.perf_counter() - START
    summary = {"study": study, **numbers, "seconds": seconds, "device": device_name()}
    write_json(path / "summary.json", summary)
    with replacing(path / "report.md") as temporary:
        temporary.write_text(text.rstrip() + "\n", encoding="utf-8")
    print(f"\n{text.rstrip()}\n\n{seconds:.0f} seconds in all; report, numbers and figures in {path}")
    return summary
