"""Figures of compression: rate-distortion curves, and the same images through several codecs."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure

from vae_jax.plots.sheets import name_rows, picture
from vae_jax.plots.style import add_legend, log_axis, look, new_figure


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
        curves: by name; further up and further to the left is better.
        lossless: bits per pixel of lossless formats, at most four, drawn as vertical lines.
        title: what stands above.
    """
    figure = new_figure(title, 8.0, 5.0)
    axes = figure.add_subplot(xlabel="bits per pixel (logarithmic axis)", ylabel="mean PSNR of an image in dB")
    for i, (name, curve) in enumerate(curves.items()):
        order = np.argsort(curve.psnr)
        axes.plot(curve.bits_per_pixel[order], curve.psnr[order], label=name, markersize=5, **look(i))
    for (name, rate), style in zip(lossless.items(), (":", "--", "-.", "-"), strict=False):
        axes.axvline(rate, color="black", linestyle=style, linewidth=1, label=name)
    log_axis(axes)
    axes.grid(alpha=0.3)
    add_legend(figure, list(axes.lines))
    return figure


def compressed(rows: Sequence[Row], title: str) -> Figure:
    """One row of images for each codec, its name beside it.

    Args:
        rows: the originals first; all with the same number of images.
        title: what stands above.
    """
    images = np.stack([row.images for row in rows]) / np.float32(255)
    figure, axes = picture(title, [[images]], width=6.2, beside=1.8, lowest=0.34)
    name_rows(axes[0, 0], [row.name for row in rows])
    return figure
