"""Restore a run and plot its latent means and latent grid: `python -m experiments.plot_latent RUN`."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from experiments._cli import main
from vae_jax.config import at_least
from vae_jax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Config:
    """Plot the latent means by class and the decoded latent grid of a finished or unfinished run."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run directory."""
    split: Literal["test", "validation", "train"] = "test"
    """Which images to encode."""
    output: Path | None = None
    """Folder for the figures. Default: RUN/figures."""
    max_points: int = at_least(1, 10_000)
    """Encode at most so many images, the first ones of the split."""
    grid_size: int = at_least(2, 20)
    """Images a side of the decoded latent grid."""
    data_dir: Path | None = None
    """Where the data lies, if no longer where the run found it."""
    compilation_cache: bool = True
    """Keep compiled programs in the user's cache directory, so that the next start is fast."""


def run(config: Config) -> list[Path]:
    """Draw the figures and print their paths."""
    from experiments._figures import Codes, decode_grid, draw_grid, draw_means, headline
    from vae_jax.runs import load_dataset_of, load_run

    restored = load_run(config.run)
    dataset = load_dataset_of(restored, config.data_dir)
    split = getattr(dataset, config.split)
    folder = config.output or config.run / "figures"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"--output must be a folder that can be written, got {str(folder)!r} ({error.strerror})."
        ) from error
    images = split.images[: config.max_points]
    labels = None if split.labels is None else split.labels[: config.max_points]
    codes = Codes.of(restored, images)
    # The run's own figure of all test images is not overwritten by one of other images.
    suffix = "" if config.split == "test" else f"_{config.split}"
    suffix += "" if len(images) == len(split) else f"_{len(images)}"
    paths = [folder / f"latent_means{suffix}.png", folder / "latent_grid.png"]
    what = "latent means" if codes.logvars is not None else "codes"
    test = restored.summary and restored.summary["test"]
    title = headline(restored.model, restored.dataset["name"], test)
    draw_means(restored, codes, labels, f"{title}\n{what} of {len(images):,} {config.split} images", paths[0])
    reference = Codes.of(restored, dataset.validation.images)
    grid = decode_grid(restored.model, restored.params, reference, config.grid_size)
    draw_grid(grid, f"{title}\ndecoded latent grid", paths[1])
    print("\n".join(map(str, paths)))
    return paths


if __name__ == "__main__":
    main(Config, run)
