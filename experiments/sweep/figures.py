"""The figure of a sweep over beta."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Integer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from matplotlib.ticker import MaxNLocator

from vae_jax.plots.style import COLOURS, MARKERS, class_handles, classes_of, draw_points, new_figure

ELLIPSES = 15
Plane = tuple[Float[np.ndarray, "n two"], Float[np.ndarray, "n two"]]


def sweep(
    points: Mapping[int, Sequence[dict[str, Any]]],
    planes: Sequence[Plane],
    labels: Integer[np.ndarray, " n"] | None,
    plane_dim: int,
    title: str,
) -> Figure:
    """Latent planes in a row by beta; under them rate and distortion, the posterior's width, active units.

    Args:
        points: by latent dimension a list of {"beta", "reconstruction", "kl", "sigma": [5%, median, 95%],
            "active_units"}, in nats.
        planes: means and standard deviations in two dimensions, one pair for each beta of `plane_dim`.
        labels: classes, or None.
        plane_dim: the latent dimension that the planes belong to.
        title: what stands above.
    """
    title += f"\nellipses: the posteriors of {ELLIPSES} test images at two standard deviations"
    figure = new_figure(title, max(2.6 * len(planes), 11.0), 7.2)
    halves: Any = figure.subfigures(2, 1, height_ratios=[1, 1.25])
    top, bottom = halves
    betas = [point["beta"] for point in points[plane_dim]]
    for axes, beta, plane in zip(top.subplots(1, len(planes), squeeze=False)[0], betas, planes, strict=True):
        _draw_plane(axes, plane, labels)
        axes.set_title(f"beta {beta:g}, {plane_dim}-D", fontsize=10)
    panels = bottom.subplots(1, 3)
    for i, (dim, each) in enumerate(points.items()):
        style: dict[str, Any] = {"color": COLOURS[i % 10], "marker": MARKERS[i % len(MARKERS)], "label": f"{dim}-D"}
        _draw_rate_distortion(panels[0], each, style, above=i % 2 == 0)
        _draw_sigma(panels[1], each, style)
        _draw_active(panels[2], each, style, dim)
    if len(points) > 1:
        panels[0].legend(title="latent dimension")
    if labels is not None:
        handles = class_handles(classes_of(labels, None)[0])
        bottom.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=9, title="class")
    return figure


def _draw_plane(axes: Axes, plane: Plane, labels: np.ndarray | None) -> None:
    means, sigmas = plane
    index = np.zeros(len(means), int) if labels is None else classes_of(labels, None)[1]
    draw_points(axes, means[:3000], index[:3000])
    for mean, sigma in zip(means[:ELLIPSES], sigmas[:ELLIPSES], strict=True):
        axes.add_patch(Ellipse(mean, *(4 * sigma), fill=False, linewidth=0.8, color="black"))
    low, high = np.percentile(means, [0.5, 99.5], axis=0)
    half = max(0.6 * (high - low).max(), 1e-3)
    middle = (low + high) / 2
    axes.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half))
    axes.set_box_aspect(1)
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_locator(MaxNLocator(4))


def _draw_rate_distortion(axes: Axes, points: Sequence[dict[str, Any]], style: dict[str, Any], above: bool) -> None:
    ordered = sorted(points, key=lambda point: point["kl"])
    rate = [max(point["kl"], 1e-3) for point in ordered]
    axes.plot(rate, [point["reconstruction"] for point in ordered], **style)
    for x, point in zip(rate, ordered, strict=True):
        place: dict[str, Any] = (
            {"xytext": (4, 5), "ha": "left"} if above else {"xytext": (-4, -5), "ha": "right", "va": "top"}
        )
        place |= {"textcoords": "offset points", "fontsize": 8, "color": style["color"]}
        axes.annotate(f"β={point['beta']:g}", (x, point["reconstruction"]), **place)
    axes.set_xscale("log")
    axes.margins(x=0.12, y=0.12)
    axes.set(xlabel="rate: KL, nats (logarithmic)", ylabel="distortion: reconstruction, nats")
    axes.set_title("rate and distortion on test images", fontsize=10)


def _draw_sigma(axes: Axes, points: Sequence[dict[str, Any]], style: dict[str, Any]) -> None:
    betas = _positions(axes, points)
    low, median, high = np.array([point["sigma"] for point in points]).T
    axes.plot(betas, median, **style)
    axes.fill_between(betas, low, high, color=style["color"], alpha=0.2, linewidth=0)
    axes.axhline(1, color="grey", linewidth=0.8, linestyle="--")
    axes.set_yscale("log")
    axes.set(xlabel="beta", ylabel="posterior's sigma: median, 5% to 95%")
    axes.set_title("width of the posteriors (dashed: the prior)", fontsize=10)


def _draw_active(axes: Axes, points: Sequence[dict[str, Any]], style: dict[str, Any], dim: int) -> None:
    axes.plot(_positions(axes, points), [point["active_units"] / dim for point in points], **style)
    axes.set(xlabel="beta", ylabel="share of active units", ylim=(-0.05, 1.05))
    axes.set_title("active units", fontsize=10)


def _positions(axes: Axes, points: Sequence[dict[str, Any]]) -> np.ndarray:
    # Evenly, as betas span 0 and powers of ten.
    places = np.arange(len(points))
    axes.set_xticks(places, [f"{point['beta']:g}" for point in points])
    return places
