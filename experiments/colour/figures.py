"""The sheet of a model: test images, their reconstructions, samples."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from vae_jax.plots.sheets import fold, picture


def sheet(panels: Mapping[str, Float[np.ndarray, "n h w c"]], title: str) -> Figure:
    """Squares of images side by side, each under its name.

    Args:
        panels: by name, as many images each, in [0, 1].
        title: what stands above all.
    """
    figure, axes = picture(title, [[fold(images) for images in panels.values()]], 3.6 * len(panels), 0.1, 0.1)
    for panel, name in zip(axes[0], panels, strict=True):
        panel.set_title(name, fontsize=10, parse_math=False)
    return figure
