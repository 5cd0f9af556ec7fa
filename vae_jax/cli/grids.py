"""The decoded latent grid: which latents, the images that they become, the axes and the words."""

from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from vae_jax import plots
from vae_jax.measures import traversal
from vae_jax.models.codes import Codes
from vae_jax.plots.sheets import side_within
from vae_jax.runs.run import Run

GRID = 20
"""Images a side of the latent grid, where they are small."""
PRIOR_SHARE = 0.955
"""Share of the prior's mass, in the dimensions shown, that the latent grid covers."""
DRAWS = 10_000
"""Latents, whose quantiles are those of a prior other than N(0, I)."""


class Grid(NamedTuple):
    """Images decoded over one or two latent dimensions, the others at their centre."""

    images: np.ndarray
    """[rows, columns, height, width, channels] in [0, 1]."""
    x_values: np.ndarray
    y_values: np.ndarray | None
    axis_names: tuple[str, str]
    note: str


def decode_grid(run: Run, codes: Codes, size: int | None = None) -> Grid:
    """Decode a grid over the two most informative dimensions, `size` images a side; None: as many as have room.

    For a prior N(0, I) at quantiles of N(0, 1), for another one at those of many draws; for an AE without one evenly
    from the 1st to the 99th percentile of the codes. Of many dimensions, as of a latent map, over the first two
    principal components of the codes at their quantiles.
    """
    latent_dim = run.model.latent_dim
    size = size or side_within(run.model.image_shape, GRID)
    if traversal.has_components(codes.means):
        return _grid_of_components(run, codes, size)
    shown = min(2, latent_dim)
    dims = np.sort(codes.order()[:shown])  # in their own order, so that two dimensions never change places
    if run.model.prior.has_density:
        share = PRIOR_SHARE ** (1 / shown)
        levels = np.linspace((1 - share) / 2, (1 + share) / 2, size)
        values, centre, kind = _prior_quantiles(run, dims, levels)
        where = "prior's mass" if shown == latent_dim else "prior's mass in these two dimensions"
        note = f"{kind} quantiles, {size} a side: the middle {PRIOR_SHARE:.1%} of the {where}"
    else:
        centre = np.median(codes.means, axis=0)
        low, high = np.percentile(codes.means[:, dims], [1, 99], axis=0)
        values = list(np.linspace(low, high, size, axis=1))
        note = f"{size} steps a side from the 1st to the 99th percentile of the validation images' codes"
    mesh = np.meshgrid(*values)
    z = np.tile(centre, (mesh[0].size, 1)).astype(np.float32)
    z[:, dims] = np.stack([axis.ravel() for axis in mesh], axis=1)
    images, of_class = _decode_of_one_class(run, z)
    x_name, y_name = [f"$z_{{{dim + 1}}}$" for dim in dims] + [""] * (2 - shown)
    return Grid(
        images.reshape(-1, size, *images.shape[1:]),
        values[0],
        values[1] if shown == 2 else None,
        (x_name, y_name),
        note + of_class,
    )


def _prior_quantiles(run: Run, dims: np.ndarray, levels: np.ndarray) -> tuple[list[np.ndarray], np.ndarray, str]:
    # Of each dimension shown; the medians of all; and of what they are.
    if run.model.prior.per_dimension:  # N(0, I)
        normal = np.array([NormalDist().inv_cdf(p) for p in levels])
        return [normal] * len(dims), np.zeros(run.model.latent_dim, np.float32), "normal"
    of_class = {"label": run.model.classes[0]} if run.model.classes else {}
    drawn = run.draw(DRAWS, **of_class)
    return list(np.quantile(drawn[:, dims], levels, axis=0).T), np.median(drawn, axis=0), "the prior's"


def _decode_of_one_class(run: Run, z: np.ndarray) -> tuple[np.ndarray, str]:
    # The images, and of a conditional model what has to be said: they are all of its first class.
    if not run.model.classes:
        return np.clip(run.decode(z), 0, 1), ""
    images = run.decode(z, np.full(len(z), run.model.classes[0]))
    return np.clip(images, 0, 1), f"\nall of class {next(iter(run.classes))}"


def _grid_of_components(run: Run, codes: Codes, size: int) -> Grid:
    vectors, shares, centre = traversal.principal_components(codes.means, 2)
    levels = np.linspace(1 - PRIOR_SHARE, PRIOR_SHARE, size)
    places = traversal.quantiles_along(codes.sample(), vectors, levels)
    away = places - (vectors @ centre)[None]
    across, up = np.meshgrid(*away.T)
    z = centre + across[..., None] * vectors[0] + up[..., None] * vectors[-1]
    images, of_class = _decode_of_one_class(run, z.reshape(-1, len(centre)))
    x_name, y_name = (f"principal component {i + 1} ({share:.0%} of variance)" for i, share in enumerate(shares))
    note = f"quantiles from {levels[0]:.1%} to {levels[-1]:.1%} of the validation images' codes, {size} a side"
    images = images.reshape(*z.shape[:2], *images.shape[1:])
    return Grid(images, away[:, 0], away[:, 1], (x_name, y_name), note + of_class)


def draw_grid(grid: Grid, title: str, path: Path) -> None:
    """The decoded latent grid."""
    plots.save(plots.latent_grid(*grid[:3], title, *grid[3:]), path)
