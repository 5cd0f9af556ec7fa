"""What the commands on a user's images share: their flags, what is read, tables with a row an image, PNG files."""

import contextlib
import csv
import dataclasses
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np

from vae_jax.cli.command import RunConfig
from vae_jax.domains import shortened
from vae_jax.errors import UsageError
from vae_jax.files import replacing, writing

if TYPE_CHECKING:
    from vae_jax.data.split import Split
    from vae_jax.runs.run import Run

REMEDY = "Make room, or write it elsewhere."


@dataclasses.dataclass(frozen=True)
class ImagesConfig(RunConfig):
    """The flags of every command on a user's images."""

    images: Annotated[Path, "positional"]
    """A folder of pictures or one picture, which become images as the run's own did; or an .npz or .npy file, of the
    size that the run was trained on."""
    skip_damaged: bool = dataclasses.field(default=False, kw_only=True)
    """Leave out the files of a folder that can't be read, in place of refusing the folder."""


@dataclasses.dataclass(frozen=True)
class LabelledConfig(ImagesConfig):
    """The flags of every command that encodes a user's images."""

    label: str | None = dataclasses.field(default=None, kw_only=True)
    """For a conditional run the class of all the images, by name or number. Default: that which the images have, such
    as the names of the folders that they lie in; of a run with --condition inferred, what it infers."""


class Loaded(NamedTuple):
    """A run, and a user's images as it takes them."""

    run: "Run"
    split: "Split"
    classes: np.ndarray | None
    """The class of each image, where it is known: its name, or its label where it has none."""
    labels: np.ndarray | None
    """Of each image, as a conditional run knows it; None of another run."""


def load(config: ImagesConfig, check: "Callable[[Run], None] | None" = None) -> Loaded:
    """The run and the images; `check` refuses runs before the images are read."""
    # Here, as they import JAX, which --help and a bad flag do not wait for; so in every command.
    from vae_jax.data.loading import read_images
    from vae_jax.runs.run import load_run

    run = load_run(config.run)
    if check:
        check(run)
    as_then: Any = {"pictures": run.pictures, "background": run.config.background}
    split, names = read_images(config.images, run.model.image_shape, skip_damaged=config.skip_damaged, **as_then)
    classes = split.labels if names is None or split.labels is None else np.array(names)[split.labels]
    labels = None
    if isinstance(config, LabelledConfig):
        if run.model.infers and config.label is None:
            labels = run.told(split.images)
        else:
            labels = labels_for(run, config.label, classes, len(split), config.images)
    return Loaded(run, split, classes, labels)


def labels_for(
    run: "Run", label: str | None, classes: np.ndarray | None, number: int, images: Path
) -> np.ndarray | None:
    """The labels of so many images for a conditional run, from --label or else their own classes; None for another run.

    Raises:
        UsageError: there are none, one that the run does not know, or --label has no effect.
    """
    if not run.model.classes:
        check_conditional(run, label)
        return None
    if label is None and classes is None:
        raise UsageError(
            f"{images} must say the class of each image, as {run.path} was trained with --condition, got none.\n"
            f"Give --label, one of {shortened(', '.join(run.classes), 200)}, or a folder with a folder for each class."
        )
    return run.labels_of(classes if label is None else class_of(run, label), number)


def class_of(run: "Run", label: str) -> str | int:
    """A class as a command line gives it: its name, or else its number.

    Raises:
        UsageError: the run does not know it.
    """
    if label in run.classes:
        return label
    if (number := next((known for known in run.model.classes if str(known) == label), None)) is None:
        raise UsageError(
            f"--label must be a class that {run.path} knows, got {label[:60]!r}.\n"
            f"It knows {shortened(', '.join(run.classes), 200)}."
        )
    return number


def check_conditional(run: "Run", label: str | None) -> None:
    """Refuse --label for a run that knows no classes."""
    if label is not None and not run.model.classes:
        raise UsageError(
            f"--label {label} has no effect: {run.path} was trained without --condition.\nLeave --label out."
        )


def inferred_names(loaded: Loaded) -> np.ndarray | None:
    """The names of the classes that images were taken for, of a run that infers them."""
    if not loaded.run.model.infers or loaded.labels is None:
        return None
    names = {label: name for name, label in loaded.run.classes.items()}
    return np.array([names[label] for label in np.asarray(loaded.labels).tolist()])


def write_table(path: Path, loaded: Loaded, columns: Mapping[str, np.ndarray]) -> None:
    """Write a CSV file with a row an image: its file, or its position; the columns; its class, if it is known.

    Of a run that infers classes also the class that the images were taken for.

    Args:
        path: the file.
        loaded: the images.
        columns: by name, an array [n] each; numbers are written with the nine digits that give back every float32.
    """
    files = loaded.split.files
    first = {"index": range(len(loaded.split))} if files is None else {"file": files}
    last = {} if loaded.classes is None else {"label": loaded.classes.tolist()}
    if (taken_for := inferred_names(loaded)) is not None:
        last["class"] = taken_for.tolist()
    table = {**first, **{name: column.tolist() for name, column in columns.items()}, **last}
    text: Any = {"encoding": "utf-8", "errors": "surrogateescape"}  # a file's name may be of any bytes
    with writing(path, REMEDY), replacing(path) as temporary, temporary.open("w", newline="", **text) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(table)
        for row in zip(*table.values(), strict=True):
            writer.writerow(f"{value:.9g}" if isinstance(value, float) else value for value in row)


def write_npz(path: Path, **arrays: np.ndarray | None) -> None:
    """Write an .npz file of those that are not None."""
    with writing(path, REMEDY), replacing(path) as temporary, temporary.open("wb") as file:
        # Given a name in place of a file, savez would append .npz to it.
        np.savez(file, **{name: array for name, array in arrays.items() if array is not None})  # type: ignore[arg-type]


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a folder to write into, which becomes `path` once everything is there."""
    with writing(path, REMEDY), replacing(path) as temporary:
        temporary.mkdir()
        try:
            yield temporary
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def png_names(split: "Split") -> list[str]:
    """A name for each image's PNG file: that of its own file, or its position."""
    if split.files is None:
        return [f"{i}.png" for i in range(len(split))]
    short = [str(PurePath(file).with_suffix("")) for file in split.files]
    return [f"{name}.png" for name in (short if len(set(short)) == len(short) else split.files)]


def as_bytes(images: np.ndarray) -> np.ndarray:
    """Images in [0, 1] as unsigned bytes; what lies outside is clipped."""
    return np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8)


def shown_as(shape: Sequence[int]) -> str:
    """What a PNG file shows of images of this shape, to be said behind where they lie."""
    channels = shape[-1]
    if channels in (1, 3):
        return ""
    return ", channel 1 of 2 in grey" if channels == 2 else f", channels 1 to 3 of {channels} as red, green and blue"


def write_png(path: Path, image: np.ndarray) -> None:
    """Write an image of unsigned bytes, [height, width, channels]: in grey or colour, of what `shown_as` says."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image[..., :3] if image.shape[-1] > 2 else image[..., 0]).save(path, "PNG")
