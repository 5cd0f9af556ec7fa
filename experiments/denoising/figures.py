"""Figures of denoisers compared: NumPy arrays in, matplotlib figures out."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from vae_jax.plots.sheets import name_rows, picture
from vae_jax.plots.style import COLOURS, add_legend, new_figure


def denoised(
    panels: Sequence[tuple[str, Mapping[str, Float[np.ndarray, "n h w c"]], Mapping[str, float]]], title: str
) -> Figure:
    """The same images clean, noisy and after each method, one panel a corruption, one row a method.

    Args:
        panels: for each corruption what stands above it, the images by row name, and the mean PSNR in dB of the rows
            that have one. All panels have the same rows and as many images.
        title: what stands above all.
    """
    sheets = [np.stack(list(images.values())) for _, images, _ in panels]
    across = len(panels) * max(2.6, 0.5 * sheets[0].shape[1])
    figure, axes = picture(title, [sheets], width=across, beside=1.0 + 0.6 * len(panels), extra=0.3, lowest=0.34)
    for i, (panel, (caption, images, means)) in enumerate(zip(axes[0], panels, strict=True)):
        panel.set_title(caption, fontsize=10, parse_math=False)
        numbers = [f"{means[name]:.1f} dB" if name in means else "" for name in images]
        names = [f"{name}\n{number}".strip() for name, number in zip(images, numbers, strict=True)]
        name_rows(panel, numbers if i else names)
    return figure


def psnr_bars(groups: Sequence[tuple[str, Mapping[str, float]]], title: str) -> Figure:
    """Mean PSNR by corruption and method: a group of bars a corruption.

    Args:
        groups: for each corruption its name and the mean PSNR in dB by method; all have the same methods.
        title: what stands above.
    """
    methods = list(groups[0][1])
    figure = new_figure(title, max(6.4, 2.0 + 1.7 * len(groups)), 4.2)
    axes = figure.add_subplot(ylabel="mean PSNR of test images (dB)")
    width = 0.8 / len(methods)
    bars = []
    for i, method in enumerate(methods):
        place = np.arange(len(groups)) + (i - (len(methods) - 1) / 2) * width
        heights = [values[method] for _, values in groups]
        bars.append(axes.bar(place, heights, width, color=COLOURS[i % len(COLOURS)], label=method))
    axes.set_xticks(range(len(groups)), [name for name, _ in groups], parse_math=False)
    axes.tick_params(axis="x", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    add_legend(figure, bars, below=True)
    return figure
