"""Encode images: `vae-jax encode RUN IMAGES --output z.csv`."""

import dataclasses
from pathlib import Path

import numpy as np

from vae_jax.cli.images import LabelledConfig, inferred_names, load, write_npz, write_table
from vae_jax.cli.outputs import free_output
from vae_jax.errors import counted


@dataclasses.dataclass(frozen=True)
class Config(LabelledConfig):
    """Encode images with a run: the latent means, a row an image, in a .csv or .npz file."""

    output: Path | None = None
    """A name that ends in .csv, for a table of file or index, z1, z2, ..., label; or in .npz, for the arrays means,
    logvars (of a VAE), labels, classes (that a run infers) and files. Default: the images' name with -codes.csv, beside
    them."""


def run(config: Config) -> Path:
    """Encode, write the file and print its path."""
    output = free_output(config.output, config.images, "-codes.csv", ".csv", ".npz")
    loaded = load(config)
    restored, split, classes, labels = loaded
    codes = restored.encode(split.images, labels)
    if output.suffix.lower() == ".csv":
        write_table(output, loaded, {f"z{dim + 1}": column for dim, column in enumerate(codes.means.T)})
    else:
        files = None if split.files is None else np.array(split.files)
        taken_for = inferred_names(loaded)
        write_npz(output, means=codes.means, logvars=codes.logvars, labels=classes, classes=taken_for, files=files)
    print(f"{counted(len(split), 'image')}, {counted(codes.means.shape[1], 'number')} each: {output}")
    return output
