"""Figures of compression: rate-distortion curves, and the same images through several codecs."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from vae_jax.plots.style import COLOURS, draw_tiles, new_figure

_MARKERS = "osD^vPX"


class Curve(NamedTuple):
    """Points of a rate-distortion curve."""

    bits_per_pixel: Float[np.ndarray, " points"]
    psnr: Float[np.ndarray, " points"]
    """In dB."""


class Row(NamedTuple):
    """Images through one codec."""

    name: str
    images: UInt8[np.ndarray, "n h w c"]


def rate_distortion(curves: Mapping[str, Curve], lossless: Mapping[str, float], title: str) -> Figure:
    """Bits per pixel, on a logarithmic axis, against PSNR.

    Args:
        curves: by name, at most seven; further up and further to the left is better.
        lossless: bits per pixel of lossless formats, at most four, drawn as vertical lines.
        title: what stands above.
    """
    figure = new_figure(title, 8.0, 5.0)
    axes = figure.add_subplot(xlabel="bits per pixel (logarithmic axis)", ylabel="mean PSNR of an image in dB")
    axes.set_xscale("log")
    colours = [colour for colour in COLOURS if colour != "#DDCC77"]
    for i, (name, curve) in enumerate(curves.items()):
        look: dict[str, Any] = {"marker": _MARKERS[i], "markersize": 5, "color": colours[i]}
        order = np.argsort(curve.psnr)
        axes.plot(curve.bits_per_pixel[order], curve.psnr[order], label=name, **look)
    for (name, rate), style in zip(lossless.items(), (":", "--", "-.", "-"), strict=False):
        axes.axvline(rate, color="black", linestyle=style, linewidth=1, label=name)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    legend = axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def compressed(rows: Sequence[Row], title: str) -> Figure:
    """One row of images for each codec, its name beside it.

    Args:
        rows: the originals first; all with the same number of images.
        title: what stands above.
    """
    images = np.stack([row.images for row in rows]) / 255
    number, columns, height, width = images.shape[:4]
    shown = 6.2
    figure = new_figure(title, shown + 2.6, shown * number * height / (columns * width) + 0.7)
    axes = figure.add_subplot()
    draw_tiles(axes, images, line_width=1.5)
    axes.set_yticks((np.arange(number) + 0.5) * height, [row.name for row in rows], fontsize=9, parse_math=False)
    axes.tick_params(axis="y", length=0)
    return figure
