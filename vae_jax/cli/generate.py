"""New images: `vae-jax generate RUN --number 16 --output FOLDER`."""

import dataclasses
import math
from pathlib import Path

import numpy as np

from vae_jax.cli.command import RunConfig, free_output
from vae_jax.cli.images import as_bytes, new_folder, shown_as, write_png
from vae_jax.domains import at_least, seed_field
from vae_jax.files import replacing


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Draw new images from a run, as PNG files or as one sheet.

    The latents are those of the prior; of an AE, which has none, of a Gaussian fitted to its validation images' codes.
    """

    number: int = at_least(1, 16, most=10_000)
    """Of images."""
    seed: int = seed_field()
    """Of the draws."""
    output: Path | None = None
    """The folder to write, or for one sheet of all images a name that ends in .png. Default: the run's name with
    -generated, beside it."""
    data_dir: Path | None = None
    """Where the run's data lies, if no longer where the run found it; read for an AE only."""


def run(config: Config) -> Path:
    """Draw, write the files and print where."""
    output = free_output(config.output, config.run, "-generated", ("", ".png"))
    # Here, as they import JAX, which --help and a bad flag do not wait for.
    from vae_jax.runs.run import load_dataset_of, load_run

    restored, codes = load_run(config.run), None
    if not restored.model.stochastic:
        codes = restored.encode(load_dataset_of(restored, config.data_dir).validation.images)
    images = as_bytes(restored.generate(config.number, seed=config.seed, codes=codes))
    if output.suffix == ".png":
        with replacing(output) as temporary:
            write_png(temporary, _sheet(images))
    else:
        with new_folder(output) as folder:
            for i, image in enumerate(images):
                write_png(folder / f"{i}.png", image)
    print(f"{config.number:,} new images: {output}{shown_as(restored.model.image_shape)}")
    return output


def _sheet(images: np.ndarray) -> np.ndarray:
    # Row by row, as nearly square as their number allows; white where there are no more.
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    _, height, width, channels = images.shape
    tiles = np.full((rows * columns, height, width, channels), 255, np.uint8)
    tiles[: len(images)] = images
    laid = tiles.reshape(rows, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
    return laid.reshape(rows * height, columns * width, channels)
