"""The figure of the tables: log-likelihoods of each model, and what others report."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vae_jax.plots.style import COLOURS, add_legend, new_figure

_OURS: dict[str, Any] = {"color": COLOURS[0], "marker": "o", "linestyle": "", "markersize": 7}
_TRAIN: dict[str, Any] = {"color": COLOURS[0], "marker": "o", "linestyle": "", "markersize": 5, "fillstyle": "none"}
_PUBLISHED: dict[str, Any] = {"color": COLOURS[1], "marker": "D", "linestyle": "", "markersize": 7, "fillstyle": "none"}


class Bar(NamedTuple):
    """A row of the table."""

    name: str
    test: float
    half: float | None
    """Half the width of the interval over seeds; None for one seed."""
    train: float
    published: Sequence[float]


def likelihoods(panels: Mapping[str, Sequence[Bar]], title: str) -> Figure:
    """Negative log-likelihoods in nats: a panel for each data set, a line for each row."""
    heights = [0.8 + 0.32 * len(bars) for bars in panels.values()]
    figure = new_figure(title, 9.0, 0.9 + sum(heights))
    every = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for axes, (name, bars) in zip(every, panels.items(), strict=True):
        for place, bar in enumerate(bars):
            if bar.half is not None:
                axes.plot([bar.test - bar.half, bar.test + bar.half], [place, place], color=COLOURS[0], linewidth=2)
            axes.plot([bar.train], [place], **_TRAIN)
            axes.plot(bar.published, [place] * len(bar.published), **_PUBLISHED)
            axes.plot([bar.test], [place], **_OURS)
        axes.set_yticks(range(len(bars)), [bar.name for bar in bars], parse_math=False)
        axes.set(ylim=(len(bars) - 0.4, -0.6))
        axes.set_title(name, fontsize=10, parse_math=False)
        axes.grid(axis="x", color="0.85", linewidth=0.6)
        axes.set_axisbelow(True)
    every[-1].set_xlabel("negative log-likelihood in nats an image (to the left is better)")
    several = any(bar.half is not None for bars in panels.values() for bar in bars)
    words = "test images, with 95% interval" if several else "test images, one seed"
    handles = [Line2D([], [], label=words, **_OURS), Line2D([], [], label="training images", **_TRAIN)]
    if any(bar.published for bars in panels.values() for bar in bars):
        handles.append(Line2D([], [], label="published", **_PUBLISHED))
    add_legend(figure, handles, below=True)
    return figure
