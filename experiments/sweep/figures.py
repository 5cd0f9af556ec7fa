"""The figure of a sweep over beta."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Integer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from vae_jax.plots.style import add_class_legend, classes_of, draw_plane, log_axis, look, new_figure

ELLIPSES = 15
Plane = tuple[Float[np.ndarray, "n two"], Float[np.ndarray, "n two"]]


def sweep(
    points: Mapping[int, Sequence[dict[str, Any]]],
    planes: Sequence[Plane],
    labels: Integer[np.ndarray, " n"] | None,
    plane_dim: int,
    title: str,
    class_names: Sequence[str] | None = None,
) -> Figure:
    """Latent planes in a row by beta; under them rate and distortion, the posterior's width, active units.

    Args:
        points: by latent dimension a list of {"beta", "reconstruction", "kl", "sigma": [5%, median, 95%],
            "active_units"}, in nats.
        planes: means and standard deviations in two dimensions, one pair for each beta of `plane_dim`.
        labels: classes, or None.
        plane_dim: the latent dimension that the planes belong to.
        title: what stands above.
        class_names: the name of each label; by default its number.
    """
    title += f"\nellipses: the posteriors of {ELLIPSES} test images at two standard deviations"
    figure = new_figure(title, max(2.6 * len(planes), 11.0), 7.2)
    halves = figure.add_gridspec(2, 1, height_ratios=[1, 1.25])
    names, index = classes_of(labels, len(planes[0][0]), class_names)
    row: Any = halves[0].subgridspec(1, len(planes)).subplots(squeeze=False)[0]
    for axes, point, plane in zip(row, points[plane_dim], planes, strict=True):
        _draw_plane(axes, plane, index)
        axes.set_title(f"beta {point['beta']:g}, {plane_dim}-D", fontsize=10)
    panels: Any = halves[1].subgridspec(1, 3).subplots()
    for i, (dim, each) in enumerate(points.items()):
        style: dict[str, Any] = look(i) | {"label": f"{dim}-D"}
        _draw_rate_distortion(panels[0], each, style, above=i % 2 == 0)
        _draw_by_beta(panels[1:], each, style, dim)
    if len(points) > 1:
        panels[0].legend(title="latent dimension")
    add_class_legend(figure, names, below=True)
    return figure


def _draw_plane(axes: Axes, plane: Plane, index: np.ndarray) -> None:
    means, sigmas = plane
    draw_plane(axes, means[:3000], index[:3000], equal=True)
    for mean, sigma in zip(means[:ELLIPSES], sigmas[:ELLIPSES], strict=True):
        axes.add_patch(Ellipse(mean, *(4 * sigma), fill=False, linewidth=0.8, color="black"))
    axes.tick_params(labelsize=8)
    axes.locator_params(nbins=4)


def _draw_rate_distortion(axes: Axes, points: Sequence[dict[str, Any]], style: dict[str, Any], above: bool) -> None:
    ordered = sorted(points, key=lambda point: point["kl"])
    spots = [(max(point["kl"], 1e-3), point["reconstruction"]) for point in ordered]
    axes.plot(*zip(*spots, strict=True), **style)
    place: dict[str, Any] = {"xytext": (4, 5)} if above else {"xytext": (-4, -5), "ha": "right", "va": "top"}
    place |= {"textcoords": "offset points", "fontsize": 8, "color": style["color"]}
    for spot, point in zip(spots, ordered, strict=True):
        axes.annotate(f"β={point['beta']:g}", spot, **place)
    axes.margins(x=0.12, y=0.12)
    log_axis(axes)
    axes.set(xlabel="rate: KL, nats (logarithmic)", ylabel="distortion: reconstruction, nats")
    axes.set_title("rate and distortion on test images", fontsize=10)


def _draw_by_beta(panels: Sequence[Axes], points: Sequence[dict[str, Any]], style: dict[str, Any], dim: int) -> None:
    width, active = panels
    betas = [f"{point['beta']:g}" for point in points]  # evenly, as they span 0 and powers of ten
    low, median, high = np.array([point["sigma"] for point in points]).T
    width.plot(betas, median, **style)
    width.fill_between(betas, low, high, color=style["color"], alpha=0.2, linewidth=0)
    width.axhline(1, color="grey", linewidth=0.8, linestyle="--")
    width.set(xlabel="beta", ylabel="posterior's sigma: median, 5% to 95%", yscale="log")
    width.set_title("width of the posteriors (dashed: the prior)", fontsize=10)
    active.plot(betas, [point["active_units"] / dim for point in points], **style)
    active.set(xlabel="beta", ylabel="share of active units", ylim=(-0.05, 1.05))
    active.set_title("active units", fontsize=10)
