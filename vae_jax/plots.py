"""Figures of trained models: NumPy arrays in, matplotlib figures out, without pyplot and its global state."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Integer
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

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


def _figure(title: str, width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(h_pad=0.07))
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11, wrap=True, parse_math=False)
    return figure


def latent_means(
    means: Float[np.ndarray, "n dim"],
    labels: Integer[np.ndarray, " n"] | None,
    title: str,
    axis_names: tuple[str, str] = ("$z_1$", "$z_2$"),
    ellipses: tuple[Float[np.ndarray, "m dim"], Float[np.ndarray, "m dim dim"]] | None = None,
    class_names: Sequence[str] | None = None,
) -> Figure:
    """Where the latents lie, by class: a scatter of two dimensions, one histogram a class of one.

    Args:
        means: latent means, [n, 2] or [n, 1].
        labels: classes, [n], or None: then everything has one colour.
        title: what stands above.
        axis_names: names of the latent dimensions.
        ellipses: means [m, 2] and covariances [m, 2, 2] of the posteriors to draw at two standard deviations;
            left out with one dimension.
        class_names: the name of each label; by default its number.

    Raises:
        ValueError: means has neither one nor two columns.
    """
    if means.shape[1] not in (1, 2):
        raise ValueError(f"means must have one or two columns, got {means.shape[1]}: project them first")
    names, index = _classes(labels, class_names) if labels is not None else ([""], np.zeros(len(means), int))
    figure = _figure(title, 6.4, 5.4)
    axes = figure.add_subplot(xlabel=axis_names[0])
    if means.shape[1] == 1:
        _draw_histograms(axes, means[:, 0], index, names)
        return figure
    axes.set_ylabel(axis_names[1])
    axes.set_aspect("equal", adjustable="datalim")
    _draw_points(axes, means, index)
    handles = [] if labels is None else _class_handles(names)
    if labels is not None and len(names) <= MOST_NAMED:
        _write_names(axes, means, index, names)
    if ellipses is not None:
        handles.append(_draw_ellipses(axes, *ellipses))
    if handles:
        heading = "class" if len(names) <= MOST_NAMED else f"class (first\n{MOST_NAMED} of {len(names)})"
        _draw_legend(axes, handles, None if labels is None else heading)
    return figure


def _draw_legend(axes: Axes, handles: list[Line2D], heading: str | None) -> None:
    # Twenty classes and the ellipses would be higher than the figure at the usual size.
    size = (8, 0.3) if len(handles) > 12 else (10, 0.4)
    place: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
    legend = axes.legend(handles=handles, title=heading, fontsize=size[0], labelspacing=size[1], **place)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _classes(labels: np.ndarray, class_names: Sequence[str] | None) -> tuple[list[str], np.ndarray]:
    # The names of the classes that occur, and each image's place among them.
    classes, index = np.unique(labels, return_inverse=True)
    known = class_names or ()
    names = [known[label] if 0 <= label < len(known) else str(label) for label in classes]
    return [name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…" for name in names], index


def _draw_points(axes: Axes, means: np.ndarray, index: np.ndarray) -> None:
    order = np.random.default_rng(0).permutation(len(means))  # so that no class hides the others
    group = index[order] // len(COLOURS) % len(MARKERS)
    size = np.clip(40_000 / max(len(means), 1), 5, 25)
    style: dict[str, Any] = {"s": size, "alpha": 0.7, "linewidths": 0, "rasterized": True}
    for number, marker in enumerate(MARKERS):
        points = order[group == number]
        colours = [COLOURS[i % len(COLOURS)] for i in index[points]]
        axes.scatter(means[points, 0], means[points, 1], c=colours, marker=marker, **style)


def _class_handles(names: list[str]) -> list[Line2D]:
    style: dict[str, Any] = {"linestyle": "", "markersize": 9}
    looks = [(marker, colour) for marker in MARKERS for colour in COLOURS]
    return [
        Line2D([], [], marker=marker, color=colour, label=name, **style)
        for name, (marker, colour) in zip(names[:MOST_NAMED], looks, strict=False)
    ]


def _write_names(axes: Axes, means: np.ndarray, index: np.ndarray, names: list[str]) -> None:
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


def _draw_ellipses(axes: Axes, means: np.ndarray, covariances: np.ndarray) -> Line2D:
    for mean, covariance in zip(means, covariances, strict=True):
        variances, directions = np.linalg.eigh(covariance)
        widths = 2 * 2 * np.sqrt(np.maximum(variances, 0))  # a full axis is twice two standard deviations
        angle = np.degrees(np.arctan2(directions[1, 0], directions[0, 0]))
        outline = [withStroke(linewidth=2.6, foreground="white")]
        axes.add_patch(Ellipse(mean, *widths, angle=angle, fill=False, linewidth=1.1, path_effects=outline))
    style: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 11, "fillstyle": "none"}
    return Line2D([], [], color="black", label="posterior,\n2 standard\ndeviations", **style)


def _draw_histograms(axes: Axes, values: np.ndarray, index: np.ndarray, names: list[str]) -> None:
    edges = np.histogram_bin_edges(values, bins=80)
    counts = [np.histogram(values[index == i], edges)[0] for i in range(len(names))]
    if len(names) == 1:
        axes.stairs(counts[0], edges, fill=True, color=COLOURS[0])
        axes.set_ylabel(f"images per bin{names[0] and f', class {names[0]}'}")
        return
    for i, count in enumerate(counts):
        color = COLOURS[i % len(COLOURS)]
        axes.stairs(i + 0.9 * count / count.max(), edges, baseline=i, fill=True, color=color)
    step = -(-len(names) // MOST_NAMED)
    axes.set_yticks(range(0, len(names), step), names[::step], parse_math=False)
    axes.set_ylabel("class" if step == 1 else f"class (one in {step} is named)")
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.1, len(names))
    axes.set_title("how many images lie where; each row is scaled to its own peak", fontsize=9)


def tile(images: Float[np.ndarray, "rows columns h w c"]) -> Float[np.ndarray, "rows*h columns*w c"]:
    """Lay images edge to edge, row 0 at the top, with values clipped to [0, 1]."""
    rows, columns, height, width, channels = images.shape
    pixels = np.clip(images, 0, 1).transpose(0, 2, 1, 3, 4)
    return pixels.reshape(rows * height, columns * width, channels)


def _draw_tiles(axes: Axes, images: np.ndarray, line_width: float) -> None:
    # Drawn as RGB, so that 0 is black and 1 is white whatever the figure's other values are.
    rows, columns, height, width, channels = images.shape
    pixels = np.repeat(tile(images), 3 if channels == 1 else 1, axis=-1)
    axes.imshow(pixels, extent=(0, columns * width, rows * height, 0))
    axes.vlines(width * np.arange(1, columns), 0, rows * height, color="white", linewidth=line_width)
    axes.hlines(height * np.arange(1, rows), 0, columns * width, color="white", linewidth=line_width)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _picture(title: str, height: int, width: int, extra: float = 0.0) -> Figure:
    # High enough for pixels of this height and width, the lines of the title and `extra` inches.
    lines = sum(1 + len(line) // 75 for line in title.split("\n"))
    return _figure(title, 6.4, np.clip(5.5 * height / width, 0.4, 8) + 0.2 * lines + 0.2 + extra)


def _fold(images: np.ndarray, rows: int, columns: int) -> np.ndarray:
    # [n, ...] to [rows, columns, ...], filled up with white.
    empty = np.ones((rows * columns - len(images), *images.shape[1:]), images.dtype)
    return np.concatenate([images, empty]).reshape(rows, columns, *images.shape[1:])


def latent_grid(
    images: Float[np.ndarray, "rows columns h w c"],
    x_values: Float[np.ndarray, " columns"],
    y_values: Float[np.ndarray, " rows"] | None,
    title: str,
    axis_names: tuple[str, str] = ("$z_1$", "$z_2$"),
    note: str = "",
) -> Figure:
    """Decoded images at their places in the latent space; the axes grow to the right and upward.

    Args:
        images: in [0, 1]; images[i, j] belongs to y_values[i] and x_values[j], so row 0 is at the bottom.
        x_values: latent values of the columns, [columns].
        y_values: latent values of the rows, [rows], or None with one latent dimension.
        title: what stands above.
        axis_names: names of the latent dimensions.
        note: how the values were chosen; stands below.
    """
    rows, columns, height, width = images.shape[:4]
    figure = _picture(title, rows * height, columns * width, extra=0.8)
    axes = figure.add_subplot(xlabel=axis_names[0])
    _draw_tiles(axes, images[::-1], line_width=0.0)
    shown, texts = _ticks(x_values)
    axes.set_xticks((shown + 0.5) * width, texts)
    if y_values is not None:
        shown, texts = _ticks(y_values)
        axes.set_yticks((rows - shown - 0.5) * height, texts)
        axes.set_ylabel(axis_names[1])
    if note:
        figure.supxlabel(note, fontsize=9, wrap=True, parse_math=False)
    return figure


def _ticks(values: np.ndarray, number: int = 5) -> tuple[np.ndarray, list[str]]:
    shown = np.unique(np.linspace(0, len(values) - 1, number).round().astype(int))
    return shown, [f"{value:z.2f}".replace("-", "−") for value in values[shown]]


def reconstructions(
    originals: Float[np.ndarray, "n h w c"], reconstructions: Float[np.ndarray, "n h w c"], title: str
) -> Figure:
    """Originals above their reconstructions, at most 20 of them, ten side by side."""
    number = min(len(originals), 20)
    height, width = originals.shape[1:3]
    columns, pairs = min(number, 10), -(-number // 10)
    figure = _picture(title, 2 * pairs * height, columns * width, extra=0.1 * pairs)
    both = [_fold(images[:number], pairs, columns) for images in (originals, reconstructions)]
    for pair, axes in enumerate(figure.subplots(pairs, 1, squeeze=False)[:, 0]):
        _draw_tiles(axes, np.stack([images[pair] for images in both]), line_width=1.0)
        axes.set_yticks([0.5 * height, 1.5 * height], ["original", "reconstruction"], fontsize=9)
        axes.tick_params(length=0)
    return figure


def samples(images: Float[np.ndarray, "n h w c"], title: str) -> Figure:
    """Generated images in as square a tile as their number allows."""
    columns = int(np.ceil(np.sqrt(len(images))))
    rows = -(-len(images) // columns)
    figure = _picture(title, rows * images.shape[1], columns * images.shape[2])
    _draw_tiles(figure.add_subplot(), _fold(images, rows, columns), line_width=1.0)
    return figure


def training_curves(rows: list[dict[str, Any]], title: str, unit: str = "nats per image") -> Figure:
    """Loss, reconstruction and KL by epoch, on the train and the validation split.

    Args:
        rows: one for each epoch: {"epoch": 1, "train": {"loss", "reconstruction", "kl"}, "validation":
            {...}}. The KL is left out where it is always 0, as in an autoencoder.
        title: what stands above.
        unit: of all three.
    """
    epochs = np.array([row["epoch"] for row in rows])
    splits = ("train", "validation")
    curves = {
        name: np.array([[row[split][name] for row in rows] for split in splits], float)
        for name in ("loss", "reconstruction", "kl")
    }
    if np.all(curves["kl"] == 0):
        del curves["kl"]
    figure = _figure(title, 8.0, 3.4)
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for axes, (name, both) in zip(panels, curves.items(), strict=True):
        for split, curve, style, colour in zip(splits, both, ("o-", "s--"), COLOURS[:2], strict=True):
            axes.plot(epochs, curve, style, color=colour, label=split, markersize=4 if len(rows) <= 15 else 0)
        axes.set_title("KL" if name == "kl" else name, fontsize=10)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
        pad = 0.03 * (epochs[-1] - epochs[0]) or 0.5
        axes.set_xlim(epochs[0] - pad, epochs[-1] + pad)
        _focus(axes, epochs, both)
    panels[0].set_ylabel(unit)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _focus(axes: Axes, epochs: np.ndarray, curves: np.ndarray) -> None:
    # A linear axis over everything hides the later epochs where the first is far off, and a logarithmic one
    # barely helps, as losses end far from 0. So where the first tenth takes most of the axis, it is
    # made for the rest, and the panel says in words which epochs lie outside and how far.
    late = curves[:, -(-len(epochs) // 10) :]
    late = late[np.isfinite(late)]
    every = curves[np.isfinite(curves)]
    if len(epochs) < 5 or not late.size or np.ptp(every) <= 3 * np.ptp(late):
        return
    margin = 0.25 * np.ptp(late)
    low, high = late.min() - margin, late.max() + margin
    outside = np.any((curves < low) | (curves > high), axis=0)
    axes.set_ylim(low, high)
    first = epochs[outside]
    which = f"epoch {first[0]}" if len(first) == 1 else f"epochs {first[0]}–{first[-1]}"
    above = curves[:, outside].max() > high
    extreme = f"above:\nup to {every.max():.4g}" if above else f"below:\ndown to {every.min():.4g}"
    style: dict[str, Any] = {"transform": axes.transAxes, "ha": "right", "fontsize": 8}
    height, align = (0.96, "top") if above else (0.04, "bottom")
    axes.text(0.97, height, f"{which} {extreme}", va=align, **style)


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG: whoever reads sees the old file or the new one."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
