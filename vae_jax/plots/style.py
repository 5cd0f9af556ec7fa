"""What all figures share: titles, notes, legends, classes; without pyplot and its global state."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Integer
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullLocator

from vae_jax.files import replacing

# Ten colours of the palettes of Okabe and Ito, Tol, Petroff and D3, chosen for the largest smallest distance:
# any two are at least 24 apart in CIELAB, also as seen with protanopia, deuteranopia and tritanopia.
COLOURS = [
    *("#4477AA", "#FF7F0E", "#BD1F01", "#66CCEE", "#332288"),
    *("#DDCC77", "#882255", "#94A4A2", "#000000", "#A96B59"),
]
MARKERS = "o^sXDvP*"  # one for each ten classes
LONGEST_NAME = 16  # letters of a class name; longer ones would leave the points no room
MOST_NAMED = 20  # more classes than these are coloured, but neither written out nor in the legend


def new_figure(title: str, width: float, height: float) -> Figure:
    """An empty figure, width and height in inches, with its title."""
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(h_pad=0.07))
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11, wrap=True, parse_math=False)
    return figure


def add_note(figure: Figure, note: str) -> None:
    """Write a note below the figure."""
    figure.supxlabel(note, fontsize=9, wrap=True, parse_math=False)


def look(number: int) -> dict[str, Any]:
    """Colour and marker of a curve, by its number."""
    return {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}


def log_axis(axes: Axes) -> None:
    """Make the x axis of what is drawn logarithmic, with plain numbers at powers of ten, or also at 2 and 5 times."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())


def add_legend(figure: Figure, handles: Sequence[Any], heading: str | None = None, below: bool = False) -> None:
    """The legend to the right of the panels, or below them in as many columns as there is room for."""
    if not handles:
        return
    size = 8 if len(handles) > 12 else 9
    letters = max(len(handle.get_label()) for handle in handles)
    columns = max(1, int(72 * figure.get_figwidth() / (size * (0.6 * letters + 5)))) if below else 1
    rows = -(-len(handles) // columns)
    place: dict[str, Any] = {"loc": "outside lower center" if below else "outside right center"}
    place |= {"ncols": -(-len(handles) // rows), "fontsize": size, "labelspacing": 0.4}
    for text in figure.legend(handles=handles, title=heading, **place).get_texts():
        text.set_parse_math(False)


def classes_of(
    labels: Integer[np.ndarray, " n"] | None, number: int, class_names: Sequence[str] | None = None
) -> tuple[list[str], Integer[np.ndarray, " n"]]:
    """Names of the classes that occur, and the place of each of `number` images among them; none without labels."""
    if labels is None:
        return [], np.zeros(number, int)
    classes, index = np.unique(labels, return_inverse=True)
    known = class_names or ()
    return [shorten(known[label]) if 0 <= label < len(known) else str(label) for label in classes], index


def shorten(name: str) -> str:
    """A class name that is cut where it is too long for a figure."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def add_class_legend(figure: Figure, names: Sequence[str], *more: Line2D, below: bool = False) -> None:
    """The legend of the first classes, and of what else is shown."""
    heading = "class" if len(names) <= MOST_NAMED else f"class (first\n{MOST_NAMED} of {len(names)})"
    handles = [
        Line2D([], [], linestyle="", markersize=9, color=COLOURS[i % 10], marker=MARKERS[i // 10], label=name)
        for i, name in enumerate(names[:MOST_NAMED])
    ]
    add_legend(figure, [*handles, *more], heading if names else None, below)


def draw_points(axes: Axes, means: np.ndarray, index: np.ndarray) -> None:
    """A scatter of points, [n, 2], by class."""
    order = np.random.default_rng(0).permutation(len(means))  # so that no class hides the others
    group = index[order] // len(COLOURS) % len(MARKERS)
    size = np.clip(40_000 / max(len(means), 1), 5, 25)
    style: dict[str, Any] = {"s": size, "alpha": 0.7, "linewidths": 0, "rasterized": True}
    for number in np.unique(group):
        points = order[group == number]
        colours = [COLOURS[i % len(COLOURS)] for i in index[points]]
        axes.scatter(means[points, 0], means[points, 1], c=colours, marker=MARKERS[number], **style)


def draw_plane(axes: Axes, means: np.ndarray, index: np.ndarray, equal: bool = False) -> None:
    """A square scatter that leaves the most extreme points outside; `equal`: with one scale for both dimensions."""
    draw_points(axes, means, index)
    low, high = np.percentile(means, [0.3, 99.7], axis=0)
    half = np.maximum(0.55 * (high - low), 1e-3)
    if equal:
        half[:] = half.max()
    (left, bottom), (right, top) = (low + high) / 2 - half, (low + high) / 2 + half
    axes.set(xlim=(left, right), ylim=(bottom, top), box_aspect=1)


def write_names(axes: Axes, means: np.ndarray, index: np.ndarray, names: Sequence[str]) -> None:
    """Write the names of the classes, if they are few, at the medians of their points, moved apart where they overlap.

    Call it last: it measures the names in the finished figure.
    """
    if not 0 < len(names) <= MOST_NAMED:
        return
    style: dict[str, Any] = {"ha": "center", "va": "center", "weight": "bold", "clip_on": True, "zorder": 10}
    style |= {"path_effects": [withStroke(linewidth=3, foreground="white")], "parse_math": False}
    medians = np.array([np.median(means[index == i], axis=0) for i in range(len(names))])
    texts = [axes.text(x, y, name, **style) for (x, y), name in zip(medians, names, strict=True)]
    axes.get_figure(root=True).draw_without_rendering()  # type: ignore[union-attr]
    sizes = np.array([text.get_window_extent().size for text in texts]) + 2
    spots = axes.transData.transform(medians)
    order = np.sign(np.subtract.outer(np.arange(len(names)), np.arange(len(names))))[..., None]
    for _ in range(300):
        apart = spots[:, None] - spots[None]
        overlap = (sizes[:, None] + sizes[None]) / 2 - np.abs(apart)
        touching = (overlap > 0).all(axis=-1, keepdims=True) & (order != 0)
        if not touching.any():
            break
        # Along the shorter way; of two names at the same spot the later one goes up or to the right.
        way = np.eye(2)[overlap.argmin(axis=-1)] * np.where(apart == 0, order, np.sign(apart))
        spots += 0.3 * np.sum(touching * overlap * way, axis=1)
        spots = np.clip(spots, axes.bbox.min + sizes / 2, np.maximum(axes.bbox.max - sizes / 2, axes.bbox.min))
    for text, spot in zip(texts, axes.transData.inverted().transform(spots), strict=True):
        text.set_position(spot)


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG: whoever reads sees the old file or the new one."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
