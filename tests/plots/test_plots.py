import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from PIL import Image
from rendered import check_texts, texts, tick_texts

from experiments.compare.figures import Space, comparison
from experiments.dimensionality.figures import embeddings
from experiments.sweep.figures import sweep
from vae_jax import plots

TITLE = "MNIST · VAE, 2 latent dimensions\ntest loss 134.9 nats"
LONG_TITLE = "embedded digits · " + "a title of many words that has to be wrapped " * 4
RNG = np.random.default_rng(0)


def latents(n=300, dim=2, classes=10):
    labels = None if classes is None else np.arange(n) % classes
    return RNG.normal(size=(n, dim)).astype(np.float32), labels


def pictures(*shape):
    return RNG.uniform(-0.1, 1.1, shape).astype(np.float32)


def history(epochs, kl=True, first=40.0):
    def split(epoch, shift):
        kl_nats = (5.0 + 0.1 * epoch + shift) * kl
        reconstruction = 130.0 + 10 / epoch**0.5 + first * (epoch == 1) + shift
        return {"loss": reconstruction + kl_nats, "reconstruction": reconstruction, "kl": kl_nats}

    return [{"epoch": e, "train": split(e, 0.0), "validation": split(e, 1.0)} for e in range(1, epochs + 1)]


ellipses = (np.zeros((2, 2)), np.stack([np.eye(2), np.diag([0.0, 0.1])]))
TABLE = {
    "means": (plots.latent_means, latents()),
    "means, 20 classes, ellipses": (partial(plots.latent_means, ellipses=ellipses), latents(classes=20)),
    "means, no labels": (plots.latent_means, latents(classes=None)),
    "means, one dimension": (plots.latent_means, latents(dim=1)),
    "means, one dimension, no labels": (plots.latent_means, latents(dim=1, classes=None)),
    "means, one dimension, 30 classes": (plots.latent_means, latents(dim=1, classes=30)),
    "means, 50 classes": (plots.latent_means, latents(classes=50)),
    "means, 10,000 points": (plots.latent_means, latents(10_000)),
    "means, one image": (plots.latent_means, latents(1)),
    "samples": (plots.samples, (pictures(100, 8, 8, 1),)),
    "grid, one dimension": (plots.latent_grid, (pictures(1, 15, 8, 8, 1), np.linspace(-2, 2, 15), None)),
    "curves": (plots.training_curves, (history(30),)),
    "curves, far first epoch": (plots.training_curves, (history(30, first=900.0),)),
    "curves, one epoch": (plots.training_curves, (history(1),)),
    "curves, no KL": (plots.training_curves, (history(5, kl=False),)),
}


def draw(function, arguments, title=TITLE, **options):
    # The title stands after the arrays, and before what describes them.
    figure = function(*arguments, title, **options)
    figure.draw_without_rendering()
    return figure


