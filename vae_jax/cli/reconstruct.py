"""Encode and decode images: `vae-jax reconstruct RUN IMAGES --output FOLDER`."""

import dataclasses
from pathlib import Path

import numpy as np

from vae_jax.cli.images import LabelledConfig, as_bytes, load, new_folder, png_names, shown_as, write_png, write_table
from vae_jax.cli.outputs import free_output
from vae_jax.errors import counted


@dataclasses.dataclass(frozen=True)
class Config(LabelledConfig):
    """Reconstruct images with a run: PNG files, the original on the left, and a table of their PSNR in dB.

    A denoising autoencoder takes the noise out of them. Under a likelihood of 8-bit pixels the table has their bits per
    dimension, too.
    """

    output: Path | None = None
    """The folder to write. Default: the images' name with -reconstructed, beside them."""


def run(config: Config) -> Path:
    """Reconstruct, write the files and print the folder."""
    output = free_output(config.output, config.images, "-reconstructed")
    loaded = load(config)
    restored, split = loaded.run, loaded.split
    # After `load`, as it imports JAX.
    from vae_jax.models.quality import bits_per_dim, has_bits_per_dim, psnr

    rebuilt = np.clip(restored.reconstruct(split.images, loaded.labels), 0, 1)
    quality = psnr(split.images.astype(np.float32) / 255, rebuilt)
    columns = {"psnr": quality}
    if has_bits_per_dim(restored.model):
        losses = restored.losses(split.images, loaded.labels)
        columns["bits_per_dim"] = bits_per_dim(restored.model, losses.reconstruction.astype(np.float64) + losses.kl)
    with new_folder(output) as folder:
        for name, *pair in zip(png_names(split), split.images, as_bytes(rebuilt), strict=True):
            write_png(folder / name, np.concatenate(pair, axis=1))
        write_table(folder / "reconstruct.csv", loaded, columns)
    if restored.config.corruption == "none":
        print(f"{config.run} was trained on clean images: to take noise out of yours, train one with --corruption.")
    said = f"{counted(len(split), 'image')}, mean PSNR {quality.mean():.2f} dB: {output}"
    print(said + shown_as(restored.model.image_shape))
    return output
