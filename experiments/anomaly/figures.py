"""Figures of anomaly detection: NumPy arrays in, matplotlib figures out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.figure import Figure

from vae_jax.plots.sheets import name_rows, picture
from vae_jax.plots.style import add_legend, look, new_figure, shorten

GROUPS = (
    "normal images,\nleast anomalous",
    "normal images, most\nanomalous: false alarms",
    "anomalies, least\nanomalous: misses",
    "anomalies,\nmost anomalous",
)
"""What the columns of `extremes` show."""


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
    figure, axes = picture(title, [list(np.moveaxis(images, 1, 0))], width=8.8, beside=1.2, extra=0.5, lowest=0.2)
    for panel, group in zip(axes[0], GROUPS, strict=True):
        panel.set_title(group, fontsize=9)
    name_rows(axes[0, 0], [shorten(name) for name in names])
    axes[0, 0].set_ylabel(axis_name)
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
        chosen: position of the score that was fixed beforehand; larger.
        baselines: which scores know no model.
        axis_name: what a class is here.
        title: what stands above.
    """
    classes = len(names)
    places = np.append(np.arange(classes), classes + 0.4)
    shifts = np.linspace(-0.3, 0.3, len(scores))
    figure = new_figure(title, max(8.0, 2.8 + 0.75 * classes), 5.6)
    axes = figure.add_subplot(xlabel=axis_name, ylabel="AUROC on the test images")
    for i, (score, row) in enumerate(zip(scores, values, strict=True)):
        style: dict[str, Any] = look(i) | {"linestyle": "", "markersize": 8 if i == chosen else 5.5}
        style["label"] = f"{score} (fixed beforehand)" if i == chosen else score
        style["fillstyle"] = "none" if baselines[i] else "full"
        axes.plot(places + shifts[i], np.append(row, row.mean()), zorder=4 if i == chosen else 3, **style)
    add_legend(figure, list(axes.lines), "filled: the model's\nempty: baselines")
    axes.axhline(0.5, color="0.5", linewidth=1, linestyle=":", zorder=1)
    axes.text(-0.55, 0.5, "chance", fontsize=8, color="0.35", va="bottom")
    for place in places:
        axes.axvspan(place - 0.4, place + 0.4, color="0.96", zorder=0)
    axes.set(xlim=(-0.6, classes + 0.9), ylim=(min(0.45, values.min() - 0.03), 1.01))
    texts = [*map(shorten, names), "mean"]
    slant: dict[str, Any] = {"rotation": 30, "ha": "right"} if max(map(len, texts)) > 6 else {}
    axes.set_xticks(places, texts, parse_math=False, **slant)
    axes.grid(axis="y", color="0.85", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure
