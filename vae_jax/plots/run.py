"""Figures of trained models: NumPy arrays in, matplotlib figures out, without pyplot and its global state."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Integer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from vae_jax.plots.sheets import fold, name_rows, picture, value_ticks
from vae_jax.plots.style import (
    COLOURS,
    MOST_NAMED,
    add_class_legend,
    add_legend,
    classes_of,
    draw_points,
    new_figure,
    shorten,
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
    names, index = classes_of(labels, len(means), class_names)
    figure = new_figure(title, 6.4, 5.4)
    axes = figure.add_subplot(xlabel=axis_names[0])
    if means.shape[1] == 1:
        _draw_histograms(axes, means[:, 0], index, names)
        return figure
    axes.set_ylabel(axis_names[1])
    axes.set_aspect("equal", adjustable="datalim")
    draw_points(axes, means, index)
    add_class_legend(figure, names, *([] if ellipses is None else [_draw_ellipses(axes, *ellipses)]))
    write_names(axes, means, index, names)
    return figure


def prior_density(
    x_values: Float[np.ndarray, " columns"],
    y_values: Float[np.ndarray, " rows"],
    density: Float[np.ndarray, "rows columns"],
    means: Float[np.ndarray, "n 2"],
    labels: Integer[np.ndarray, " n"] | None,
    title: str,
    class_names: Sequence[str] | None = None,
) -> Figure:
    """The density of a prior over a plane, and beside it where the latents of images lie, by class, on the same axes.

    Args:
        x_values: of the columns.
        y_values: of the rows.
        density: at these places.
        means: latent means.
        labels: classes, [n], or None.
        title: what stands above.
        class_names: the name of each label; by default its number.
    """
    names, index = classes_of(labels, len(means), class_names)
    figure = new_figure(title, 10.4, 5.0)
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    # Its square root, as peaks would leave all else dark.
    left.pcolormesh(x_values, y_values, np.sqrt(density), cmap="viridis", shading="nearest", rasterized=True)
    left.set(xlabel="$z_1$", ylabel="$z_2$")
    left.set_title("square root of the prior's density", fontsize=9)
    right.set(xlabel="$z_1$", xlim=(x_values[0], x_values[-1]), ylim=(y_values[0], y_values[-1]))
    right.set_title("latents of images", fontsize=9)
    draw_points(right, means, index)
    write_names(right, means, index, names)
    for axes in (left, right):
        axes.set_aspect("equal", adjustable="box")
    add_class_legend(figure, names)
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
    rows = max(len(names), 1)
    edges = np.histogram_bin_edges(values, bins=80)
    for i in range(rows):
        count, _ = np.histogram(values[index == i], edges)
        axes.stairs(i + 0.9 * count / count.max(), edges, baseline=i, fill=True, color=COLOURS[i % len(COLOURS)])
    step = -(-rows // MOST_NAMED)
    axes.set_yticks(range(0, len(names), step), names[::step], parse_math=False)
    named = "class" if step == 1 else f"class (one in {step} is named)"
    axes.set(ylim=(-0.1, rows), ylabel=named if names else "")
    axes.tick_params(axis="y", length=0)
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
    rim = [images[:, :, [0, -1]].mean(), images[:, :, :, [0, -1]].mean()]
    # Images with a dark rim, such as digits, are told apart without gaps.
    figure, axes = picture(title, [[images[::-1]]], extra=0.5, note=note, gap=bool(max(rim) > 0.05))
    axes[0, 0].set_xlabel(axis_names[0])
    axes[0, 0].set_ylabel("" if y_values is None else axis_names[1])
    value_ticks(axes[0, 0], x_values, y_values)
    return figure


def reconstructions(
    originals: Float[np.ndarray, "n h w c"], reconstructions: Float[np.ndarray, "n h w c"], title: str
) -> Figure:
    """Originals above their reconstructions, at most 20 of them, ten side by side."""
    number = min(len(originals), 20)
    columns, pairs = min(number, 10), -(-number // 10)
    both = [fold(images[:number], columns) for images in (originals, reconstructions)]
    figure, axes = picture(title, [[pair] for pair in np.stack(both, axis=1)], extra=0.1 * pairs, lowest=0.2)
    for panel in axes[:, 0]:
        name_rows(panel, ["original", "reconstruction"])
    return figure


def samples(images: Float[np.ndarray, "n h w c"], title: str) -> Figure:
    """Generated images in as square a tile as their number allows."""
    return picture(title, [[fold(images)]])[0]


def conditions(images: Float[np.ndarray, "classes n h w c"], names: Sequence[str], title: str) -> Figure:
    """Images of each class in a row of its own, with its name."""
    figure, axes = picture(title, [[images]], lowest=0.2)
    name_rows(axes[0, 0], [shorten(name) for name in names])
    return figure


def dictionaries(atoms: Mapping[str, Float[np.ndarray, "_ height width channels"]], title: str) -> Figure:
    """A square of decoder atoms for each model.

    Args:
        atoms: by the model's name, changes of the decoder's output; each is scaled to its own largest absolute value.
        title: what stands above.
    """
    side = int(np.ceil(np.sqrt(max(map(len, atoms.values())))))
    panels = []
    for each in atoms.values():
        largest = np.maximum(np.abs(each).max(axis=(1, 2, 3), keepdims=True), np.finfo(np.float32).tiny)
        panels.append(fold(0.5 + 0.5 * each / largest, side))
    figure, axes = picture(title, [panels], width=3.3 * len(atoms), beside=0.1, extra=0.3)
    for panel, name in zip(axes[0], atoms, strict=True):
        panel.set_title(name, fontsize=10, parse_math=False)
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
        axes.margins(x=0.03)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
        _focus(axes, epochs, both)
    panels[0].set_ylabel(unit)
    add_legend(figure, panels[0].lines, below=True)
    return figure


def _focus(axes: Axes, epochs: np.ndarray, curves: np.ndarray) -> None:
    # A linear axis over everything hides the later epochs where the first is far off, and a logarithmic one
    # barely helps, as losses end far from 0. So where the first tenth takes most of the axis, it is
    # made for the rest, and the panel says in words which epochs lie outside and how far.
    late = curves[:, -(-len(epochs) // 10) :]
    late, every = late[np.isfinite(late)], curves[np.isfinite(curves)]
    if len(epochs) < 5 or not late.size or np.ptp(every) <= 3 * np.ptp(late):
        return
    low, high = late.min() - 0.25 * np.ptp(late), late.max() + 0.25 * np.ptp(late)
    axes.set_ylim(low, high)
    last = epochs[np.any((curves < low) | (curves > high), axis=0)][-1]
    far = every[np.argmax(np.abs(every - (low + high) / 2))]
    words = f"up to epoch {last} outside,\nas far as {far:.4g}"
    axes.text(0.97, 0.96 if far > high else 0.2, words, va="top", ha="right", fontsize=8, transform=axes.transAxes)
