"""Figures of paths through a latent space: NumPy arrays in, matplotlib figures out."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vae_jax.plots.sheets import name_rows, picture


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
        names: what stands to the left of each row; may be a formula.
        ranges: what stands to the right of each row: from where to where it goes.
        title: what stands above.
        note: how the values were chosen; stands below.
    """
    rows, steps = images.shape[:2]
    first = np.ones_like(images[:1])
    first[0, :2] = base
    framed = np.zeros((rows + 1, steps), bool)
    framed[np.arange(rows) + 1, nearest] = True
    panel = np.concatenate([first, images])
    figure, axes = picture(title, [[panel]], 6.3, beside=1.7, extra=0.5, lowest=0.34, note=note, framed=framed)
    axes = axes[0, 0]
    axes.text(2.15, 0.5, "image and its reconstruction", va="center", fontsize=9)
    axes.set_xticks(np.arange(steps) + 0.5, [f"{level:.0%}" for level in levels], fontsize=9)
    axes.set_xlabel("quantile (framed: nearest to the image's own latent)")
    middles = np.arange(rows) + 1.5
    axes.set_yticks([0.5, *middles], ["from", *names], fontsize=9)
    axes.tick_params(length=0)
    _name_on_the_right(axes, middles, ranges, 8)
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
        ends: the two images of each pair, in [0, 1]; framed.
        decoded: the images between them, a row for each kind of path.
        names: what a pair is called, in one or two lines.
        kinds: what a path is called, such as "straight".
        title: what stands above.
        note: stands below.
    """
    pairs, number, steps = decoded.shape[:3]
    first, last = (np.repeat(ends[:, None, None, i], number, axis=1) for i in (0, 1))
    framed = np.zeros((number, steps + 2), bool)
    framed[:, [0, -1]] = True
    panels = [[panel] for panel in np.concatenate([first, decoded, last], axis=2)]
    options = {"beside": 2.1, "extra": 0.5 + 0.16 * pairs, "lowest": 0.34, "note": note, "framed": framed}
    figure, axes = picture(title, panels, 6.5, **options)
    for panel, name in zip(axes[:, 0], names, strict=True):
        panel.set_yticks([number / 2], [name], fontsize=9, parse_math=False)
        panel.tick_params(length=0)
        _name_on_the_right(panel, np.arange(number) + 0.5, kinds, 9)
    axes[-1, 0].set_xticks(np.linspace(1.5, steps + 0.5, 5), ["0", "¼", "½", "¾", "1"], fontsize=9)
    axes[-1, 0].set_xlabel("share of the way between the framed images; at 0 and 1 their reconstructions")
    return figure


def neighbours(
    images: Float[np.ndarray, "rows h w c"],
    found: Float[np.ndarray, "rows number h w c"],
    distances: Float[np.ndarray, "rows number"],
    names: Sequence[str],
    title: str,
) -> Figure:
    """An image a row, framed, and to its right the images that are nearest to it, with their distances below.

    Args:
        images: in [0, 1].
        found: the nearest first.
        distances: of the found ones.
        names: of the rows.
        title: what stands above.
    """
    rows, number = distances.shape
    framed = np.zeros((1, number + 1), bool)
    framed[0, 0] = True
    panels = [[panel[None]] for panel in np.concatenate([images[:, None], found], axis=1)]
    figure, axes = picture(title, panels, 6.0, beside=1.7, extra=0.25 * rows, lowest=0.45, framed=framed)
    for panel, name, row in zip(axes[:, 0], names, distances, strict=True):
        name_rows(panel, [name])
        panel.set_xticks(np.arange(1, number + 1) + 0.5, [f"{distance:.3g}" for distance in row], fontsize=8)
    return figure


def _name_on_the_right(axes: Axes, places: np.ndarray, names: Sequence[str], size: int) -> None:
    right = axes.secondary_yaxis("right")
    right.set_yticks(places, names, fontsize=size)
    right.tick_params(length=0)
    right.spines[:].set_visible(False)
