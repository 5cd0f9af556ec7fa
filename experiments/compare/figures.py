"""The figure of AE against VAE: the two latent spaces side by side."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure

from vae_jax.plots.style import class_handles, classes_of, draw_points, draw_tiles, new_figure, ticks, write_names

REALNESS_EDGES = [0.0, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0]
# Blue where decoded images look like the data's, orange where they do not; lightness grows to both sides of 1.
_REALNESS_COLOURS = ["#08306b", "#2171b5", "#9ecae1", "#fdd0a2", "#fdae6b", "#e6550d", "#7f2704"]


@dataclasses.dataclass(frozen=True)
class Space:
    """What is shown of one model."""

    name: str
    """Stands to the left, such as "AE" with its test loss."""
    means: Float[np.ndarray, "n two"]
    """Latents of test images in the plane."""
    labels: Integer[np.ndarray, " n"] | None
    axis_names: tuple[str, str]
    grid: Float[np.ndarray, "rows columns h w c"]
    """Decoded images; grid[i, j] belongs to grid_y[i] and grid_x[j]."""
    grid_x: Float[np.ndarray, " columns"]
    grid_y: Float[np.ndarray, " rows"]
    realness: Float[np.ndarray, "high wide"]
    """Distance of decoded images to the data over that of real test images, row 0 at the bottom."""
    extent: tuple[float, float, float, float]
    """Of the realness map: left, right, bottom, top."""
    paths: Float[np.ndarray, "pairs points h w c"]
    """Interpolations, the two test images themselves at the ends."""


def comparison(spaces: Sequence[Space], title: str) -> Figure:
    """A row for each model: latent plane, decoded grid, where it has holes, interpolations of the same pairs."""
    figure = new_figure(title, 16.5, 4.3 * len(spaces) + 0.6)
    axes = figure.subplots(len(spaces), 4, squeeze=False, width_ratios=[1, 1, 1.08, 1.12])
    headings = ("latents of test images", "decoded grid", "holes: do decoded points look like data?", "")
    for row, space in zip(axes, spaces, strict=True):
        for panel, heading in zip(row, headings, strict=True):
            panel.set_title(heading, fontsize=10)
        _draw_plane(row[0], space)
        _draw_grid(row[1], space)
        _draw_holes(row[2], space)
        _draw_paths(row[3], space)
    labels = spaces[0].labels
    if labels is not None:
        names, _ = classes_of(labels, None)
        handles = class_handles(names)
        figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), title="class", fontsize=9)
    return figure


def _draw_plane(axes: Axes, space: Space) -> None:
    names, index = ([""], np.zeros(len(space.means), int)) if space.labels is None else classes_of(space.labels, None)
    axes.set_box_aspect(1)
    axes.set_xlabel(space.axis_names[0])
    axes.set_ylabel(f"{space.name}\n\n{space.axis_names[1]}")
    draw_points(axes, space.means, index)
    low, high = np.percentile(space.means, [0.2, 99.8], axis=0)
    margin = 0.05 * (high - low)
    axes.set_xlim(low[0] - margin[0], high[0] + margin[0])
    axes.set_ylim(low[1] - margin[1], high[1] + margin[1])
    if space.labels is not None:
        write_names(axes, space.means, index, names)


def _draw_grid(axes: Axes, space: Space) -> None:
    height, width = space.grid.shape[2:4]
    draw_tiles(axes, space.grid[::-1], line_width=0.0)
    across, texts = ticks(space.grid_x)
    axes.set_xticks((across + 0.5) * width, texts)
    up, texts = ticks(space.grid_y)
    axes.set_yticks((len(space.grid_y) - up - 0.5) * height, texts)
    axes.set_xlabel(space.axis_names[0])


def _draw_holes(axes: Axes, space: Space) -> None:
    colours = ListedColormap(_REALNESS_COLOURS).with_extremes(over="black")
    norm = BoundaryNorm(REALNESS_EDGES, len(_REALNESS_COLOURS))
    image = axes.imshow(
        space.realness, origin="lower", extent=space.extent, aspect="auto", cmap=colours, norm=norm, rasterized=True
    )
    axes.set_box_aspect(1)
    left, right, bottom, top = space.extent
    inside = (space.means > [left, bottom]).all(axis=1) & (space.means < [right, top]).all(axis=1)
    axes.plot(*space.means[inside][:1000].T, ".", color="black", markersize=1.2)
    axes.set_xlabel(space.axis_names[0])
    bar = axes.figure.colorbar(image, ax=axes, extend="max", shrink=0.85)
    bar.set_label("distance to the data (up to 1: like real test images)", fontsize=9)


def _draw_paths(axes: Axes, space: Space) -> None:
    pairs, points, height, width = space.paths.shape[:4]
    draw_tiles(axes, space.paths, line_width=0.6)
    axes.set_xticks(
        [0.5 * width, 0.5 * points * width, (points - 0.5) * width],
        ["test\nimage", "decoded straight line", "test\nimage"],
    )
    axes.tick_params(length=0)
    axes.vlines([width, (points - 1) * width], 0, pairs * height, color="#FF7F0E", linewidth=1.5)
    axes.set_title(f"interpolations of the same {pairs} pairs", fontsize=10)
