"""What all figures share: colours, classes, tiles of images, titles; without pyplot and its global state."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from vae_jax.files import replacing

# Ten colours of the palettes of Okabe and Ito, Tol, Petroff and D3, chosen for the largest smallest distance:
# any two are at least 24 apart in CIELAB, also as seen with protanopia, deuteranopia and tritanopia.
COLOURS = [
    *("#4477AA", "#FF7F0E", "#BD1F01", "#66CCEE", "#332288"),
    *("#DDCC77", "#882255", "#94A4A2", "#000000", "#A96B59"),
]
MARKERS = "o^sX"  # one for each ten classes
LONGEST_NAME = 16  # letters of a class name; longer ones would leave the points no room
MOST_NAMED = 20  # more classes than these are coloured, but neither written out nor in the legend


def new_figure(title: str, width: float, height: float) -> Figure:
    """An empty figure with its title."""
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(h_pad=0.07))
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11, wrap=True, parse_math=False)
    return figure


def draw_legend(axes: Axes, handles: list[Line2D], heading: str | None) -> None:
    """The legend to the right of the axes."""
    # Twenty classes and the ellipses would be higher than the figure at the usual size.
    size = (8, 0.3) if len(handles) > 12 else (10, 0.4)
    place: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
    legend = axes.legend(handles=handles, title=heading, fontsize=size[0], labelspacing=size[1], **place)
    for text in legend.get_texts():
        text.set_parse_math(False)


def classes_of(labels: np.ndarray, class_names: Sequence[str] | None) -> tuple[list[str], np.ndarray]:
    """Names of the classes that occur, and the place of each image's class among them."""
    # The names of the classes that occur, and each image's place among them.
    classes, index = np.unique(labels, return_inverse=True)
    known = class_names or ()
    names = [known[label] if 0 <= label < len(known) else str(label) for label in classes]
    return [name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…" for name in names], index


def draw_points(axes: Axes, means: np.ndarray, index: np.ndarray) -> None:
    """A scatter of points by class."""
    order = np.random.default_rng(0).permutation(len(means))  # so that no class hides the others
    group = index[order] // len(COLOURS) % len(MARKERS)
    size = np.clip(40_000 / max(len(means), 1), 5, 25)
    style: dict[str, Any] = {"s": size, "alpha": 0.7, "linewidths": 0, "rasterized": True}
    for number, marker in enumerate(MARKERS):
        points = order[group == number]
        colours = [COLOURS[i % len(COLOURS)] for i in index[points]]
        axes.scatter(means[points, 0], means[points, 1], c=colours, marker=marker, **style)


def class_handles(names: list[str]) -> list[Line2D]:
    """The classes' entries of a legend."""
    style: dict[str, Any] = {"linestyle": "", "markersize": 9}
    looks = [(marker, colour) for marker in MARKERS for colour in COLOURS]
    return [
        Line2D([], [], marker=marker, color=colour, label=name, **style)
        for name, (marker, colour) in zip(names[:MOST_NAMED], looks, strict=False)
    ]


def write_names(axes: Axes, means: np.ndarray, index: np.ndarray, names: list[str]) -> None:
    """The names of the classes at the medians of their points."""
    # At the medians, pushed apart vertically where two would overlap. A letter is about 4 % of the axis high.
    medians = np.array([np.median(means[index == i], axis=0) for i in range(len(names))])
    spots = medians.copy()
    height = 0.05 * (np.ptp(means, axis=0).max() or 0.1)  # the axis is 0.1 long where all points coincide
    width = 0.5 * height * np.array([len(name) for name in names])
    rank = np.sign(np.subtract.outer(np.arange(len(names)), np.arange(len(names))))
    for _ in range(50):
        across, up = np.moveaxis(spots[:, None] - spots[None], -1, 0)
        overlap = (np.abs(across) < np.add.outer(width, width) / 2) * np.maximum(height - np.abs(up), 0)
        spots[:, 1] += 0.3 * np.sum(overlap * np.where(up == 0, rank, np.sign(up)), axis=1)
    # Where many classes crowd into one spot, a name stays near its class and the legend decides.
    if np.ptp(medians, axis=0).max() > height:  # else all of them lie in one spot, and only a list is readable
        spots[:, 1] = np.clip(spots[:, 1], medians[:, 1] - 2 * height, medians[:, 1] + 2 * height)
    style: dict[str, Any] = {"ha": "center", "va": "center", "weight": "bold", "clip_on": True, "zorder": 10}
    outline = [withStroke(linewidth=3, foreground="white")]
    for spot, name in zip(spots, names, strict=True):
        axes.text(spot[0], spot[1], name, path_effects=outline, parse_math=False, **style)


def tile(images: Float[np.ndarray, "rows columns h w c"]) -> Float[np.ndarray, "rows*h columns*w c"]:
    """Lay images edge to edge, row 0 at the top, with values clipped to [0, 1]."""
    rows, columns, height, width, channels = images.shape
    pixels = np.clip(images, 0, 1).transpose(0, 2, 1, 3, 4)
    return pixels.reshape(rows * height, columns * width, channels)


def draw_tiles(axes: Axes, images: np.ndarray, line_width: float) -> None:
    """Images edge to edge, 0 black and 1 white, with lines of this width between them."""
    # Drawn as RGB, so that 0 is black and 1 is white whatever the figure's other values are.
    rows, columns, height, width, channels = images.shape
    pixels = np.repeat(tile(images), 3 if channels == 1 else 1, axis=-1)
    axes.imshow(pixels, extent=(0, columns * width, rows * height, 0))
    axes.vlines(width * np.arange(1, columns), 0, rows * height, color="white", linewidth=line_width)
    axes.hlines(height * np.arange(1, rows), 0, columns * width, color="white", linewidth=line_width)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def picture(title: str, height: int, width: int, extra: float = 0.0) -> Figure:
    """A figure for pixels of this height and width, the lines of the title and `extra` inches."""
    # High enough for pixels of this height and width, the lines of the title and `extra` inches.
    lines = sum(1 + len(line) // 75 for line in title.split("\n"))
    return new_figure(title, 6.4, np.clip(5.5 * height / width, 0.4, 8) + 0.2 * lines + 0.2 + extra)


def fold(images: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Images [n, ...] as [rows, columns, ...], filled up with white."""
    # [n, ...] to [rows, columns, ...], filled up with white.
    empty = np.ones((rows * columns - len(images), *images.shape[1:]), images.dtype)
    return np.concatenate([images, empty]).reshape(rows, columns, *images.shape[1:])


def ticks(values: np.ndarray, number: int = 5) -> tuple[np.ndarray, list[str]]:
    """A few places along an axis and what stands there."""
    shown = np.unique(np.linspace(0, len(values) - 1, number).round().astype(int))
    return shown, [f"{value:z.2f}".replace("-", "−") for value in values[shown]]


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG: whoever reads sees the old file or the new one."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
