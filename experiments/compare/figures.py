"""The figure of AE against VAE: the two latent spaces side by side."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure

from vae_jax.plots.sheets import draw_tiles, image_note, shown_size, value_ticks
from vae_jax.plots.style import add_class_legend, add_note, classes_of, draw_plane, new_figure, write_names

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


def comparison(spaces: Sequence[Space], title: str, class_names: Sequence[str] | None = None) -> Figure:
    """A row for each model: latent plane, decoded grid, where it has holes, interpolations of the same pairs.

    Args:
        spaces: one for each model.
        title: what stands above.
        class_names: the name of each label; by default its number.
    """
    figure = new_figure(title, 16.5, 4.3 * len(spaces) + 0.6)
    rows = figure.subplots(len(spaces), 4, squeeze=False, width_ratios=[1, 1, 1.08, 1.12])
    classes = [classes_of(space.labels, len(space.means), class_names) for space in spaces]
    for axes, space, (_, index) in zip(rows, spaces, classes, strict=True):
        _draw_plane(axes[0], space, index)
        _draw_grid(axes[1], space)
        _draw_holes(axes[2], space)
        _draw_paths(axes[3], space)
    add_class_legend(figure, classes[0][0], below=True)
    shape = spaces[0].grid.shape[2:]
    add_note(figure, image_note(shape, shown_size(shape, 100)))
    for axes, space, (names, index) in zip(rows, spaces, classes, strict=True):
        write_names(axes[0], space.means, index, names)
    return figure


def _draw_plane(axes: Axes, space: Space, index: np.ndarray) -> None:
    draw_plane(axes, space.means, index)
    axes.set_title("latents of test images", fontsize=10)
    axes.set(xlabel=space.axis_names[0], ylabel=f"{space.name}\n\n{space.axis_names[1]}")


def _draw_grid(axes: Axes, space: Space) -> None:
    draw_tiles(axes, space.grid[::-1], shown_size(space.grid.shape[2:], 1200 // len(space.grid_x)), gap=False)
    value_ticks(axes, space.grid_x, space.grid_y)
    axes.set_title("decoded grid", fontsize=10)
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
    axes.set_title("holes: do decoded points look like data?", fontsize=10)
    bar = axes.figure.colorbar(image, ax=axes, extend="max", shrink=0.85)
    bar.set_label("distance to the data (up to 1: like real test images)", fontsize=9)


def _draw_paths(axes: Axes, space: Space) -> None:
    pairs, points = space.paths.shape[:2]
    framed = np.zeros((pairs, points), bool)
    framed[:, [0, -1]] = True
    draw_tiles(axes, space.paths, shown_size(space.paths.shape[2:], 1200 // points), framed=framed)
    axes.set_xlabel("decoded on the straight line between\ntwo test images (framed)")
    axes.set_title(f"interpolations of the same {pairs} pairs", fontsize=10)
