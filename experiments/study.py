"""What the studies share: the folder that they write, the runs that they train or restore, figures and reports."""

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from experiments.flags import StudyConfig
from vae_jax import plots
from vae_jax.cli.command import START
from vae_jax.cli.figures import DISPLAY_NAMES
from vae_jax.cli.outputs import make_folder
from vae_jax.config import Settings, epochs
from vae_jax.data.dataset import Dataset
from vae_jax.errors import UsageError, counted
from vae_jax.files import LOCK, locked, replacing
from vae_jax.models.autoencoders import build_model
from vae_jax.models.conditions import conditions_of
from vae_jax.runs.environment import device_name, write_environment
from vae_jax.runs.folders import check_same_settings, fresh_path, has_begun
from vae_jax.runs.preflight import check_trainable
from vae_jax.runs.records import read_json, write_json
from vae_jax.runs.run import Run, load_run
from vae_jax.runs.together import train_runs


@dataclasses.dataclass(frozen=True)
class Study:
    """A study that has begun."""

    name: str
    config: StudyConfig
    dataset: Dataset
    path: Path
    """Its folder."""
    figures: list[str] = dataclasses.field(default_factory=list)
    """Those that were drawn."""

    @property
    def title(self) -> str:
        """What titles call the data."""
        return DISPLAY_NAMES.get(self.dataset.name, self.dataset.name)

    def train(self, members: Mapping[str, Settings], together: bool = False) -> dict[str, Run]:
        """The runs of these settings, by the names of their folders: restored, or trained one by one or together."""
        groups = [[*members]] if together else [[name] for name in members]
        runs: dict[str, Run] = {}
        for names in groups:
            found = trained_together([self.path / name for name in names], [members[n] for n in names], self.dataset)
            runs |= zip(names, found, strict=True)
        return runs

    def draw(self, name: str, figure: Figure) -> None:
        """Save a figure under this name among the study's."""
        path = self.path / "figures" / name
        path.parent.mkdir(exist_ok=True)
        plots.save(figure, path)
        self.figures.append(str(path))

    def finish(self, text: str, **numbers: Any) -> dict[str, Any]:
        """Print the report, write it as report.md, and the numbers as summary.json; gives the summary back."""
        seconds = time.perf_counter() - START
        summary = {
            "study": self.name,
            "dataset": self.dataset.name,
            "sha256": self.dataset.sha256,
            "flags": self.config.flags(),
            **numbers,
            "figures": self.figures,
            "seconds": seconds,
            "device": device_name(),
        }
        write_json(self.path / "summary.json", summary)
        with replacing(self.path / "report.md") as temporary:
            temporary.write_text(text.rstrip() + "\n", encoding="utf-8")
        print(f"\n{text.rstrip()}\n\n{seconds:.0f} seconds in all; report, numbers and figures in {self.path}")
        return summary


def begin(
    config: StudyConfig, name: str, dataset: Dataset, members: Collection[Settings] = (), together: int = 1
) -> Study:
    """Open the study's folder and write study.json: which study of which data.

    Args:
        config: the study's flags.
        name: the study's.
        dataset: its data.
        members: settings of the models to train, which are checked before anything is written.
        together: how many of them are trained in one program at most.

    Raises:
        UsageError: a model can't be trained; --output can't be used, or holds another study or one of other data.
    """
    for settings in {dataclasses.replace(each, seed=0) for each in members}:
        check_trainable(settings, dataset, together)
    path = config.output or fresh_path(f"{dataset.name}-{name}")
    path = open_folder(path, name, dataset.name, dataset.sha256)
    images = counted(len(dataset.train), "training image")
    print(f"{dataset.name}: {images} from {dataset.source}; writing {path}", flush=True)
    return Study(name, config, dataset, path)


