"""Figures of denoisers compared: NumPy arrays in, matplotlib figures out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from vae_jax.plots.style import COLOURS, draw_tiles, new_figure

_BAR_COLOURS = {
    "noisy": COLOURS[7],
    "Gaussian filter": COLOURS[5],
    "median 3x3": COLOURS[9],
    "linear MMSE": COLOURS[8],
    "AE": COLOURS[0],
    "VAE": COLOURS[3],
    "denoising AE": COLOURS[1],
}


def denoised(
    panels: Sequence[tuple[str, Mapping[str, Float[np.ndarray, "n h w c"]], Mapping[str, float]]], title: str
) -> Figure:
    """The same images clean, noisy and after each method, one panel a corruption, one row a method.

    Args:
        panels: for each corruption what stands above it, the images by row name, and the mean PSNR in dB of the rows
            that have one. All panels have the same rows and as many images.
        title: what stands above all.
    """
    rows = {name: np.stack([images[name] for _, images, _ in panels]) for name in panels[0][1]}
    count, height, width = next(iter(rows.values())).shape[1:4]
    across = max(2.6, 0.5 * count)
    figure = new_figure(title, 1.2 + across * len(panels), 1.0 + len(rows) * across / count * height / width)
    for i, (axes, (caption, _, means)) in enumerate(
        zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True)
    ):
        draw_tiles(axes, np.stack([images[i] for images in rows.values()]), line_width=1.0)
        axes.set_title(caption, fontsize=10, parse_math=False)
        labels = [f"{means[name]:.1f} dB" if name in means else "" for name in rows]
        if i == 0:
            labels = [f"{name}\n{label}".strip() for name, label in zip(rows, labels, strict=True)]
        axes.set_yticks(height * (np.arange(len(rows)) + 0.5), labels, fontsize=8)
        axes.tick_params(length=0)
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
    spare = iter(COLOURS)
    for i, method in enumerate(methods):
        place = np.arange(len(groups)) + (i - (len(methods) - 1) / 2) * width
        style: dict[str, Any] = {"color": _BAR_COLOURS.get(method) or next(spare), "label": method}
        axes.bar(place, [values[method] for _, values in groups], width, **style)
    axes.set_xticks(range(len(groups)), [name for name, _ in groups], parse_math=False)
    axes.tick_params(axis="x", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=min(4, len(methods)))
    return figure
