"""The figure of AE against VAE: the two latent spaces side by side."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure

from experiments.compare.measure import Yardstick
from vae_jax.cli.grids import decode_grid
from vae_jax.data.dataset import Dataset
from vae_jax.errors import counted
from vae_jax.measures.images import as_rows
from vae_jax.measures.traversal import linear_interpolation
from vae_jax.plots.sheets import draw_tiles, image_note, shown_size, side_within, value_ticks
from vae_jax.plots.style import add_class_legend, add_note, classes_of, draw_plane, new_figure, write_names
from vae_jax.runs.run import Run

REALNESS_EDGES = [0.0, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0]
# Blue where decoded images look like the data's, orange where they do not; lightness grows to both sides of 1.
_REALNESS_COLOURS = ["#08306b", "#2171b5", "#9ecae1", "#fdd0a2", "#fdae6b", "#e6550d", "#7f2704"]
PAIRS, POINTS, MAP = 9, 9, 60


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


def compared(ae: Run, vae: Run, dataset: Dataset, yardstick: Yardstick, name: str) -> Figure:
    """One run of each model side by side; `name` is what titles call the data."""
    pairs, latent_dim = _pairs(dataset), ae.model.latent_dim
    shown = "" if latent_dim == 2 else f", the two most informative of {counted(latent_dim, 'dimension')}"
    spaces = [_space_of(run, dataset, yardstick, pairs) for run in (ae, vae)]
    title = f"{name}: the latent spaces of an AE and of a VAE{shown}"
    return comparison(spaces, title, dataset.class_names)


def _space_of(run: Run, dataset: Dataset, yardstick: Yardstick, pairs: np.ndarray) -> Space:
    """What the figure shows of a run: its two most informative dimensions, with the others at their centre."""
    model, test = run.model, dataset.test
    codes, reference = run.encode(test.images), run.encode(dataset.validation.images)
    dims = np.sort(reference.order()[:2]) if model.latent_dim > 1 else np.array([0, 0])
    plane = codes.means[:, dims]
    grid = decode_grid(run, reference, side_within(model.image_shape, 15))
    low, high = np.percentile(plane, [0.5, 99.5], axis=0)
    axes = [np.linspace(a, b, MAP) for a, b in zip(low, high, strict=True)]
    z = np.tile(np.median(reference.means, axis=0), (MAP * MAP, 1)).astype(np.float32)
    z[:, dims] = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
    realness = yardstick.realness(run.decode(z)).reshape(MAP, MAP)
    a, b = codes.means[pairs]
    lines = linear_interpolation(a, b, POINTS)
    paths = run.decode(lines.reshape(-1, model.latent_dim)).reshape(*lines.shape[:2], *dataset.image_shape)
    first, last = (as_rows(test.images[i]).reshape(len(i), 1, *dataset.image_shape) for i in pairs)
    loss = run.summary["test"]["loss"] if run.summary else run.metrics[-1]["validation"]["loss"]
    return Space(
        name=f"{model.name}: {loss:.1f} {model.likelihood.unit}",
        means=plane,
        labels=test.labels,
        axis_names=(f"$z_{{{dims[0] + 1}}}$", f"$z_{{{dims[1] + 1}}}$"),
        grid=grid.images,
        grid_x=grid.x_values,
        grid_y=grid.y_values if grid.y_values is not None else np.zeros(1),
        realness=realness,
        extent=(low[0], high[0], low[1], high[1]),
        paths=np.concatenate([first, paths, last], axis=1),
    )


def _pairs(dataset: Dataset) -> np.ndarray:
    # Pairs of test images, of different classes where there are any.
    rng = np.random.default_rng(1)
    found: list[np.ndarray] = []
    labels = dataset.test.labels
    several = labels is not None and len(np.unique(labels)) > 1
    while len(found) < PAIRS:
        pair = rng.integers(0, len(dataset.test), 2)
        if not several or (labels is not None and labels[pair[0]] != labels[pair[1]]):
            found.append(pair)
    return np.stack(found, axis=1)