def legend_labels(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


@pytest.mark.parametrize("title", [TITLE, LONG_TITLE], ids=["short", "long"])
@pytest.mark.parametrize("case", TABLE)
def test_every_figure_holds_its_texts(case, title):
    figure = draw(*TABLE[case], title=title)
    assert title in [text.get_text() for text in texts(figure)]
    check_texts(figure)


def test_a_figure_is_saved_whole_and_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(Figure, "savefig", Figure.savefig.__wrapped__)  # as for users
    plots.save(draw(*TABLE["samples"]), tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as image:
        assert image.width == 150 * 6.4
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]


def test_importing_plots_imports_neither_jax_nor_pyplot():
    code = "import sys, vae_jax.plots.run; sys.exit(bool({'jax', 'matplotlib.pyplot'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


NAMES = ["a shirt", "$a$_{", "a name as long as a sentence"]
SHOWN = ["a shirt", "$a$_{", "a name as long …"]


def compared(names):
    points, labels = latents(classes=3)
    grid = (pictures(3, 3, 4, 4, 1), np.arange(3.0), np.arange(3.0), np.ones((5, 5)), (-1, 1, -1, 1))
    space = Space("AE", points, labels, ("$z_1$", "$z_2$"), *grid, pictures(2, 4, 4, 4, 1))
    return comparison([space], TITLE, class_names=names)


def swept(names):
    points, labels = latents(classes=3)
    measured = [{"beta": b, "reconstruction": 1, "kl": b, "sigma": [1, 2, 3], "active_units": 2} for b in (0.0, 1.0)]
    return sweep({2: measured}, [(points, np.ones_like(points))] * 2, labels, 2, TITLE, class_names=names)


CLASSES = {
    "two dimensions": lambda names: plots.latent_means(*latents(classes=3), TITLE, class_names=names),
    "embeddings": lambda names: embeddings([("AE", latents()[0])] * 4, latents(classes=3)[1], TITLE, class_names=names),
    "comparison": compared,
    "sweep": swept,
}


@pytest.mark.parametrize("figure", CLASSES.values(), ids=CLASSES)
def test_every_figure_of_classes_names_them(figure):
    assert legend_labels(figure(None)) == ["0", "1", "2"]
    named = figure(NAMES)
    assert legend_labels(named) == SHOWN
    named.canvas.draw()  # no name is taken for a formula
    check_texts(named)
    assert legend_labels(figure(NAMES[:1])) == ["a shirt", "1", "2"]


def test_one_dimension_draws_one_named_row_for_each_class():
    figure = draw(plots.latent_means, latents(dim=1, classes=3), class_names=NAMES)
    (axes,) = figure.axes
    assert tick_texts(axes.get_yticklabels()) == SHOWN
    means, labels = latents(1000, dim=1, classes=2)
    rows = draw(plots.latent_means, (means, labels)).axes[0].patches
    for number, row in enumerate(rows):
        counts = np.histogram(means[labels == number], row.get_data().edges)[0]
        np.testing.assert_allclose(row.get_data().values, number + 0.9 * counts / counts.max())


def test_the_posterior_stands_in_the_legend_and_the_names_at_the_points():
    figure = draw(plots.latent_means, latents(classes=3), class_names=NAMES, ellipses=ellipses)
    assert legend_labels(figure) == [*SHOWN, "posterior,\n2 standard\ndeviations"]
    assert [text.get_text() for text in figure.axes[0].texts] == SHOWN


@pytest.mark.parametrize(("classes", "entries"), [(None, 0), (1, 1), (10, 10), (20, 20), (50, 20)])
def test_the_legend_has_at_most_twenty_classes_and_says_so(classes, entries):
    figure = draw(plots.latent_means, latents(classes=classes))
    assert legend_labels(figure) == [str(label) for label in range(entries)]
    if entries:
        assert ("20 of 50" in figure.legends[0].get_title().get_text()) == (classes == 50)


def test_a_point_has_the_colour_of_its_class():
    means, labels = latents(400, classes=12)
    axes = draw(plots.latent_means, (means, labels)).axes[0]
    seen = {}
    for points in axes.collections:
        colours = np.broadcast_to(points.get_facecolors(), (len(points.get_offsets()), 4))
        seen |= {tuple(spot): colour[:3] for spot, colour in zip(points.get_offsets().data, colours, strict=True)}
    assert len(seen) == len(means)
    for mean, label in zip(means, labels, strict=True):
        wanted = [int(plots.style.COLOURS[label % 10][i : i + 2], 16) / 255 for i in (1, 3, 5)]
        np.testing.assert_allclose(seen[tuple(mean)], wanted, atol=1e-6)
    assert axes.get_aspect() == 1


@pytest.mark.parametrize("scale", [1, 1e-3, 0])
@pytest.mark.parametrize("names", [None, [f"class of name {i}" for i in range(20)]], ids=["numbers", "words"])
def test_written_class_names_do_not_overlap_and_stay_near_their_points(names, scale):
    means, labels = latents(400, classes=20 if names else 10)
    means = scale * means + 0.1 * np.stack([labels % 2, labels == 3], axis=1)  # all medians near the origin
    axes = draw(plots.latent_means, (means, labels), class_names=names).axes[0]
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == (20 if names else 10)
    assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
    assert all(axes.bbox.padded(1).contains(*corner) for box in boxes for corner in (box.min, box.max))


def test_a_written_name_that_is_alone_stands_at_its_median():
    labels = np.arange(100) % 2
    means = RNG.normal(size=(100, 2)) + 50 * labels[:, None]
    for text in draw(plots.latent_means, (means, labels)).axes[0].texts:
        np.testing.assert_allclose(text.get_position(), np.median(means[labels == int(text.get_text())], axis=0))


def test_three_dimensions_are_refused():
    with pytest.raises(ValueError, match="one or two columns, got 3"):
        plots.latent_means(*latents(dim=3), TITLE)


def test_ellipses_lie_at_two_standard_deviations():
    root = RNG.normal(size=(5, 2, 2))
    covariances, centres = root @ root.transpose(0, 2, 1), RNG.normal(size=(5, 2))
    figure = draw(plots.latent_means, latents(), ellipses=(centres, covariances))
    drawn = [patch for patch in figure.axes[0].patches if isinstance(patch, Ellipse)]
    assert len(drawn) == 5
    for patch, centre, covariance in zip(drawn, centres, covariances, strict=True):
        outline = patch.get_patch_transform().transform(patch.get_path().vertices[:-1])
        # The Mahalanobis distance of a point at two standard deviations is 2.
        offsets = outline[::3] - centre
        distances = np.sqrt(np.einsum("ni,ij,nj->n", offsets, np.linalg.inv(covariance), offsets))
        np.testing.assert_allclose(distances, 2, rtol=1e-3)
        longest = 2 * np.sqrt(np.linalg.eigvalsh(covariance)[-1])
        np.testing.assert_allclose(np.linalg.norm(offsets, axis=1).max(), longest, rtol=0.1)


def test_colours_stay_apart_with_normal_and_colour_blind_sight():
    # Machado, Oliveira and Fernandes 2009, severity 1: protanopia, deuteranopia, tritanopia.
    sights = np.array(
        [
            [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
            [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
            [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
            [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]],
        ]
    )
    rgb = np.array(
        [[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in [*plots.style.COLOURS, "#FFFFFF"]]
    )
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]])
    xyz = np.clip(linear @ sights.transpose(0, 2, 1), 0, 1) @ to_xyz.T / to_xyz.sum(1)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    lab = np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)
    distances = np.linalg.norm(lab[:, :, None] - lab[:, None], axis=-1)[:, *np.triu_indices(11, 1)]
    assert distances.min() > 24


