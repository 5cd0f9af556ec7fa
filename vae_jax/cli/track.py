"""`--track tensorboard`: what a run's records and figures hold, also as TensorBoard shows it, in RUN/tensorboard."""

import time
import types
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vae_jax.errors import UsageError
from vae_jax.training.history import Row

FOLDER = "tensorboard"
_OF_TEST = "test"


class NoTracker:
    """Of a run that is not tracked."""

    def epoch(self, row: Row, grid: np.ndarray | None) -> None:
        """Nothing."""

    def finish(self, test: dict[str, Any], step: int, figures: Path) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class TensorBoard(NoTracker):
    """Scalars of each epoch and of the test split, and figures, by their steps. It writes when the first epoch is."""

    def __init__(self, path: Path):
        """Track the run at that path.

        Raises:
            UsageError: tensorboardX is not installed.
        """
        self._writers: Any = _tensorboardx()
        self._writer: Any = None
        self._folder = path / FOLDER

    def epoch(self, row: Row, grid: np.ndarray | None) -> None:
        """The numbers of an epoch, and the latent grid of it where it is kept."""
        step = row["step"]
        self._open(step)
        self._numbers({name: value for name, value in row.items() if name not in ("epoch", "step")}, step)
        if grid is not None:
            self._image("latent_grid", grid, step)
        self._writer.flush()

    def finish(self, test: dict[str, Any], step: int, figures: Path) -> None:
        """The test numbers and the figures of a run that is trained."""
        self._open(step + 1)
        self._numbers({_OF_TEST: test}, step)
        for file in sorted(figures.glob("*.png")):
            with Image.open(file) as image:
                self._image(file.stem, np.asarray(image.convert("RGB")), step)

    def close(self) -> None:
        """Write what is still to be written."""
        if self._writer:
            self._writer.close()

    def _open(self, step: int) -> None:
        # Of a run that goes on, what was written from that step on is done again. Its names have whole seconds only.
        if self._writer is None:
            names = {"filename_suffix": f".{time.time_ns()}"}
            self._writer = self._writers.SummaryWriter(str(self._folder), purge_step=step, **names)

    def _numbers(self, values: dict[str, Any], step: int, above: str = "") -> None:
        for name, value in values.items():
            if isinstance(value, dict):
                self._numbers(value, step, f"{above}{name}/")
            elif isinstance(value, int | float):
                self._writer.add_scalar(f"{above}{name}", value, step)

    def _image(self, name: str, image: np.ndarray, step: int) -> None:
        layout = "HW" if image.ndim == 2 else "HWC"
        self._writer.add_image(name, image, step, dataformats=layout)


def tracker(name: str, path: Path) -> NoTracker:
    """What --track names, for the run at that path."""
    return TensorBoard(path) if name == "tensorboard" else NoTracker()


def check_track(name: str) -> None:
    """Refuse --track tensorboard where its package is missing, by a UsageError."""
    if name == "tensorboard":
        _tensorboardx()


def _tensorboardx() -> types.ModuleType:
    try:
        import tensorboardX
    except ModuleNotFoundError as error:
        raise UsageError(
            f"--track tensorboard needs {error.name}, which is not installed.\n"
            "Install it by pip install 'vae_jax[track]', or leave --track out."
        ) from error
    return tensorboardX
