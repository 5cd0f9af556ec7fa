"""Images in rows and columns, of any size and with any number of channels, so that their pixels can be seen."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from vae_jax.plots.style import add_note, new_figure

SHARPNESS = 300  # pixels an inch: twice those of a saved figure
LONGEST = 6  # an image is drawn at most so many times as long as wide, so that thin ones can be seen
HIGHEST = 9.0  # inches of all images of a figure
FRAME = (255, 127, 14)
PIXELS = 2**22
"""Of all images of a figure, before they are scaled: a decoder takes seconds for so many."""
_LEAST_SIDE = 3


def number_within(shape: Sequence[int], most: int, least: int = 1, pixels: int = PIXELS) -> int:
    """How many images of this shape a figure shows: `most`, or so few large ones as have room, but at least `least`."""
    return max(least, min(most, pixels // (shape[0] * shape[1])))


def side_within(shape: Sequence[int], most: int, pixels: int = PIXELS) -> int:
    """The same for a square of images: how many a side."""
    return max(min(most, _LEAST_SIDE), math.isqrt(number_within(shape, most**2, 1, pixels)))


def tile(
    images: Float[np.ndarray, "rows columns h w c"],
    size: tuple[int, int] | None = None,
    gap: int = 0,
    framed: Bool[np.ndarray, "rows columns"] | None = None,
) -> Float[np.ndarray, "high wide grey_or_rgb"]:
    """Lay images side by side, row 0 at the top, the values clipped to [0, 1] and rounded to 8 bits.

    Of the channels the first three are shown, or the first where there are two.

    Args:
        images: of any size and any number of channels.
        size: height and width of each image as shown: pixels are repeated or averaged. By default the image's own,
            but at most 1,200 pixels of all together, and no image longer than six times its width.
        gap: white pixels on each side of an image.
        framed: where the gap is orange.
    """
    rows, columns, height, width, channels = images.shape
    depth = 3 if channels > 2 else 1
    room = min(max(height, width), max(1200 // max(rows, columns), LONGEST))
    high, wide = size or shown_size((height, width), room)
    shape = (rows, columns, high + 2 * gap, wide + 2 * gap, depth if framed is None else 3)
    tiles = np.full(shape, 255, np.uint8)
    if framed is not None:
        tiles[framed] = FRAME
    for place in np.ndindex(rows, columns):
        pixels = np.rint(255 * np.clip(images[place][..., :depth], 0, 1)).astype(np.uint8)
        image = Image.fromarray(pixels if depth == 3 else pixels[..., 0])
        scaled = np.asarray(image.resize((wide, high), Image.Resampling.BOX))
        tiles[place][gap : gap + high, gap : gap + wide] = scaled.reshape(high, wide, depth)
    return tiles.transpose(0, 2, 1, 3, 4).reshape(rows * shape[2], columns * shape[3], -1) / np.float32(255)


def shown_size(shape: Sequence[int], room: int, lowest: int = 1) -> tuple[int, int]:
    """Height and width of an image of this shape as shown: `room` pixels long, and neither thin nor below `lowest`."""
    least = max(-(-room // LONGEST), lowest)
    high, wide = (max(round(room * side / max(shape[:2])), least) for side in shape[:2])
    return high, wide


def draw_tiles(
    axes: Axes, images: np.ndarray, size: tuple[int, int], gap: bool = True, framed: np.ndarray | None = None
) -> None:
    """Images on axes where each is one wide and one high: the middle of images[i, j] is at (j + 0.5, i + 0.5)."""
    border = 0 if not gap else 1 + max(size) // 96 if framed is None else 2 + max(size) // 48
    pixels = tile(images, size, border, framed)
    (rows, columns), (high, wide) = images.shape[:2], pixels.shape[:2]
    # As colours, so that 0 is black and 1 is white whatever the other values are.
    shown = np.broadcast_to(pixels, (high, wide, 3))
    axes.imshow(shown, extent=(0, columns, rows, 0), aspect=high * columns / (wide * rows))
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def image_note(shape: Sequence[int], size: tuple[int, int]) -> str:
    """What a figure has to say of how it shows images of this shape; empty where it shows them as they are."""
    height, width, channels = shape
    parts = []
    if channels == 2 or channels > 3:
        parts.append("channel 1 of 2" if channels == 2 else f"channels 1 to 3 of {channels} as red, green and blue")
    stretch = size[0] * width / (size[1] * height)
    if not 0.8 < stretch < 1.25:
        parts.append(f"{height} × {width} pixels, drawn {'higher' if stretch > 1 else 'wider'} than they are")
    return f"images: {'; '.join(parts)}" if parts else ""


def picture(
    title: str,
    panels: Sequence[Sequence[np.ndarray]],
    width: float = 5.5,
    beside: float = 0.9,
    extra: float = 0.0,
    lowest: float = 0.0,
    note: str = "",
    **options: Any,
) -> tuple[Figure, np.ndarray]:
    """A figure of panels of images, and its axes [rows, columns].

    Args:
        title: what stands above.
        panels: rows of panels, each [rows, columns, height, width, channels], all of one shape, in [0, 1].
        width: of the images, in inches.
        beside: inches of what stands to their left and right.
        extra: inches of what stands above and below them, beside title and notes.
        lowest: inches that an image is high and wide at least, so that names fit beside a row and below a column.
        note: stands below, with what `image_note` has to say.
        options: of `draw_tiles`.
    """
    down, across = len(panels), len(panels[0])
    rows, columns, *shape = panels[0][0].shape
    longest = max(min(width / (across * columns), HIGHEST / (down * rows), 4), lowest)
    size = shown_size(shape, max(int(SHARPNESS * longest), LONGEST), int(SHARPNESS * lowest))
    notes = "\n".join(filter(None, [note, image_note(shape, size)]))
    lines = sum(1 + len(line) // int(11.7 * (width + beside)) for text in (title, notes) for line in text.split("\n"))
    height = min(width * down * rows * size[0] / (across * columns * size[1]), max(HIGHEST, down * rows * lowest))
    figure = new_figure(title, width + beside, height + 0.2 * lines + 0.3 + extra)
    axes: Any = figure.subplots(down, across, squeeze=False)
    for place in np.ndindex(down, across):
        draw_tiles(axes[place], panels[place[0]][place[1]], size, **options)
    add_note(figure, notes)
    return figure, axes


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Write names to the left of the rows of images."""
    axes.set_yticks(np.arange(len(names)) + 0.5, names, fontsize=9, parse_math=False)
    axes.tick_params(length=0)


def value_ticks(
    axes: Axes, x_values: Float[np.ndarray, " columns"], y_values: Float[np.ndarray, " rows"] | None
) -> None:
    """Latent values below some columns of a grid of images, and beside some rows, the first of which is lowest."""
    rows = 1 if y_values is None else len(y_values)
    narrow = len(x_values) < 0.5 * rows * float(axes.get_aspect())
    for axis, values, number in ((axes.xaxis, x_values, 2 if narrow else 5), (axes.yaxis, y_values, 5)):
        if values is not None:
            shown = np.unique(np.linspace(0, len(values) - 1, number).round().astype(int))
            places = shown + 0.5 if axis is axes.xaxis else rows - shown - 0.5
            axis.set_ticks(places, [f"{value:z.2f}".replace("-", "−") for value in values[shown]])


def fold(images: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Images [n, ...] as [rows, columns, ...], filled up with white; by default in as square a tile as there can be."""
    columns = columns or int(np.ceil(np.sqrt(len(images))))
    empty = np.ones((-len(images) % columns, *images.shape[1:]), images.dtype)
    return np.concatenate([images, empty]).reshape(-1, columns, *images.shape[1:])
