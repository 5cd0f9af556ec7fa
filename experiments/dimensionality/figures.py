"""Figures of embeddings compared: NumPy arrays in, matplotlib figures out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Integer
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from vae_jax.plots.style import add_class_legend, add_legend, classes_of, draw_points, look, new_figure

_MOST_ACROSS = 3


def embeddings(
    panels: Sequence[tuple[str, Float[np.ndarray, "n 2"]]],
    labels: Integer[np.ndarray, " n"] | None,
    title: str,
    class_names: Sequence[str] | None = None,
) -> Figure:
    """The same images in several two-dimensional embeddings, side by side, with one legend.

    Args:
        panels: for each embedding what stands above it and its points, [n, 2].
        labels: classes, [n], or None: then everything has one colour.
        title: what stands above all.
        class_names: the name of each label; by default its number.
    """
    names, index = classes_of(labels, len(panels[0][1]), class_names)
    columns = min(len(panels), _MOST_ACROSS)
    rows = -(-len(panels) // columns)
    figure = new_figure(title, 3.6 * columns + 1.0, 4.2 * rows + 0.4)
    for i, (caption, points) in enumerate(panels):
        axes = figure.add_subplot(rows, columns, i + 1, xticks=[], yticks=[])
        draw_points(axes, points, index)
        axes.set_title(caption, fontsize=10, parse_math=False)
        axes.set_aspect("equal", adjustable="datalim")
    add_class_legend(figure, names)
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
    looks = {name: look(i) for i, name in enumerate(dict.fromkeys([name for name, _, _ in points] + [*published]))}
    handles = []
    for method in dict.fromkeys(name for name, _, _ in points):
        dims, values = np.array([point[1:] for point in points if point[0] == method]).T
        places = np.unique(dims)
        axes.plot(places, [values[dims == place].mean() for place in places], color=looks[method]["color"])
        handles += axes.plot(dims, values, linestyle="", label=method, **looks[method])
    for method, value in published.items():
        style: dict[str, Any] = looks[method] | {"linestyle": "", "fillstyle": "none", "markersize": 8}
        handles += axes.plot([2], [value], label=f"{method}, published: {value:.3f}", **style)
    shown = sorted({dim for _, dim, _ in points} | ({2} if published else set()))
    axes.set_xscale("log", base=2)
    axes.set_xticks(shown, [str(dim) for dim in shown])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.08)
    axes.grid(alpha=0.3)
    add_legend(figure, handles)
    return figure
