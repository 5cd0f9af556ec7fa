"""The figure of lossless compression: bits a value of each way of coding."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from vae_jax.plots.style import new_figure


def bars(rates: Mapping[str, tuple[float, float]], bound: float, title: str) -> Figure:
    """Two bars for each way of coding, the shortest file on top.

    Args:
        rates: by name, bits a value of all images in one file, and of each in a file of its own.
        bound: the negative evidence lower bound in bits a value, a line.
        title: what stands above.
    """
    order = sorted(rates, key=lambda name: -rates[name][0])
    figure = new_figure(title, 8.0, 1.2 + 0.55 * len(order))
    axes = figure.add_subplot(xlabel="bits a value (all bytes counted; less is better)")
    for at, (label, colour) in enumerate((("all images in one file", "C0"), ("each image a file of its own", "C1"))):
        places = [i + 0.19 - 0.38 * at for i in range(len(order))]
        drawn = axes.barh(places, [rates[name][at] for name in order], 0.36, label=label, color=colour)
        axes.bar_label(drawn, fmt="%.3f", padding=2, fontsize=8)
    axes.axvline(bound, color="black", linestyle=":", linewidth=1, label="-ELBO of the test images")
    axes.set_yticks(range(len(order)), order)
    axes.set_xlim(0, 1.12 * max(max(pair) for pair in rates.values()))
    axes.legend(loc="lower right", fontsize=8)
    return figure
