"""The latent grid after each epoch, kept on disk until it is a frame of the GIF."""

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax import archives, plots
from vae_jax.cli.figures import decode_grid
from vae_jax.data.dataset import Split
from vae_jax.files import replacing
from vae_jax.models.autoencoders import AnyModel, Parameters
from vae_jax.models.codes import Codes
from vae_jax.models.evaluation import encode_images
from vae_jax.plots import animation


class Progress:
    """The latent grid after each epoch (at most 50 of them), for the GIF."""

    def __init__(self, model: AnyModel, validation: Split, key: Any, binarize: str, number: int, figures: Path):
        """Watch a training run of `number` epochs, whose figures go to that folder."""
        self._model, self._images = model, validation.images[:500]
        self._key, self._binarize = key, binarize
        self._every = -(-number // 50)
        self._last = number
        self._gif, self._kept = figures / "training_progress.gif", figures / ".progress"
        self.grids: dict[int, np.ndarray] = {}
        self._axes: dict[int, str] = {}

    def add(self, params: Parameters, epoch: int) -> None:
        """Decode the grid of an epoch, if it is one that the GIF shows, and keep it on disk until the GIF is there."""
        if epoch % self._every == 0 or epoch == self._last:
            codes = Codes.of(*encode_images(self._model, params, self._images, self._key, binarize=self._binarize))
            grid = decode_grid(self._model, params, codes, 15)
            self._axes[epoch] = ""
            if self._model.latent_dim > 2:  # the two most informative ones may be others in each epoch
                across, up = (name.translate(str.maketrans("", "", "${}_")) for name in grid.axis_names)
                self._axes[epoch] = f"; {across} to the right, {up} upward"
            self.grids[epoch] = np.rint(plots.tile(grid.images[::-1]) * 255).astype(np.uint8)
            self._kept.mkdir(parents=True, exist_ok=True)
            with replacing(self._kept / f"{epoch}.npz") as temporary, open(temporary, "wb") as file:
                np.savez(file, grid=self.grids[epoch], axes=self._axes[epoch])

    def recover(self) -> None:
        """Take over the grids of an interrupted run, and of a finished one that goes on from its GIF."""
        # Without them the GIF only begins later, so a damaged one is no reason to stop.
        with contextlib.suppress(OSError, ValueError):
            self.grids |= animation.read_progress_grids(self._gif)
        for file in self._kept.glob("*.npz"):
            with contextlib.suppress(*archives.UNREADABLE, KeyError):
                kept, _ = archives.read_arrays(file)
                self.grids[int(file.stem)], self._axes[int(file.stem)] = kept["grid"], str(kept["axes"])

    def write(self, rows: Sequence[dict[str, Any]], title: str) -> None:
        """Write the GIF with the validation loss of each epoch."""
        captions = {
            row["epoch"]: f"epoch {row['epoch']}: validation loss {row['validation']['loss']:.2f}"
            + self._axes.get(row["epoch"], "")
            for row in rows
        }
        grids = {epoch: grid for epoch, grid in self.grids.items() if epoch in captions}
        if grids:
            animation.write_progress_gif(self._gif, grids, captions, title)

    def forget(self) -> None:
        """Remove the grids that were kept, now that the run is finished."""
        shutil.rmtree(self._kept, ignore_errors=True)
