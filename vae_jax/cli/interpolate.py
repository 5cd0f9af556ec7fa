"""From one picture to another: `vae-jax interpolate RUN A.png B.png`."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from vae_jax.cli.command import RunConfig
from vae_jax.cli.images import REMEDY, labels_for
from vae_jax.cli.outputs import free_output
from vae_jax.errors import UsageError, counted
from vae_jax.files import replacing, writing


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Decode the way from the code of one picture to that of another, as one sheet."""

    first: Annotated[Path, "positional"]
    """A picture of the size that the run was trained on."""
    second: Annotated[Path, "positional"]
    """A second one of that size."""
    interpolation: Literal["straight", "spherical", "both"] = "both"
    """Along the straight line between the codes, along the great circle about the origin, or one below the other."""
    label: str | None = None
    """For a conditional run the class of both pictures, by name or number."""
    output: Path | None = None
    """A name that ends in .png. Default: the first picture's name with -interpolated.png, beside it."""


def run(config: Config) -> Path:
    """Decode, draw and print where."""
    output = free_output(config.output, config.first, "-interpolated.png")
    # Here, as they import JAX, which --help and a bad flag do not wait for.
    from vae_jax.cli.figures import draw_ways, headline
    from vae_jax.data.loading import read_images
    from vae_jax.runs.run import load_run

    restored, ends = load_run(config.run), []
    for path in (config.first, config.second):
        as_then: Any = {"pictures": restored.pictures, "background": restored.config.background}
        split, _ = read_images(path, restored.model.image_shape, **as_then)
        if len(split) != 1:
            raise UsageError(f"{path} must be one picture, got {counted(len(split), 'image')}. Give one file.")
        ends.append(np.asarray(split.images))
    images = np.stack(ends, axis=1)
    if restored.model.infers and config.label is None:
        labels = restored.told(images[0])
    else:
        labels = labels_for(restored, config.label, None, 2, config.first)
    codes = restored.encode(images[0], labels).means[None]
    names = [f"{config.first.name[-20:]}\nto {config.second.name[-20:]}"]
    with writing(output, REMEDY), replacing(output) as temporary:
        title = (headline(restored, None), "two pictures")
        draw_ways(restored, images, codes, config.interpolation, names, title, temporary, labels)
    print(output)
    return output