def test_the_axes_of_a_grid_grow_to_the_right_and_upward():
    images = pictures(3, 2, 4, 6, 1)
    figure = draw(plots.latent_grid, (images, np.array([-1.5, 1.5]), np.array([-1.0, -0.001, 1.0])), note="a note")
    (axes,) = figure.axes
    assert dict(zip(axes.get_xticks(), tick_texts(axes.get_xticklabels()), strict=True)) == {0.5: "−1.50", 1.5: "1.50"}
    up = dict(zip(axes.get_yticks(), tick_texts(axes.get_yticklabels()), strict=True))
    assert up == {2.5: "−1.00", 1.5: "0.00", 0.5: "1.00"}
    assert axes.get_ylim() == (3, 0)
    assert figure.get_supxlabel() == "a note"


def test_reconstructions_are_at_most_twenty_and_named():
    axes = draw(plots.reconstructions, (pictures(30, 8, 8, 1), pictures(30, 8, 8, 1))).axes
    assert len(axes) == 2
    for panel in axes:
        assert tick_texts(panel.get_yticklabels()) == ["original", "reconstruction"]
        assert panel.get_xlim() == (0, 10)


@pytest.mark.parametrize(
    ("kl", "panels"), [(True, ["loss", "reconstruction", "KL"]), (False, ["loss", "reconstruction"])]
)
def test_curves_have_a_panel_for_each_part_and_differ_without_colour(kl, panels):
    figure = draw(plots.training_curves, (history(6, kl=kl),), unit="squared error per image")
    assert [axes.get_title() for axes in figure.axes] == panels
    assert figure.axes[0].get_ylabel() == "squared error per image"
    train, validation = figure.axes[0].lines
    assert (train.get_linestyle(), validation.get_linestyle()) == ("-", "--")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["train", "validation"]
    np.testing.assert_allclose(validation.get_ydata() - train.get_ydata(), 2.0 if kl else 1.0)


@pytest.mark.parametrize("epochs", [1, 2, 7, 300])
def test_epochs_are_whole_numbers_and_one_epoch_is_visible(epochs):
    axes = draw(plots.training_curves, (history(epochs),)).axes[0]
    low, high = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert ticks
    assert all(tick == round(tick) >= 0 for tick in ticks)
    assert epochs > 15 or all(line.get_markersize() > 0 for line in axes.lines)


@pytest.mark.parametrize("first", [900.0, -3.0])
def test_epochs_outside_the_axis_are_said_to_be(first):
    axes = draw(plots.training_curves, (history(30, first=first),)).axes[0]
    low, high = axes.get_ylim()
    values = np.stack([line.get_ydata() for line in axes.lines])
    outside = 1 + np.flatnonzero(np.any((values < low) | (values > high), axis=0))
    note = [f"up to epoch {outside[-1]} outside,\nas far as 1047"] if len(outside) else []
    assert [text.get_text() for text in axes.texts] == note
    assert list(outside) == list(range(1, len(outside) + 1))
    assert bool(note) == (first == 900)


def test_curves_without_finite_values_are_drawn_as_far_as_they_are_finite():
    rows = history(8)
    for row in rows:
        row["validation"]["loss"] = float("nan")
    rows[3]["train"]["loss"] = float("inf")
    figure = draw(plots.training_curves, (rows,))
    figure.canvas.draw()
    low, high = figure.axes[0].get_ylim()
    assert 130 < low < high < 200
