"""The figure of what each sampling does for each group."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from vae_jax.plots.style import add_legend, look, new_figure


def by_group(
    panels: Sequence[tuple[str, Sequence[str], int, str, Mapping[str, np.ndarray]]],
    names: Mapping[str, str],
    title: str,
) -> Figure:
    """A panel for each measure and kind of groups; the thinned group's name is marked.

    Args:
        panels: what is measured, names of the groups, which is thinned, the axis' name, and by sampling the values
            [seeds, groups].
        names: how each sampling is called in the legend.
        title: what stands above.
    """
    figure = new_figure(title, 5.2 * len(panels), 4.6)
    axes = np.atleast_1d(figure.subplots(1, len(panels)))
    for panel, (what, groups, thinned, unit, found) in zip(axes, panels, strict=True):
        places = np.arange(len(groups))
        for i, (sampling, values) in enumerate(found.items()):
            shift = 0.18 * (i - (len(found) - 1) / 2)
            for one in values:
                panel.plot(places + shift, one, linestyle="", markersize=3, alpha=0.5, **look(i))
            panel.plot(
                places + shift, values.mean(axis=0), linestyle="", markersize=8, label=names[sampling], **look(i)
            )
        panel.axvspan(thinned - 0.5, thinned + 0.5, color="grey", alpha=0.15, zorder=0)
        panel.set_xticks(places, groups, rotation=0 if len(groups[0]) < 3 else 20)
        panel.set_ylabel(f"{unit} (small: each seed)")
        panel.set_title(what, fontsize=10)
    add_legend(figure, axes[0].get_legend_handles_labels()[0], below=True)
    return figure
