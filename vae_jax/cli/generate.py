"""New images: `vae-jax generate RUN --number 16 --output FOLDER`."""

import dataclasses
from pathlib import Path

from vae_jax.cli.command import RunConfig, free_output
from vae_jax.cli.images import REMEDY, as_bytes, new_folder, shown_as, write_png
from vae_jax.domains import at_least, non_negative, seed_field
from vae_jax.errors import counted
from vae_jax.files import replacing, writing


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Draw new images from a run, as PNG files or as one sheet.

    The latents are those of the prior; of an AE, which has none, of a Gaussian fitted to its validation images' codes.
    """

    number: int = at_least(1, 16, most=10_000)
    """Of images."""
    temperature: float = non_negative(1.0, most=100)
    """Multiplies how far the latents spread: below 1 the images are more typical and more alike."""
    seed: int = seed_field()
    """Of the draws."""
    output: Path | None = None
    """The folder to write, or for one sheet of all images a name that ends in .png. Default: the run's name with
    -generated, beside it."""
    data_dir: Path | None = None
    """Where the run's data lies, if no longer where the run found it; read for an AE only."""


def run(config: Config) -> Path:
    """Draw, write the files and print where."""
    output = free_output(config.output, config.run, "-generated", "", ".png")
    # Here, as they import JAX, which --help and a bad flag do not wait for.
    from vae_jax.runs.run import load_dataset_of, load_run

    restored, codes = load_run(config.run), None
    if not restored.model.stochastic:
        codes = restored.encode(load_dataset_of(restored, config.data_dir).validation.images)
    images = restored.generate(config.number, seed=config.seed, temperature=config.temperature, codes=codes)
    if output.suffix.lower() == ".png":
        from vae_jax.plots import sheets

        with writing(output, REMEDY), replacing(output) as temporary:
            write_png(temporary, as_bytes(sheets.tile(sheets.fold(images), images.shape[1:3])))
    else:
        with new_folder(output) as folder:
            for i, image in enumerate(as_bytes(images)):
                write_png(folder / f"{i}.png", image)
    print(f"{counted(config.number, 'new image')}: {output}{shown_as(restored.model.image_shape)}")
    return output
