"""Figures of embeddings compared: NumPy arrays in, matplotlib figures out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Integer
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from vae_jax.plots.style import COLOURS, MOST_NAMED, class_handles, classes_of, draw_points, new_figure

_LOOKS = {"AE": (COLOURS[0], "o"), "VAE": (COLOURS[1], "s"), "PCA": (COLOURS[8], "^")}
_OTHER_LOOKS = [(COLOURS[6], "D"), (COLOURS[3], "v"), (COLOURS[9], "P")]
_MOST_ACROSS = 3


def embeddings(
    panels: Sequence[tuple[str, Float[np.ndarray, "n 2"]]], labels: Integer[np.ndarray, " n"] | None, title: str
) -> Figure:
    """The same images in several two-dimensional embeddings, side by side, with one legend.

    Args:
        panels: for each embedding what stands above it and its points, [n, 2].
        labels: classes, [n], or None: then everything has one colour.
        title: what stands above all.
    """
    names, index = classes_of(labels, None) if labels is not None else ([""], np.zeros(len(panels[0][1]), int))
    columns = min(len(panels), _MOST_ACROSS)
    rows = -(-len(panels) // columns)
    figure = new_figure(title, 3.6 * columns + 1.0, 4.2 * rows + 0.4)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (caption, points) in zip(grid, panels, strict=False):
        draw_points(axes, points, index)
        axes.set_title(caption, fontsize=10, parse_math=False)
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_xticks([])
        axes.set_yticks([])
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    if labels is not None:
        heading = "class" if len(names) <= MOST_NAMED else f"class (first\n{MOST_NAMED} of {len(names)})"
        figure.legend(handles=class_handles(names), title=heading, loc="outside right center")
    return figure


def accuracy_by_dimension(
    points: Sequence[tuple[str, int, float]], published: Mapping[str, float], title: str
) -> Figure:
    """5-NN accuracy against the latent dimension: a line a method through its mean, and published points at 2.

    Args:
        points: method, latent dimension and accuracy in [0, 1]; several runs of one method and dimension may be there.
        published: accuracy in two dimensions by method.
        title: what stands above.
    """
    figure = new_figure(title, 7.2, 4.4)
    axes = figure.add_subplot(xlabel="dimensions of the embedding", ylabel="5-NN accuracy")
    spare = iter(_OTHER_LOOKS)
    looks = {name: _LOOKS.get(name) or next(spare) for name in dict.fromkeys([p[0] for p in points] + [*published])}
    for method in dict.fromkeys(name for name, _, _ in points):
        colour, marker = looks[method]
        dims = np.array([dim for name, dim, _ in points if name == method])
        values = np.array([value for name, _, value in points if name == method])
        places = np.unique(dims)
        means = [values[dims == place].mean() for place in places]
        axes.plot(places, means, color=colour, linewidth=1.5)
        axes.scatter(dims, values, color=colour, marker=marker, label=method, zorder=3)
    for method, value in published.items():
        colour, marker = looks[method]
        style: dict[str, Any] = {
            "marker": marker,
            "s": 60,
            "facecolors": "none",
            "edgecolors": colour,
            "linewidths": 1.5,
        }
        axes.scatter([2], [value], label=f"{method}, published: {value:.3f}", zorder=4, **style)
    shown = sorted({dim for _, dim, _ in points} | ({2} if published else set()))
    axes.set_xscale("log", base=2)
    axes.set_xticks(shown, [str(dim) for dim in shown])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.08)
    axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", fontsize=9)
    return figure
