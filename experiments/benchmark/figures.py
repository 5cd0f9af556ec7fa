"""The figure of the benchmark."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from vae_jax.plots.style import COLOURS, new_figure

OWN, OTHER = COLOURS[0], COLOURS[7]
COLUMNS = 2


def training(cases: Sequence[tuple[str, Sequence[dict[str, Any]]]], title: str) -> Figure:
    """Bars of images a second, a panel for each model and batch size, the share of the roof beside each bar.

    Args:
        cases: the panel's heading, and for each contestant {"contestant", "title", "images_per_second" or None,
            "roof_share" or None, "unavailable": why there is no number, or None}; the contestant "ours" stands out.
        title: what stands above.
    """
    columns = min(COLUMNS, len(cases))
    rows = -(-len(cases) // columns)
    longest = max(len(contestants) for _, contestants in cases)
    figure = new_figure(title, 5.6 * columns, rows * (0.9 + 0.3 * longest) + 0.7)
    for i, (heading, contestants) in enumerate(cases):
        _draw_bars(figure.add_subplot(rows, columns, i + 1), heading, contestants)
    return figure


def _draw_bars(axes: Axes, heading: str, contestants: Sequence[dict[str, Any]]) -> None:
    # The fastest on top; those without a number at the bottom, with the reason in short.
    ordered = sorted(contestants, key=lambda row: -(row["images_per_second"] or 0.0))
    rates = np.array([row["images_per_second"] or 0.0 for row in ordered])
    colours = [OWN if row["contestant"] == "ours" else OTHER for row in ordered]
    bars = axes.barh([row["title"] for row in ordered], rates, color=colours)
    axes.bar_label(bars, [_label(row) for row in ordered], padding=4, fontsize=8)
    axes.tick_params(axis="y", labelsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.45 * rates.max() or 1.0)  # room for the words beside the longest bar
    axes.set_xlabel("images a second (share of the roof)", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_title(heading, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def _label(row: dict[str, Any]) -> str:
    if row["unavailable"]:
        return row["unavailable"].partition(" (")[0]
    share = f" ({row['roof_share']:.0%})" if row["roof_share"] else ""
    return f"{row['images_per_second']:,.0f}{share}"
