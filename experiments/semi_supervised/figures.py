"""The figure of errors by the number of labels."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from vae_jax.plots.style import add_legend, look, new_figure


def errors_by_labels(
    found: Mapping[int, Mapping[str, Sequence[float]]], names: Mapping[str, str], title: str
) -> Figure:
    """Test errors in percent, a point for each seed and a line through their means, by the number of labels.

    Args:
        found: by number of labels and method the errors of the seeds, as shares.
        names: of the methods in the legend.
        title: what stands above.
    """
    figure = new_figure(title, 7.2, 4.8)
    axes = figure.subplots()
    numbers = [*found]
    for i, (method, name) in enumerate(names.items()):
        values = [100 * np.asarray(found[number][method]) for number in numbers]
        axes.plot(numbers, [one.mean() for one in values], label=f"{name}", markersize=8, **look(i))
        for number, one in zip(numbers, values, strict=True):
            axes.plot([number] * len(one), one, linestyle="", markersize=3, alpha=0.6, **look(i))
    axes.set(xscale="log", xlabel="labelled training images", ylabel="test error in % (small: each seed)")
    axes.set_ylim(bottom=0)
    axes.set_xticks(numbers, [f"{number:,}" for number in numbers], minor=False)
    axes.minorticks_off()
    add_legend(figure, axes.get_legend_handles_labels()[0], below=True)
    return figure
