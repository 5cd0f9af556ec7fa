"""What is seen of a run while it trains: a bar, and the latent grids that become the frames of the GIF."""

import contextlib
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from vae_jax import archives, plots
from vae_jax.cli.command import START
from vae_jax.cli.grids import decode_grid
from vae_jax.cli.track import NoTracker
from vae_jax.config import epochs
from vae_jax.data.dataset import Dataset
from vae_jax.errors import counted
from vae_jax.files import replacing
from vae_jax.models.autoencoders import Parameters
from vae_jax.plots import animation
from vae_jax.plots.sheets import number_within, side_within
from vae_jax.runs.records import read_metrics
from vae_jax.runs.run import Run
from vae_jax.training.fit import PACE_SECONDS
from vae_jax.training.recipe import Recipe

_UNITS = ((86400, "days"), (3600, "hours"), (60, "minutes"), (1, "seconds"))
_FRAME_PIXELS = 2**18
_PIXELS = 2**24
"""Of all images of the frames, as of `sheets.PIXELS`."""


class Progress:
    """A bar on the terminal, one line an epoch where there is none, and the latent grids of some epochs for the GIF.

    These are at most 50 of 15 images a side, and fewer and smaller ones of large images.
    """

    def __init__(self, recipe: Recipe, dataset: Dataset, path: Path, tracker: NoTracker):
        """Watch the training of the run at that path, and tell the tracker."""
        self.tracker = tracker
        self._run = Run(path, recipe.model, {}, recipe.settings, [], {"name": dataset.name}, None, 0)
        shape = recipe.model.image_shape
        self._part = dataset.validation.rows(slice(number_within(shape, 500, least=50)))
        self._last = epochs(recipe.settings, recipe.images)
        self._side = side_within(shape, 15, _FRAME_PIXELS)
        frames = number_within(shape, 50 * self._side**2, pixels=_PIXELS) // self._side**2
        self._every = -(-self._last // max(2, frames))
        figures = path / "figures"
        self._gif, self._kept = figures / "training_progress.gif", figures / ".progress"
        self.grids: dict[int, np.ndarray] = {}
        self._axes: dict[int, str] = {}
        self.seconds_to_start = self.seconds_before = 0.0
        self._bar: Any = None
        self._recipe, self._time_is_said = recipe, False

    def start(self) -> None:
        """The first epoch begins: take over what an interrupted run, or a finished one that goes on, has shown."""
        rows = read_metrics(self._run.path)
        self.seconds_before = sum(row["seconds"] for row in rows)
        # Without them the GIF only begins later, so a damaged one is no reason to stop.
        with contextlib.suppress(OSError, ValueError):
            self.grids |= animation.read_progress_grids(self._gif)
        for file in self._kept.glob("*.npz"):
            with contextlib.suppress(*archives.UNREADABLE, KeyError):
                kept, _ = archives.read_arrays(file)
                self.grids[int(file.stem)], self._axes[int(file.stem)] = kept["grid"], str(kept["axes"])
        self.seconds_to_start = time.perf_counter() - START
        self._bar = tqdm(total=self._last, initial=len(rows), unit="epoch", disable=None)

    def part(self, progress: Any) -> None:
        """Say once, some seconds within the first epoch, how long all that is left will take."""
        if self._time_is_said or progress.seconds < PACE_SECONDS:
            return
        self._time_is_said = True
        steps = self._recipe.step_after(self._last - 1) - int(progress.state.step)
        rate, seconds = self._run.config.batch_size / progress.seconds_per_step, steps * progress.seconds_per_step
        self._bar.write(f"{counted(steps, 'step')} at {rate:,.0f} images/s: {_in_words(seconds)} of training.")
        sys.stdout.flush()

    def epoch(self, state: Any, row: dict[str, Any]) -> None:
        """Show an epoch, and keep its grid."""
        self._time_is_said = True
        self.add(state.evaluation_params, row["epoch"])
        self.tracker.epoch(row, self.grids.get(row["epoch"]))
        rate, said = row["images_per_second"], _validation(row)
        if self._bar.disable:
            left = (self._last - row["epoch"]) * row["seconds"]
            print(
                f"epoch {row['epoch']}/{self._last}: train loss {row['train']['loss']:.2f}, "
                f"{said}, {rate:,.0f} images/s, {left:.0f} s left",
                flush=True,
            )
        self._bar.set_postfix_str(f"{said}, {rate:,.0f} images/s", refresh=False)
        self._bar.update()
        if row["epoch"] == self._last:
            self._bar.close()

    def stop(self) -> None:
        """No epoch follows."""
        if self._bar is not None:
            self._bar.close()
        self.tracker.close()

    def add(self, params: Parameters, epoch: int) -> None:
        """Decode the grid of an epoch, if it is one that the GIF shows, and keep it on disk until the GIF is there."""
        if epoch % self._every and epoch != self._last:
            return
        run = self._run._replace(params=params)
        grid = decode_grid(run, run.encode(self._part.images, self._part.labels), self._side)
        self._axes[epoch] = ""
        if run.model.latent_dim > 2:  # the two most informative ones may be others in each epoch
            across, up = (name.translate(str.maketrans("", "", "${}_")) for name in grid.axis_names)
            self._axes[epoch] = f"; {across} to the right, {up} upward"
        self.grids[epoch] = np.rint(plots.tile(grid.images[::-1]) * 255).astype(np.uint8)
        self._kept.mkdir(parents=True, exist_ok=True)
        with replacing(self._kept / f"{epoch}.npz") as temporary, open(temporary, "wb") as file:
            np.savez(file, grid=self.grids[epoch], axes=self._axes[epoch])

    def write(self, rows: list[dict[str, Any]], title: str) -> None:
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


def _in_words(seconds: float) -> str:
    number, unit = next((seconds / size, unit) for size, unit in _UNITS if seconds >= 2 * size or size == 1)
    return f"about {number:.0f} {unit}"


def _validation(row: dict[str, Any]) -> str:
    scores = row["validation"]
    bits = f" ({scores['bits_per_dim']:.3f} bits per dimension)" if "bits_per_dim" in scores else ""
    return f"validation loss {scores['loss']:.2f}{bits}"
