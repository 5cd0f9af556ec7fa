"""The figure of the mutual information gap: NumPy arrays in, a matplotlib figure out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from vae_jax.plots.style import look, new_figure


def information_map(
    migs: Mapping[str, Sequence[float]],
    shared: Mapping[str, Float[np.ndarray, "latent factors"]],
    factors: Sequence[str],
    title: str,
) -> Figure:
    """The MIG of each run by model; beside it what each latent dimension of one run says of each factor.

    Args:
        migs: of each run, by the name of its model.
        shared: mutual information by the entropy of the factor, in [0, 1], of one run of each model.
        factors: their names.
        title: what stands above.
    """
    figure = new_figure(title, 3.2 + 2.4 * len(shared), 4.2)
    panels: Any = figure.subplots(1, 1 + len(shared), squeeze=False)[0]
    points, *maps = panels
    for i, values in enumerate(migs.values()):
        points.plot([i] * len(values), values, linestyle="", **look(i))
        points.hlines(np.mean(values), i - 0.3, i + 0.3, color="grey")
    points.set_xticks(range(len(migs)), [*migs], rotation=20)
    points.set(xlim=(-0.6, len(migs) - 0.4), ylim=(0, max(0.5, 1.1 * max(map(max, migs.values())))), ylabel="MIG")
    points.set_title("each run, and the mean", fontsize=10)
    for axes, (name, values) in zip(maps, shared.items(), strict=True):
        drawn = axes.imshow(values, vmin=0, vmax=1, cmap="viridis", aspect="auto")
        axes.set_xticks(range(len(factors)), factors, rotation=40, ha="right", parse_math=False)
        axes.set_yticks([])
        axes.set_title(name, fontsize=10)
    maps[0].set_ylabel("latent dimensions, the largest KL first")
    figure.colorbar(drawn, ax=maps[-1]).set_label("mutual information / entropy of the factor")
    return figure
