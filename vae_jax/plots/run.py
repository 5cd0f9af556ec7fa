"""Figures of trained models: NumPy arrays in, matplotlib figures out, without pyplot and its global state."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Integer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from vae_jax.plots.style import (
    COLOURS,
    MOST_NAMED,
    class_handles,
    classes_of,
    draw_legend,
    draw_points,
    draw_tiles,
    fold,
    new_figure,
    picture,
    ticks,
    write_names,
)


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
    names, index = classes_of(labels, class_names) if labels is not None else ([""], np.zeros(len(means), int))
    figure = new_figure(title, 6.4, 5.4)
    axes = figure.add_subplot(xlabel=axis_names[0])
    if means.shape[1] == 1:
        _draw_histograms(axes, means[:, 0], index, names)
        return figure
    axes.set_ylabel(axis_names[1])
    axes.set_aspect("equal", adjustable="datalim")
    draw_points(axes, means, index)
    handles = [] if labels is None else class_handles(names)
    if labels is not None and len(names) <= MOST_NAMED:
        write_names(axes, means, index, names)
    if ellipses is not None:
        handles.append(_draw_ellipses(axes, *ellipses))
    if handles:
        heading = "class" if len(names) <= MOST_NAMED else f"class (first\n{MOST_NAMED} of {len(names)})"
        draw_legend(axes, handles, None if labels is None else heading)
    return figure


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
    figure = picture(title, rows * height, columns * width, extra=0.8)
    axes = figure.add_subplot(xlabel=axis_names[0])
    draw_tiles(axes, images[::-1], line_width=0.0)
    shown, texts = ticks(x_values)
    axes.set_xticks((shown + 0.5) * width, texts)
    if y_values is not None:
        shown, texts = ticks(y_values)
        axes.set_yticks((rows - shown - 0.5) * height, texts)
        axes.set_ylabel(axis_names[1])
    if note:
        figure.supxlabel(note, fontsize=9, wrap=True, parse_math=False)
    return figure


def reconstructions(
    originals: Float[np.ndarray, "n h w c"], reconstructions: Float[np.ndarray, "n h w c"], title: str
) -> Figure:
    """Originals above their reconstructions, at most 20 of them, ten side by side."""
    number = min(len(originals), 20)
    height, width = originals.shape[1:3]
    columns, pairs = min(number, 10), -(-number // 10)
    figure = picture(title, 2 * pairs * height, columns * width, extra=0.1 * pairs)
    both = [fold(images[:number], pairs, columns) for images in (originals, reconstructions)]
    for pair, axes in enumerate(figure.subplots(pairs, 1, squeeze=False)[:, 0]):
        draw_tiles(axes, np.stack([images[pair] for images in both]), line_width=1.0)
        axes.set_yticks([0.5 * height, 1.5 * height], ["original", "reconstruction"], fontsize=9)
        axes.tick_params(length=0)
    return figure


def samples(images: Float[np.ndarray, "n h w c"], title: str) -> Figure:
    """Generated images in as square a tile as their number allows."""
    columns = int(np.ceil(np.sqrt(len(images))))
    rows = -(-len(images) // columns)
    figure = picture(title, rows * images.shape[1], columns * images.shape[2])
    draw_tiles(figure.add_subplot(), fold(images, rows, columns), line_width=1.0)
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
    figure = new_figure(title, 8.0, 3.4)
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
