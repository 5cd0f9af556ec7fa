"""Figures of paths through a latent space: NumPy arrays in, matplotlib figures out."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from vae_jax.plots.style import COLOURS, draw_tiles, new_figure


def traversals(
    images: Float[np.ndarray, "rows steps h w c"],
    base: Float[np.ndarray, "2 h w c"],
    nearest: Integer[np.ndarray, " rows"],
    levels: Sequence[float],
    names: Sequence[str],
    ranges: Sequence[str],
    title: str,
    note: str = "",
) -> Figure:
    """Images decoded along one latent dimension a row, below the image that they start from.

    Args:
        images: in [0, 1], a row for each dimension and a column for each quantile, at least two.
        base: the original image and its reconstruction.
        nearest: the column of each row that is nearest to the base; framed.
        levels: the quantile of each column, in (0, 1).
        names: what stands to the left of each row.
        ranges: what stands to the right of each row: from where to where it goes.
        title: what stands above.
        note: how the values were chosen; stands below.
    """
    rows, steps, height, width = images.shape[:4]
    first = np.ones_like(images[:1])
    first[0, :2] = base
    figure = _tall_figure(title, (rows + 1) * height, steps * width, extra=0.9)
    axes = figure.add_subplot()
    draw_tiles(axes, np.concatenate([first, images]), line_width=1.0)
    axes.axhline(height, color="white", linewidth=6)
    axes.text(2.15 * width, 0.5 * height, "image and its reconstruction", va="center", fontsize=9)
    for row, column in enumerate(nearest):
        corner = (column * width, (row + 1) * height)
        axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=COLOURS[1], linewidth=1.5))
    middles = (np.arange(rows) + 1.5) * height
    axes.set_yticks([0.5 * height, *middles], ["from", *names], fontsize=9)
    axes.set_xticks((np.arange(steps) + 0.5) * width, [f"{level:.0%}" for level in levels], fontsize=9)
    axes.set_xlabel("quantile of the dimension (framed: nearest to the image's own latent)")
    axes.tick_params(length=0)
    right = axes.secondary_yaxis("right")
    right.set_yticks(middles, ranges, fontsize=8)
    right.tick_params(length=0)
    right.spines[:].set_visible(False)
    if note:
        figure.supxlabel(note, fontsize=9, wrap=True, parse_math=False)
    return figure


def interpolations(
    ends: Float[np.ndarray, "pairs 2 h w c"],
    decoded: Float[np.ndarray, "pairs kinds steps h w c"],
    names: Sequence[str],
    kinds: Sequence[str],
    title: str,
    note: str = "",
) -> Figure:
    """Images decoded on the way from one code to another, between the two images that the codes are of.

    Args:
        ends: the two images of each pair, in [0, 1].
        decoded: the images between them, a row for each kind of path.
        names: what a pair is called, such as "3 to 8".
        kinds: what a path is called, such as "straight".
        title: what stands above.
        note: stands below.
    """
    pairs, number, steps, height, width, channels = decoded.shape
    gap = max(width // 4, 1)
    # The originals stand apart from what the model made, and each pair from the next.
    panel_width = (steps + 2) * width + 2 * gap
    figure = _tall_figure(title, pairs * (number * height + gap), panel_width, extra=0.7)
    for pair, axes in enumerate(figure.subplots(pairs, 1, squeeze=False)[:, 0]):
        panel = np.ones((number, height, panel_width, channels), decoded.dtype)
        panel[:, :, width + gap : -width - gap] = (
            decoded[pair].transpose(0, 2, 1, 3, 4).reshape(number, height, steps * width, channels)
        )
        panel[:, :, :width], panel[:, :, -width:] = ends[pair]
        draw_tiles(axes, panel[:, None], line_width=0.0)
        axes.set_yticks((np.arange(number) + 0.5) * height, kinds, fontsize=9)
        axes.set_ylabel(names[pair], fontsize=9, parse_math=False)
        axes.tick_params(length=0)
        if pair == pairs - 1:
            places = [0.5 * width, *(width * np.linspace(1.5, steps + 0.5, 5) + gap), panel_width - 0.5 * width]
            axes.set_xticks(places, ["image", "0", "¼", "½", "¾", "1", "image"], fontsize=9)
            axes.set_xlabel("share of the way; at 0 and 1 the reconstructions")
    if note:
        figure.supxlabel(note, fontsize=9, wrap=True, parse_math=False)
    return figure


def _tall_figure(title: str, height: int | float, width: int, extra: float) -> Figure:
    # High enough for pixels of this height and width, the lines of the title and `extra` inches.
    lines = sum(1 + len(line) // 90 for line in title.split("\n"))
    return new_figure(title, 8.0, float(np.clip(6.0 * height / width, 0.5, 14)) + 0.2 * lines + extra)
