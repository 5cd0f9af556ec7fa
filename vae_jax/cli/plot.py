"""Restore a run and look at its latent space: `vae-jax plot RUN`.

Latent means and the decoded grid show at most two dimensions. Traversals (one dimension at a time, the most
informative ones first) and interpolations (from image to image, straight and spherical) show any number of them;
they take a second or two, so they are drawn too unless they are switched off by 0.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from vae_jax.cli.command import RunConfig
from vae_jax.domains import MOST_SHOWN, at_least
from vae_jax.errors import UsageError

if TYPE_CHECKING:
    from vae_jax.data.split import Split
    from vae_jax.models.codes import Codes
    from vae_jax.runs.run import Run

STEPS = 9
"""Images on the way of an interpolation, with both ends."""


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
    grid_size: int = at_least(2, 20, most=MOST_SHOWN)
    """Images a side of the decoded latent grid."""
    traversals: int = at_least(0, 10, " (0: off)", most=MOST_SHOWN)
    """Rows of traversals.png: at most so many of the most informative dimensions, each through the quantiles of its
    aggregate posterior."""
    base_image: int = at_least(0, 0)
    """Position in the split of the image that the traversals start from."""
    interpolations: int = at_least(0, 5, " (0: off)", most=MOST_SHOWN)
    """Pairs of images, of different classes where there are labels, that interpolations.png goes between."""
    interpolation: Literal["straight", "spherical", "both"] = "both"
    """Along the straight line between the codes, along the great circle about the origin, or one below the other."""
    data_dir: Path | None = None
    """Where the data lies, if no longer where the run found it."""


def run(config: Config) -> list[Path]:
    """Draw the figures and print their paths."""
    # Here, as they import JAX, which --help and a bad flag do not wait for.
    from vae_jax.cli.figures import decode_grid, draw_grid, draw_means, headline
    from vae_jax.runs.run import load_dataset_of, load_run

    restored = load_run(config.run)
    dataset = load_dataset_of(restored, config.data_dir)
    split = getattr(dataset, config.split)
    part = split.rows(slice(config.max_points))
    _check_number(config, len(part))
    folder = config.output or config.run / "figures"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"--output must be a folder that can be written, got {str(folder)!r} ({error.strerror})."
        ) from error
    codes = restored.encode(part.images)
    # The run's own figure of all test images is not overwritten by one of other images.
    suffix = "" if config.split == "test" else f"_{config.split}"
    suffix += "" if len(part) == len(split) else f"_{len(part)}"
    paths = [folder / f"latent_means{suffix}.png", folder / "latent_grid.png"]
    test = restored.summary and restored.summary["test"]
    title = headline(restored.model, restored.dataset["name"], test)
    draw_means(restored, codes, part.labels, f"{title}\n{codes.title} of {len(part):,} {config.split} images", paths[0])
    reference = restored.encode(dataset.validation.images)
    grid = decode_grid(restored.model, restored.params, reference, config.grid_size)
    draw_grid(grid, f"{title}\ndecoded latent grid", paths[1])
    if config.traversals:
        paths.append(folder / f"traversals{suffix}.png")
        _draw_traversals(config, restored, part, codes, reference, title, paths[-1])
    if config.interpolations:
        paths.append(folder / f"interpolations{suffix}.png")
        _draw_interpolations(config, restored, part, codes, title, paths[-1])
    print("\n".join(map(str, paths)))
    return paths


def _check_number(config: Config, images: int) -> None:
    if config.traversals and config.base_image >= images:
        raise UsageError(
            f"--base-image must be below the {images:,} images that are encoded, got {config.base_image}.\n"
            "Encode more of them by --max-points, or choose another."
        )
    if config.interpolations and images < 2:
        raise UsageError(
            f"--interpolations needs at least 2 images, got {images}.\n"
            "Encode more of them by --max-points, or give --interpolations 0."
        )


def _draw_traversals(
    config: Config, run: "Run", part: "Split", codes: "Codes", reference: "Codes", title: str, path: Path
) -> None:
    from vae_jax import plots
    from vae_jax.measures import traversal
    from vae_jax.plots import traversal as plots_traversal

    dims = reference.order()[: config.traversals]
    known, quantiles = reference.information(), reference.quantiles(traversal.LEVELS)
    base = codes.means[config.base_image]
    z = traversal.traverse(base, dims, quantiles)
    decoded = np.clip(run.decode(np.concatenate([base[None], z.reshape(-1, z.shape[-1])])), 0, 1)
    names = [f"$z_{{{dim + 1}}}$\n{reference.measure.format(known[dim])}" for dim in dims]
    ranges = [f"{low:.2f}\nto {high:.2f}".replace("-", "−") for low, high in quantiles[[0, -1]][:, dims].T]
    rows = len(dims)
    shown = "every latent dimension" if rows == z.shape[-1] else f"the {rows} most informative latent dimensions"
    where = "aggregate posterior" if run.model.stochastic else "codes"
    number = len(reference.means)
    original = part.images[config.base_image].astype(np.float32) / 255
    figure = plots_traversal.traversals(
        decoded[1:].reshape(rows, len(quantiles), *decoded.shape[1:]),
        np.stack([original, decoded[0]]),
        np.argmin(np.abs(quantiles[:, dims] - base[dims]), axis=0),
        traversal.LEVELS,
        names,
        ranges,
        f"{title}\ntraversal of {shown} from {config.split} image {config.base_image}",
        f"each row moves one dimension through the quantiles of its {where} over {number:,} validation images\n"
        "(from and to: on the right), the others stay as they are; the most informative dimension first",
    )
    plots.save(figure, path)


def _draw_interpolations(config: Config, run: "Run", part: "Split", codes: "Codes", title: str, path: Path) -> None:
    from vae_jax import plots
    from vae_jax.measures import traversal
    from vae_jax.plots import traversal as plots_traversal

    functions = {"straight": traversal.linear_interpolation, "spherical": traversal.spherical_interpolation}
    kinds = list(functions) if config.interpolation == "both" else [config.interpolation]
    note = "spherical: equal angles about the origin, the norm goes linearly"
    if not run.model.stochastic:
        note += "\nwithout a prior about the origin it has no meaning for an AE: for comparison only"
    if codes.means.shape[1] == 1:
        kinds, note = kinds[:1], "in one dimension, straight and spherical are the same"
    pairs = traversal.choose_pairs(part.labels, len(part), config.interpolations)
    a, b = codes.means[pairs[:, 0]], codes.means[pairs[:, 1]]
    z = np.stack([functions[kind](a, b, STEPS) for kind in kinds], axis=1)
    decoded = np.clip(run.decode(z.reshape(-1, z.shape[-1])), 0, 1)
    if part.labels is None:
        names = [f"{i}\nto {j}" for i, j in pairs]
        what = "pairs of images, named by position"
    else:
        known = run.dataset.get("class_names") or {}
        names = [
            " to ".join(str(known[label]) if known else str(label) for label in pair) for pair in part.labels[pairs]
        ]
        what = "images" if np.ptp(part.labels) == 0 else "images of different classes"
    figure = plots_traversal.interpolations(
        part.images[pairs].astype(np.float32) / 255,
        decoded.reshape(*z.shape[:-1], *decoded.shape[1:]),
        names,
        kinds,
        f"{title}\n{' and '.join(kinds)} interpolation between {config.split} {what}",
        note if "spherical" in kinds or codes.means.shape[1] == 1 else "",
    )
    plots.save(figure, path)
