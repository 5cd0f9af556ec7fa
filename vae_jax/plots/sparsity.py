"""The figure of the dictionaries of sparse autoencoders."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from vae_jax.plots.style import draw_tiles, fold, new_figure


def dictionaries(atoms: Mapping[str, Float[np.ndarray, "_ height width channels"]], title: str) -> Figure:
    """A square of decoder atoms for each model.

    Args:
        atoms: by the model's name, changes of the decoder's output; each is scaled to its own largest absolute value.
        title: what stands above.
    """
    figure = new_figure(title, 3.4 * len(atoms), 4.3)
    for axes, (name, each) in zip(figure.subplots(1, len(atoms), squeeze=False)[0], atoms.items(), strict=True):
        side = int(np.ceil(np.sqrt(len(each))))
        largest = np.maximum(np.abs(each).max(axis=(1, 2, 3), keepdims=True), np.finfo(np.float32).tiny)
        draw_tiles(axes, fold(0.5 + 0.5 * each / largest, -(-len(each) // side), side), line_width=0.6)
        axes.set_title(name, fontsize=10, parse_math=False)
    return figure
