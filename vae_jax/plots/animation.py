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
        grids: by epoch, 1 or 3 channels, [H, W, c]; brought to at least 400 pixels wide. Those that
            `read_progress_grids` gave back are taken as they are, and left out where they have another size than the
            last. Grey ones are stored without loss.
        captions: by epoch; one line of each.
        title: its first three lines stand in every frame.
    """
    fitted = {epoch: _fit(grids[epoch]) for epoch in sorted(grids)}
    epochs = [epoch for epoch, grid in fitted.items() if grid.shape == fitted[max(fitted)].shape]
    pixels = np.stack([fitted[epoch] for epoch in epochs])
    width, channels = pixels.shape[2:]
    frames = []
    for i, (grid, epoch) in enumerate(zip(pixels, epochs, strict=True)):
        band = _band(title, captions[epoch], width, (i + 1) / len(epochs))
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
    """Read the grids as shown, by epoch, back from a GIF that `write_progress_gif` wrote, so that a run can go on.

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


def _fit(grid: np.ndarray) -> np.ndarray:
    # Wide enough for the text, by repeated pixels as far as the height allows, then by white.
    factor = max(1, min(-(-400 // grid.shape[1]), 1600 // grid.shape[0]))
    grid = grid.repeat(factor, axis=0).repeat(factor, axis=1)
    missing = max(0, 400 - grid.shape[1])
    return np.pad(grid, ((0, 0), (missing // 2, missing - missing // 2), (0, 0)), constant_values=255)


def _band(title: str, caption: str, width: int, progress: float) -> np.ndarray:
    font = ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSansMono.ttf"), 11)
    letters = int((width - 16) / font.getlength("0"))  # each is as wide
    lines = [part for line in title.split("\n") for part in textwrap.wrap(line, letters)][:3]
    lines += textwrap.wrap(caption, letters, max_lines=1, placeholder="…")
    image = Image.new("L", (width, BAND), 255)
    ImageDraw.Draw(image).multiline_text((8, 4), "\n".join(lines), 0, font, spacing=1)
    band = np.array(image)
    # The bar also keeps Pillow from merging frames with the same grid and caption: it grows by single pixels.
    bar = np.arange(4 * width) < progress * 4 * width
    band[-4:] = np.where(bar.reshape(width, 4).T, 96, 255)
    return band
