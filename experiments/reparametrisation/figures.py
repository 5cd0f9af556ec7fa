"""The figure of gradient estimators."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from vae_jax.plots.style import add_legend, look, new_figure


def gradients(
    variance: Mapping[str, float],
    bias: Mapping[str, float],
    names: Mapping[str, str],
    draws: Mapping[str, Float[np.ndarray, "draws parameters"]],
    true: Float[np.ndarray, " parameters"],
    title: str,
) -> Figure:
    """Single draws of each estimator around the true gradient, far and near, and how their variance falls with samples.

    Args:
        variance: by estimator, variance of one draw over the squared length of the true gradient.
        bias: by estimator, distance of the mean of many draws from the true gradient, over its length.
        names: how each estimator is called in the legend.
        draws: single draws for one typical image; the first two values are shown (with one latent dimension mean and
            logvar).
        true: the true gradient for that image.
        title: what stands above.
    """
    figure = new_figure(title, 15.5, 4.8)
    far, near, panel = figure.subplots(1, 3)
    samples = 2 ** np.arange(0, 15)
    for i, (key, name) in enumerate(names.items()):
        for cloud in (far, near):
            cloud.plot(*draws[key][:, :2].T, linestyle="", markersize=4, alpha=0.6, zorder=4 - i, **look(i))
        label = name if variance[key] > 0 else f"{name}: zero, {bias[key]:.0%} wrong"
        panel.plot(samples, variance[key] / samples, label=label, markersize=4, **look(i))
    two = ("mean of $z_1$", "mean of $z_2$") if len(true) > 2 else ("mean of $z_1$", "log variance of $z_1$")
    for cloud, widest in ((far, "score"), (near, "baseline")):
        cloud.plot(*true[:2], "*", color="white", markeredgecolor="black", markersize=16, zorder=10)
        wide = np.percentile(np.abs(draws[widest][:, :2] - true[:2]), 90, axis=0)
        cloud.set_xlim(true[0] - wide[0], true[0] + wide[0])
        cloud.set_ylim(true[1] - wide[1], true[1] + wide[1])
        cloud.set(xlabel=f"derivative for the {two[0]}, nats", ylabel=f"derivative for the {two[1]}, nats")
    far.set_title(f"{len(draws['score'])} gradients from one latent sample each, a typical image", fontsize=10)
    near.set_title("the same, closer to the true gradient (star)", fontsize=10)
    panel.set(xscale="log", yscale="log", xlabel="latent samples", ylabel="variance / squared length of the gradient")
    add_legend(figure, list(panel.lines), below=True)
    panel.axhline(1, color="grey", linestyle="--", linewidth=0.8)
    panel.set_title("variance; above the dashed line noise outweighs the gradient", fontsize=10)
    return figure