def open_folder(path: Path, name: str, dataset: str, sha256: str) -> Path:
    """Make the folder of a study, or take over one that is its own: study.json says which, and of which data.

    Raises:
        UsageError: it can't be used, or holds another study or one of other data.
    """
    file = path / "study.json"
    if path.is_dir() and any(path.iterdir()) and not file.exists():
        raise UsageError(f"--output {path} holds files of something else. Give a folder that does not exist yet.")
    path = make_folder(path)
    if not file.exists():
        write_json(file, {"study": name, "dataset": dataset, "sha256": sha256})
        write_environment(path)
        return path
    saved = read_study(path)
    if (saved["study"], saved["sha256"]) != (name, sha256):
        raise UsageError(
            f"--output {path} holds the study {saved['study']} of {saved['dataset']}. Give another folder."
        )
    return path


def read_study(path: Path) -> dict[str, Any]:
    """What study.json says.

    Raises:
        UsageError: it is damaged.
    """
    remedy = "Give another --output."
    content = read_json(path / "study.json", remedy)
    names = ("study", "dataset", "sha256")
    if not (isinstance(content, dict) and all(isinstance(content.get(name), str) for name in names)):
        raise UsageError(f"{path / 'study.json'} is damaged: it must hold {', '.join(names)}.\n{remedy}")
    return {name: content[name] for name in names}


def check_alike(runs: Sequence[Run], properties: Mapping[str, Callable[[Run], Any]]) -> None:
    """Refuse runs that differ.

    Args:
        runs: those that a user gave.
        properties: by name, in what they must not differ.

    Raises:
        UsageError: naming the first two that do, and in what.
    """
    for run in runs[1:]:
        for name, of in properties.items():
            if of(run) != of(runs[0]):
                raise UsageError(f"{run.path} has another {name} than {runs[0].path}: {of(run)} and {of(runs[0])}.")


def data_of(run: Run) -> str:
    """The name and the first digits of the fingerprint of a run's data."""
    return f"{run.dataset['name']} ({run.dataset['sha256'][:8]})"


def trained_together(paths: Sequence[Path], members: Sequence[Settings], dataset: Dataset) -> list[Run]:
    """The runs at `paths`, one for each of the settings: the finished ones restored, the others trained together.

    Raises:
        UsageError: one was trained with other settings or data, naming the difference.
    """
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


def _train(paths: Sequence[Path], members: Sequence[Settings], dataset: Dataset) -> None:
    for path, settings in zip(paths, members, strict=True):
        _remove_unfinished(path, settings, dataset)
    model = build_model(members[0], dataset.image_shape, conditions_of(members[0], dataset))
    name = paths[0].name if len(paths) == 1 else f"{paths[0].name} to {paths[-1].name}"
    number = epochs(members[0], max(len(dataset.train.positions(member.classes)) for member in members))
    for one in train_runs(paths, model, members, dataset, on_epoch=partial(print_epoch, name, number)):
        if one.summary and "diagnosis" in one.summary:
            print(f"{one.path.name}: {one.summary['diagnosis']}", flush=True)


def _remove_unfinished(path: Path, settings: Settings, dataset: Dataset) -> None:
    # What a study that was interrupted left: a run with these very settings, and nothing else is ever removed.
    if not has_begun(path):
        return
    if not (path / "config.json").exists():
        raise UsageError(f"{path} holds files that are no run; nothing was changed. Give another --output.")
    check_same_settings(path, settings, dataset)
    for child in path.iterdir():
        if child.name != LOCK:  # which this study holds
            shutil.rmtree(child) if child.is_dir() else child.unlink()


def print_epoch(name: str, number: int, rows: list[dict[str, Any]]) -> None:
    """One line of an epoch: `name` of the runs, which have `number` epochs, and the row of each."""
    losses = [row["validation"]["loss"] for row in rows]
    found = f"{losses[0]:.2f}" if len(rows) == 1 else f"from {min(losses):.2f} to {max(losses):.2f}"
    rate = sum(row["images_per_second"] for row in rows)
    left = (number - rows[0]["epoch"]) * rows[0]["seconds"]
    print(
        f"{name}: epoch {rows[0]['epoch']}/{number}, validation loss {found}, {rate:,.0f} images/s, {left:.0f} s left",
        flush=True,
    )
