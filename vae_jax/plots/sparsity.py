"""The figure of the dictionaries of sparse autoencoders."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from vae_jax.plots.sheets import fold, picture


def dictionaries(atoms: Mapping[str, Float[np.ndarray, "_ height width channels"]], title: str) -> Figure:
    """A square of decoder atoms for each model.

    Args:
        atoms: by the model's name, changes of the decoder's output; each is scaled to its own largest absolute value.
        title: what stands above.
    """
    side = int(np.ceil(np.sqrt(max(map(len, atoms.values())))))
    panels = []
    for each in atoms.values():
        largest = np.maximum(np.abs(each).max(axis=(1, 2, 3), keepdims=True), np.finfo(np.float32).tiny)
        panels.append(fold(0.5 + 0.5 * each / largest, -(-len(each) // side), side))
    figure, axes = picture(title, [panels], width=3.3 * len(atoms), beside=0.1, extra=0.3)
    for panel, name in zip(axes[0], atoms, strict=True):
        panel.set_title(name, fontsize=10, parse_math=False)
    return figure
