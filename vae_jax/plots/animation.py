"""The GIF of the latent grid over the epochs, from which an interrupted run takes its frames back."""

import json
import os
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont, ImageSequence

from vae_jax.files import replacing

BAND = 64  # height in pixels of the text above each frame
COMMENT = b"vae_jax training progress, channels and epochs: "


def write_progress_gif(
    path: str | os.PathLike[str],
    grids: Mapping[int, UInt8[np.ndarray, "_ _ _"]],
    captions: Mapping[int, str],
    title: str,
) -> None:
    """Write one frame for each epoch: title, caption and progress bar above its grid; loops, 8 s up to 300 frames.

    Args:
        path: the GIF, replaced only when it is whole.
        grids: by epoch, 1 or 3 channels, [H, W, c]; enlarged to at least 400 pixels wide. Those that
            `read_progress_grids` gave back are taken as they are. Grey ones are stored without loss.
        captions: by epoch.
        title: stands in every frame.
    """
    epochs = sorted(grids)
    pixels = np.stack([_enlarge(grids[epoch]) for epoch in epochs])
    width, channels = pixels.shape[2:]
    texts = [f"{title}\n{captions[epoch]}" for epoch in epochs]
    size = min(_largest_font(text, width) for text in texts)
    frames = []
    for i, (grid, text) in enumerate(zip(pixels, texts, strict=True)):
        band = _band(text, width, size, (i + 1) / len(texts))
        frame = np.concatenate([np.repeat(band[..., None], channels, axis=2), grid])
        frames.append(Image.fromarray(frame[..., 0]) if channels == 1 else Image.fromarray(frame).quantize())
    # Browsers do not honour less than 20 ms.
    each = int(np.clip(6000 // max(len(frames) - 1, 1), 20, 500))
    options: dict[str, Any] = {"save_all": True, "append_images": frames[1:], "optimize": False, "loop": 0}
    options |= {
        "duration": [each] * (len(frames) - 1) + [2000],
        "comment": COMMENT + json.dumps([channels, epochs]).encode(),
    }
    with replacing(path) as temporary:
        frames[0].save(temporary, "GIF", **options)


def read_progress_grids(path: str | os.PathLike[str]) -> dict[int, UInt8[np.ndarray, "_ _ _"]]:
    """Read the enlarged grids, by epoch, back from a GIF that `write_progress_gif` wrote, so that a run can go on.

    Raises:
        ValueError: the GIF was written by something else.
    """
    with Image.open(path) as gif:
        comment = gif.info.get("comment", b"")
        if not comment.startswith(COMMENT):
            raise ValueError(f"{path} must be a GIF that write_progress_gif wrote")
        channels, epochs = json.loads(comment.removeprefix(COMMENT))
        mode = "L" if channels == 1 else "RGB"
        frames = [np.array(frame.convert(mode)) for frame in ImageSequence.Iterator(gif)]
    grids = [frame[BAND:].reshape(-1, frame.shape[1], channels) for frame in frames]
    return dict(zip(epochs, grids, strict=True))


def _enlarge(grid: np.ndarray) -> np.ndarray:
    factor = max(1, -(-400 // grid.shape[1]))
    return grid.repeat(factor, axis=0).repeat(factor, axis=1)


def _layout(text: str, width: int, size: int) -> tuple[str, ImageFont.FreeTypeFont]:
    font = ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)
    lines: list[str] = []
    for line in text.split("\n"):
        letters = int(len(line) * (width - 16) / max(font.getlength(line), 1))
        lines += textwrap.wrap(line, max(letters, 1)) or [""]
    return "\n".join(lines), font


def _largest_font(text: str, width: int) -> int:
    draw = ImageDraw.Draw(Image.new("L", (1, 1)))
    for size in range(17, 5, -1):
        wrapped, font = _layout(text, width, size)
        _, _, right, bottom = draw.multiline_textbbox((8, 4), wrapped, font)
        if right <= width - 8 and bottom <= BAND - 8:
            break
    return size


def _band(text: str, width: int, size: int, progress: float) -> np.ndarray:
    image = Image.new("L", (width, BAND), 255)
    wrapped, font = _layout(text, width, size)
    ImageDraw.Draw(image).multiline_text((8, 4), wrapped, 0, font)
    band = np.array(image)
    # The bar also keeps Pillow from merging frames with the same grid and caption: it grows by single pixels.
    bar = np.arange(4 * width) < progress * 4 * width
    band[-4:] = np.where(bar.reshape(width, 4).T, 96, 255)
    return band
