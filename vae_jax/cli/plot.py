"""Restore a run and look at its latent space: `vae-jax plot RUN`.

Latent means and the decoded grid show at most two dimensions. Traversals (one dimension at a time, the most
informative ones first) and interpolations (from image to image, straight and spherical) show any number of them;
they take a second or two, so they are drawn too unless they are switched off by 0.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from vae_jax.cli.command import RunConfig
from vae_jax.cli.outputs import make_folder
from vae_jax.domains import MOST_SHOWN, at_least
from vae_jax.errors import UsageError, counted


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Plot the latent space of a run, finished or not.

    Latent means by class, the decoded latent grid, traversals and interpolations.
    """

    split: Literal["test", "validation", "train"] = "test"
    """Which images to encode."""
    output: Path | None = None
    """Folder for the figures. Default: RUN/figures."""
    max_points: int = at_least(1, 10_000)
    """Encode at most so many images, the first ones of the split."""
    grid_size: int | None = at_least(2, None, most=MOST_SHOWN)
    """Images a side of the decoded latent grid. Default: those of the run."""
    traversals: int | None = at_least(0, None, " (0: off)", most=MOST_SHOWN)
    """Rows of traversals.png: at most so many of the most informative dimensions, each through the quantiles of its
    aggregate posterior. Default: 10, fewer of large images."""
    base_image: int = at_least(0, 0)
    """Position in the split of the image that the traversals start from."""
    interpolations: int | None = at_least(0, None, " (0: off)", most=MOST_SHOWN)
    """Pairs of images, of different classes where there are labels, that interpolations.png goes between. Default: 5,
    fewer of large images."""
    interpolation: Literal["straight", "spherical", "both"] = "both"
    """Along the straight line between the codes, along the great circle about the origin, or one below the other."""
    data_dir: Path | None = None
    """Where the data lies, if no longer where the run found it."""


def run(config: Config) -> list[Path]:
    """Draw the figures and print their paths."""
    # Here, as they import JAX, which --help and a bad flag do not wait for.
    from vae_jax.cli import figures, grids
    from vae_jax.runs.run import load_dataset_of, load_run

    restored = load_run(config.run)
    config = _of_size(config, restored.model.image_shape)
    dataset = load_dataset_of(restored, config.data_dir)
    split = getattr(dataset, config.split)
    part = split.rows(slice(config.max_points))
    _check_number(config, len(part))
    folder = make_folder(config.output or config.run / "figures")
    codes, reference = (restored.encode(one.images, one.labels) for one in (part, dataset.validation))
    # The run's own figure of all test images is not overwritten by one of other images.
    suffix = "" if config.split == "test" else f"_{config.split}"
    suffix += "" if len(part) == len(split) else f"_{len(part)}"
    paths = [folder / f"latent_means{suffix}.png", folder / "latent_grid.png"]
    title = figures.headline(restored, restored.summary and restored.summary["test"])
    what = f"{title}\n{codes.title} of {counted(len(part), f'{config.split} image')}"
    figures.draw_means(restored, codes, part.labels, what, paths[0])
    if figures.has_drawn_density(restored):
        paths.append(folder / f"latent_prior{suffix}.png")
        figures.draw_prior(restored, codes, part.labels, title, paths[-1])
    grid = grids.decode_grid(restored, reference, config.grid_size or restored.config.grid_size)
    grids.draw_grid(grid, f"{title}\ndecoded latent grid", paths[1])
    if config.traversals:
        paths.append(folder / f"traversals{suffix}.png")
        figures.draw_traversals(config, restored, part, codes, reference, title, paths[-1])
    if config.interpolations:
        paths.append(folder / f"interpolations{suffix}.png")
        figures.draw_interpolations(config, restored, part, codes, title, paths[-1])
    print("\n".join(map(str, paths)))
    return paths


def _of_size(config: Config, shape: tuple[int, int, int]) -> Config:
    # As many rows as there is room for, where no flag says.
    from vae_jax.cli.figures import STEPS
    from vae_jax.measures.traversal import LEVELS
    from vae_jax.plots.sheets import number_within

    changed: dict[str, Any] = {}
    rows = {"traversals": (10, 2, len(LEVELS)), "interpolations": (5, 1, 2 * STEPS)}
    for name, (most, least, images) in rows.items():
        if getattr(config, name) is None:
            changed[name] = max(least, number_within(shape, most * images) // images)
    return dataclasses.replace(config, **changed)


def _check_number(config: Config, images: int) -> None:
    if config.traversals and config.base_image >= images:
        raise UsageError(
            f"--base-image must be below {images:,}, the number of images that are encoded, got {config.base_image}.\n"
            "Encode more of them by --max-points, or choose another."
        )
    if config.interpolations and images < 2:
        raise UsageError(
            f"--interpolations needs at least 2 images, got {images}.\n"
            "Encode more of them by --max-points, or give --interpolations 0."
        )
