"""New images: `vae-jax generate RUN --number 16 --output FOLDER`."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.cli.command import RunConfig
from vae_jax.cli.images import REMEDY, as_bytes, check_conditional, class_of, new_folder, shown_as, write_png
from vae_jax.cli.outputs import free_output
from vae_jax.domains import at_least, non_negative, seed_field
from vae_jax.errors import counted
from vae_jax.files import replacing, writing


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Draw new images from a run, as PNG files or as one sheet.

    The latents are those of the prior; of an AE without one, of a Gaussian fitted to its validation images' codes.
    """

    number: int = at_least(1, 16, most=10_000)
    """Of images."""
    label: str | None = None
    """Of a conditional run the class of the images, by name or number. Default: all classes in turn."""
    temperature: float = non_negative(1.0, most=100)
    """Multiplies how far the latents spread: below 1 the images are more typical and more alike."""
    seed: int = seed_field()
    """Of the draws."""
    output: Path | None = None
    """The folder to write, or for one sheet of all images a name that ends in .png. Default: the run's name with
    -generated, beside it."""
    data_dir: Path | None = None
    """Where the run's data lies, if no longer where the run found it; read for an AE without a prior only."""


def run(config: Config) -> Path:
    """Draw, write the files and print where."""
    output = free_output(config.output, config.run, "-generated", "", ".png")
    # Here, as they import JAX, which --help and a bad flag do not wait for.
    from vae_jax.runs.run import load_dataset_of, load_run

    restored, codes = load_run(config.run), None
    check_conditional(restored, config.label)
    if not restored.model.prior.has_density:
        part = load_dataset_of(restored, config.data_dir).validation
        codes = restored.encode(part.images, part.labels)
    label, names = None if config.label is None else class_of(restored, config.label), list(restored.classes)
    options: Any = {"seed": config.seed, "temperature": config.temperature, "codes": codes}
    images = restored.generate(config.number, label=label, **options)
    if label is not None:
        names = [name for name, known in restored.classes.items() if label in (name, known)]
    if output.suffix.lower() == ".png":
        _write_sheet(output, images, names)
    else:
        endings = ["-" + re.sub(r"[^-.@\w]+", "_", name)[:60] for name in names] or [""]
        with new_folder(output) as folder:
            for i, image in enumerate(as_bytes(images)):
                write_png(folder / f"{i}{endings[i % len(endings)]}.png", image)
    of = f" of {names[0]}" if label is not None else f", {counted(len(names), 'class')} in turn" if names else ""
    print(f"{counted(config.number, 'new image')}{of}: {output}{shown_as(restored.model.image_shape)}")
    return output


def _write_sheet(path: Path, images: np.ndarray, names: list[str]) -> None:
    # Of several classes a row for each, with its name.
    from vae_jax import plots
    from vae_jax.plots import sheets

    with writing(path, REMEDY), replacing(path) as temporary:
        rows = min(len(names), len(images))
        if rows < 2:
            write_png(temporary, as_bytes(sheets.tile(sheets.fold(images), images.shape[1:3])))
            return
        by_class = sheets.fold(images, rows).swapaxes(0, 1)
        plots.save(plots.conditions(by_class, names[:rows], ""), temporary)
