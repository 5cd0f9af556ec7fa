"""The studies' figures of numbers; those of images are in plots/test_sheets.py, of classes in plots/test_plots.py."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from rendered import check_texts, tick_texts

from experiments.anomaly.figures import auroc
from experiments.compression.figures import Curve, rate_distortion
from experiments.denoising.figures import psnr_bars
from experiments.dimensionality.figures import accuracy_by_dimension
from experiments.disentangle.figures import information_map
from experiments.reparametrisation.figures import gradients
from experiments.sweep.figures import sweep
from experiments.tables.figures import Bar, likelihoods

TITLE = "MNIST · a_title$\nof two lines"
RNG = np.random.default_rng(0)


def entries(figure):
    figure.canvas.draw()  # no name is taken for a formula
    check_texts(figure)
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_rate_and_distortion_of_every_codec_in_the_order_of_quality():
    curve = Curve(np.array([0.2, 0.1]), np.array([21.0, 20.0]))
    figure = rate_distortion({f"${i}": curve for i in range(7)}, {"PNG": 1.0}, TITLE)
    assert entries(figure) == [*(f"${i}" for i in range(7)), "PNG"]
    *curves, png = figure.axes[0].lines
    assert len({(line.get_color(), line.get_marker()) for line in curves}) == 7
    for line in curves:
        np.testing.assert_array_equal(line.get_xydata(), [[0.1, 20], [0.2, 21]])
    assert list(png.get_xdata()) == [1, 1]


def test_accuracy_is_joined_through_the_means_of_the_runs():
    rows = [("AE", 2, 0.8), ("AE", 2, 0.9), ("AE", 8, 0.95), ("PCA", 3, 0.5)]
    figure = accuracy_by_dimension(rows, {"AE": 0.87, "t-SNE_$": 0.966}, TITLE)
    assert entries(figure) == ["AE", "PCA", "AE, published: 0.870", "t-SNE_$, published: 0.966"]
    joined, runs, _, _, published, _ = figure.axes[0].lines
    np.testing.assert_allclose(joined.get_xydata(), [[2, 0.85], [8, 0.95]])
    np.testing.assert_allclose(runs.get_xydata(), [[2, 0.8], [2, 0.9], [8, 0.95]])
    assert published.get_color() == runs.get_color() == joined.get_color()
    assert published.get_fillstyle() == "none"
    assert tick_texts(figure.axes[0].get_xticklabels()) == ["2", "3", "8"]


@pytest.mark.parametrize("names", [["0", "1", "2"], ["T-shirt/top", "a bag", "a name as long as a sentence"]])
def test_auroc_of_every_class_and_the_mean(names):
    values = np.array([[0.9, 0.8, 0.7], [0.6, 0.5, 0.4]])
    figure = auroc(values, ["KL", "ink_$"], names, 1, np.array([False, True]), "the class", TITLE)
    assert entries(figure) == ["KL", "ink_$ (fixed beforehand)"]
    model, baseline, _ = figure.axes[0].lines
    np.testing.assert_allclose(model.get_ydata(), [0.9, 0.8, 0.7, 0.8])
    np.testing.assert_allclose(baseline.get_ydata(), [0.6, 0.5, 0.4, 0.5])
    assert (model.get_fillstyle(), baseline.get_fillstyle()) == ("full", "none")
    assert tick_texts(figure.axes[0].get_xticklabels()) == [*[n.replace(" as a sentence", " …") for n in names], "mean"]


def test_bars_of_each_method_stand_in_their_group():
    figure = psnr_bars([("noise_$", {"noisy": 10, "AE": 20}), ("mask", {"noisy": 12, "AE": 22})], TITLE)
    assert entries(figure) == ["noisy", "AE"]
    bars = [
        [(round(bar.get_x() + bar.get_width() / 2), bar.get_height()) for bar in c] for c in figure.axes[0].containers
    ]
    assert bars == [[(0, 10), (1, 12)], [(0, 20), (1, 22)]]
    assert len({to_hex(bar.get_facecolor()) for bar in figure.axes[0].patches}) == 2


def test_the_variance_of_gradients_falls_with_the_samples():
    keys = ("pathwise", "baseline", "score", "plain")
    draws = {key: RNG.normal(size=(20, 2)) for key in keys}
    variance = dict(zip(keys, (0.5, 3.0, 300.0, 0.0), strict=True))
    figure = gradients(variance, dict.fromkeys(keys, 0.25), {k: f"the {k}_$" for k in keys}, draws, np.ones(2), TITLE)
    assert entries(figure) == ["the pathwise_$", "the baseline_$", "the score_$", "the plain_$: zero, 25% wrong"]
    np.testing.assert_allclose(figure.axes[2].lines[0].get_ydata()[:3], [0.5, 0.25, 0.125])
    np.testing.assert_array_equal(figure.axes[0].lines[1].get_xydata(), draws["baseline"])


def test_the_information_gap_is_shown_of_each_run_and_what_each_latent_says_of_each_factor():
    shared = {name: RNG.uniform(size=(4, 2)) for name in ("VAE", "TC")}
    figure = information_map({"VAE": [0.1, 0.3], "TC": [0.7, 0.5]}, shared, ["size_$", "place"], TITLE)
    points, *maps, _ = figure.axes
    np.testing.assert_array_equal(points.lines[1].get_xydata(), [[1, 0.7], [1, 0.5]])
    assert [label.get_text() for label in points.get_xticklabels()] == ["VAE", "TC"]
    for axes, values in zip(maps, shared.values(), strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), values)
        assert [label.get_text() for label in axes.get_xticklabels()] == ["size_$", "place"]


def test_a_sweep_shows_rate_and_distortion_widths_and_active_units():
    points = [
        {"beta": b, "reconstruction": 100 + b, "kl": 10 - b, "sigma": [b, b + 1, b + 2], "active_units": 4 - b}
        for b in (0.0, 1.0, 4.0)
    ]
    plane = (RNG.normal(size=(40, 2)), np.full((40, 2), 0.5))
    figure = sweep({4: points, 2: points[:2]}, [plane] * 3, None, 4, TITLE)
    assert entries(figure) == []
    *planes, trade, width, active = figure.axes
    assert [axes.get_title() for axes in planes] == ["beta 0, 4-D", "beta 1, 4-D", "beta 4, 4-D"]
    assert all((patch.width, patch.height) == (2, 2) for axes in planes for patch in axes.patches)
    np.testing.assert_allclose(trade.lines[0].get_xydata(), [[6, 104], [9, 101], [10, 100]])
    np.testing.assert_allclose(width.lines[0].get_ydata(), [1, 2, 5])
    np.testing.assert_allclose(active.lines[0].get_ydata(), [1, 0.75, 0])
    np.testing.assert_allclose(active.lines[1].get_ydata(), [2, 1.5])


def test_likelihoods_stand_beside_what_is_published_with_intervals_where_there_are_seeds():
    bars = [Bar("gated_$", 84.4, 0.3, 83.0, [84.5, 84.45]), Bar("flow", 82.0, None, 80.0, [])]
    figure = likelihoods({"MNIST_$": bars, "Omniglot": bars[1:]}, TITLE)
    assert entries(figure) == ["test images, with 95% interval", "training images", "published"]
    first, second = figure.axes
    interval, train, published, test, *_ = first.lines
    np.testing.assert_allclose(interval.get_xdata(), [84.1, 84.7])
    np.testing.assert_allclose(published.get_xydata(), [[84.5, 0], [84.45, 0]])
    assert (train.get_xdata()[0], test.get_xdata()[0]) == (83.0, 84.4)
    assert tick_texts(first.get_yticklabels()) == ["gated_$", "flow"]
    assert len(second.lines) == 3
    assert entries(likelihoods({"Omniglot": bars[1:]}, TITLE)) == ["test images, one seed", "training images"]
