"""Figures of anomaly detection: NumPy arrays in, matplotlib figures out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.figure import Figure

from vae_jax.plots.style import COLOURS, draw_tiles, new_figure

GROUPS = (
    "normal images,\nleast anomalous",
    "normal images, most\nanomalous: false alarms",
    "anomalies, least\nanomalous: misses",
    "anomalies,\nmost anomalous",
)
"""What the columns of `extremes` show."""
_MARKERS = "osD^vP*X"


def choose_extremes(
    scores: Float[np.ndarray, " n"], anomalous: Bool[np.ndarray, " n"], number: int
) -> list[np.ndarray]:
    """Positions of the images that `extremes` shows, the most extreme first: for each group at most `number`."""
    order = np.argsort(scores, kind="stable")
    normal, others = order[~anomalous[order]], order[anomalous[order]]
    return [normal[:number], normal[::-1][:number], others[:number], others[::-1][:number]]


def extremes(
    images: Float[np.ndarray, "classes groups number h w c"], names: Sequence[str], axis_name: str, title: str
) -> Figure:
    """The least and the most anomalous images, in a row for each class.

    Args:
        images: in [0, 1]; the groups are those of `GROUPS`, the most extreme image first; white where there is none.
        names: of the classes.
        axis_name: what a class is here.
        title: what stands above.
    """
    classes, groups, number, height, width = images.shape[:5]
    inches = 9.2 * classes * height / (groups * number * width)
    figure = new_figure(title, 9.6, float(np.clip(inches, 0.8, 16)) + 1.0)
    for group, axes in enumerate(figure.subplots(1, groups, squeeze=False)[0]):
        draw_tiles(axes, images[:, group], line_width=0.7)
        axes.set_title(GROUPS[group], fontsize=9)
        if group == 0:
            axes.set_yticks((np.arange(classes) + 0.5) * height, names, fontsize=10, parse_math=False)
            axes.tick_params(length=0)
            axes.set_ylabel(axis_name)
    return figure


def auroc(
    values: Float[np.ndarray, "scores classes"],
    scores: Sequence[str],
    names: Sequence[str],
    chosen: int,
    baselines: Bool[np.ndarray, " scores"],
    axis_name: str,
    title: str,
) -> Figure:
    """AUROC of each score for each class and on average: filled markers for the model's, empty ones for baselines.

    Args:
        values: AUROC; the mean over the classes is added.
        scores: their names.
        names: of the classes.
        chosen: position of the score that was fixed beforehand; joined by a line.
        baselines: which scores know no model.
        axis_name: what a class is here.
        title: what stands above.
    """
    classes = len(names)
    places = np.append(np.arange(classes), classes + 0.4)
    shifts = 0.6 * (np.arange(len(scores)) / max(len(scores) - 1, 1) - 0.5)
    figure = new_figure(title, max(8.0, 2.8 + 0.75 * classes), 5.6)
    axes = figure.add_subplot(xlabel=axis_name, ylabel="AUROC on the test images")
    for i, (score, row) in enumerate(zip(scores, values, strict=True)):
        colour = COLOURS[i % len(COLOURS)]
        label = f"{score} (fixed beforehand)" if i == chosen else score
        style: dict[str, Any] = {"color": colour, "markerfacecolor": "none" if baselines[i] else colour, "label": label}
        size: dict[str, Any] = {"markersize": 8 if i == chosen else 5.5, "zorder": 4 if i == chosen else 3}
        axes.plot(places + shifts[i], np.append(row, row.mean()), _MARKERS[i % len(_MARKERS)], **size, **style)
    axes.axhline(0.5, color="0.5", linewidth=1, linestyle=":", zorder=1)
    axes.text(-0.55, 0.5, "chance", fontsize=8, color="0.35", va="bottom")
    axes.axvline(classes - 0.3, color="0.5", linewidth=1, zorder=1)
    for place in places:
        axes.axvspan(place - 0.4, place + 0.4, color="0.96", zorder=0)
    axes.set_xlim(-0.6, classes + 0.9)
    axes.set_ylim(min(0.45, values.min() - 0.03), 1.01)
    axes.set_xticks(places, [*names, "mean"], parse_math=False)
    axes.grid(axis="y", color="0.85", linewidth=0.6)
    axes.set_axisbelow(True)
    figure.legend(loc="outside right center", fontsize=9, title="filled: the model's\nempty: baselines")
    return figure
