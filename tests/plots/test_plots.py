import subprocess
import sys

import numpy as np
import pytest
from matplotlib.patches import Ellipse
from matplotlib.text import Text
from PIL import Image

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


def grid(rows, columns, h=8, w=8, c=1, y=True):
    return (
        pictures(rows, columns, h, w, c),
        np.linspace(-2, 2, columns),
        np.linspace(-2, 2, rows) if y else None,
    )


def pair(*shape):
    return pictures(*shape), pictures(*shape)


ellipses = (np.zeros((2, 2)), np.stack([np.eye(2), np.diag([0.0, 0.1])]))
TABLE = {
    "means": (plots.latent_means, latents()),
    "means, no labels": (plots.latent_means, latents(classes=None)),
    "means, one dimension": (plots.latent_means, latents(dim=1)),
    "means, one dimension, no labels": (plots.latent_means, latents(dim=1, classes=None)),
    "means, one dimension, 30 classes": (plots.latent_means, latents(dim=1, classes=30)),
    "means, 20 classes": (plots.latent_means, latents(classes=20)),
    "means, 50 classes": (plots.latent_means, latents(classes=50)),
    "means, 10,000 points": (plots.latent_means, latents(10_000)),
    "means, one image": (plots.latent_means, latents(1)),
    "grid": (plots.latent_grid, grid(21, 21)),
    "grid, colour": (plots.latent_grid, grid(5, 7, c=3)),
    "grid, odd size": (plots.latent_grid, grid(3, 4, h=9, w=5)),
    "grid, one dimension": (plots.latent_grid, grid(1, 15, y=False)),
    "grid, one image": (plots.latent_grid, grid(1, 1)),
    "reconstructions": (plots.reconstructions, pair(20, 28, 28, 1)),
    "reconstructions, colour": (plots.reconstructions, pair(13, 8, 8, 3)),
    "reconstructions, few, odd": (plots.reconstructions, pair(3, 7, 11, 1)),
    "reconstructions, many": (plots.reconstructions, pair(30, 8, 8, 1)),
    "samples": (plots.samples, (pictures(100, 8, 8, 1),)),
    "samples, colour": (plots.samples, (pictures(10, 8, 8, 3),)),
    "samples, one, odd": (plots.samples, (pictures(1, 5, 9, 1),)),
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


def texts(figure):
    # Matplotlib keeps labels of ticks outside the axis, which it does not draw.
    axes = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    ticks = [tick for axis in axes for tick in axis.get_major_ticks() if tick not in axis._update_ticks()]
    undrawn = {id(label) for tick in ticks for label in (tick.label1, tick.label2)}
    found = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    return [text for text in found if id(text) not in undrawn]


def tick_labels(axis):
    return [text.get_text() for text in axis.get_ticklabels()]


def legend_labels(figure):
    legend = figure.axes[0].get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


WITH_LONG_TITLE = ["means, 20 classes", "grid, one dimension", "reconstructions", "samples", "curves"]


@pytest.mark.parametrize(
    ("case", "title"), [(case, TITLE) for case in TABLE] + [(case, LONG_TITLE) for case in WITH_LONG_TITLE]
)
def test_every_figure_holds_its_texts_and_is_saved(case, title, tmp_path):
    figure = draw(*TABLE[case], title=title)
    assert title in [text.get_text() for text in texts(figure)]
    frame = figure.bbox.padded(1)
    heading = figure._suptitle.get_window_extent()
    for text in texts(figure):
        box = text.get_window_extent()
        inside = frame.x0 <= box.x0 and frame.y0 <= box.y0 and box.x1 <= frame.x1 and box.y1 <= frame.y1
        assert inside, f"{text.get_text()!r} at {box} leaves {frame}"
    assert all(axes.get_window_extent().y1 <= heading.y0 for axes in figure.axes)
    plots.save(figure, tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as image:
        assert image.width == round(150 * figure.get_figwidth())
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path):
    class Broken:
        def savefig(self, path, **options):
            path.write_bytes(b"half")
            raise OSError("disk full")

    (tmp_path / "figure.png").write_bytes(b"old")
    with pytest.raises(OSError, match="disk full"):
        plots.save.__wrapped__(Broken(), tmp_path / "figure.png")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_importing_plots_imports_neither_jax_nor_pyplot():
    code = "import sys, vae_jax.plots.run; sys.exit(bool({'jax', 'matplotlib.pyplot'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_legend_names_the_classes_in_order_and_so_do_the_points():
    names = ["a shirt", "a bag", "a boot"]
    figure = draw(plots.latent_means, latents(classes=3), class_names=names, ellipses=ellipses)
    *classes, posterior = legend_labels(figure)
    assert classes == names == [text.get_text() for text in figure.axes[0].texts]
    assert posterior == "posterior,\n2 standard\ndeviations"


@pytest.mark.parametrize(("classes", "entries"), [(None, 0), (1, 1), (10, 10), (20, 20), (50, 20)])
def test_the_legend_has_at_most_twenty_classes_and_says_so(classes, entries):
    figure = draw(plots.latent_means, latents(classes=classes))
    assert legend_labels(figure) == [str(label) for label in range(entries)]
    if entries:
        heading = figure.axes[0].get_legend().get_title().get_text()
        assert ("20 of 50" in heading) == (classes == 50)


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


def test_written_class_names_do_not_overlap():
    means, labels = latents(400, classes=8)  # all medians near the origin
    figure = draw(plots.latent_means, (means, labels))
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    overlaps = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
    assert len(boxes) == 8
    assert not overlaps


def test_written_class_names_of_a_collapsed_posterior_do_not_overlap():
    means, labels = latents(400)
    figure = draw(plots.latent_means, (np.zeros_like(means), labels))
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 10
    assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]


@pytest.mark.parametrize("classes", [20, 50])
def test_the_legend_stands_inside_the_figure_and_below_the_title(classes):
    figure = draw(plots.latent_means, latents(classes=classes), TITLE + "\na third line", ellipses=ellipses)
    box = figure.axes[0].get_legend().get_window_extent()
    assert box.y0 >= 0
    assert box.x1 <= figure.bbox.x1
    assert box.y1 <= figure._suptitle.get_window_extent().y0


@pytest.mark.parametrize("dim", [1, 2])
def test_class_names_are_no_formulas_and_long_ones_are_cut(dim):
    names = ["$a$_{", "a name as long as a sentence"]
    figure = draw(plots.latent_means, latents(dim=dim, classes=2), class_names=names)
    shown = [text for text in texts(figure) if text.get_text() in {"$a$_{", "a name as long …"}]
    assert len(shown) == (2 if dim == 1 else 4)
    assert not any(text.get_parse_math() for text in shown)


def test_one_dimension_draws_one_row_for_each_class():
    figure = draw(plots.latent_means, latents(dim=1, classes=4))
    assert tick_labels(figure.axes[0].yaxis) == ["0", "1", "2", "3"]
    assert len(figure.axes[0].patches) == 4


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


@pytest.mark.parametrize("channels", [1, 3])
def test_tile_puts_each_image_in_its_place_and_clips(channels):
    images = pictures(2, 3, 4, 5, channels)
    tiled = plots.tile(images)
    assert tiled.shape == (8, 15, channels)
    for row in range(2):
        for column in range(3):
            part = tiled[4 * row : 4 * row + 4, 5 * column : 5 * column + 5]
            np.testing.assert_array_equal(part, np.clip(images[row, column], 0, 1))


def drawn_pixels(axes):
    (image,) = axes.images
    return np.asarray(image.get_array())


def test_the_grid_grows_upward_and_black_is_zero():
    images = np.linspace(0, 1, 6, dtype=np.float32).reshape(3, 2, 1, 1, 1) * np.ones((1, 1, 4, 6, 1), np.float32)
    figure = draw(plots.latent_grid, (images, np.array([-1.5, 1.5]), np.array([-1.0, -0.001, 1.0])), note="a note")
    (axes,) = figure.axes
    pixels = drawn_pixels(axes)
    assert pixels.shape == (12, 12, 3)
    np.testing.assert_allclose(pixels[-1, 0], 0)
    np.testing.assert_allclose(pixels[-1, -1], 0.2, rtol=1e-6)
    np.testing.assert_allclose(pixels[0, -1], 1)
    assert tick_labels(axes.xaxis) == ["−1.50", "1.50"]
    assert dict(zip(axes.get_yticks(), tick_labels(axes.yaxis), strict=True)) == {
        10: "−1.00",
        6: "0.00",
        2: "1.00",
    }
    np.testing.assert_allclose(axes.get_xticks(), [3, 9])
    assert axes.get_ylim() == (12, 0)  # large pixel rows below
    assert "a note" in [text.get_text() for text in texts(figure)]


def test_reconstructions_stand_below_their_originals():
    originals, rebuilt = np.zeros((13, 2, 3, 1), np.float32), np.full((13, 2, 3, 1), 0.5, np.float32)
    first, second = draw(plots.reconstructions, (originals, rebuilt)).axes
    assert tick_labels(first.yaxis) == tick_labels(second.yaxis) == ["original", "reconstruction"]
    np.testing.assert_allclose(first.get_yticks(), [1, 3])
    for axes, number in ((first, 10), (second, 3)):
        pixels = drawn_pixels(axes)
        assert pixels.shape == (4, 30, 3)
        assert np.all(pixels[:2, : 3 * number] == 0)
        assert np.all(pixels[2:, : 3 * number] == 0.5)
        assert np.all(pixels[:, 3 * number :] == 1)


@pytest.mark.parametrize(("number", "rows", "columns"), [(1, 1, 1), (10, 3, 4), (12, 3, 4), (100, 10, 10)])
def test_samples_are_laid_row_by_row(number, rows, columns):
    images = pictures(number, 2, 2, 3)
    pixels = drawn_pixels(draw(plots.samples, (images,)).axes[0])
    assert pixels.shape == (2 * rows, 2 * columns, 3)
    last_row, last_column = divmod(number - 1, columns)
    part = pixels[2 * last_row : 2 * last_row + 2, 2 * last_column : 2 * last_column + 2]
    np.testing.assert_array_equal(part, np.clip(images[-1], 0, 1))


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
    note = {0: [], 1: ["epoch 1 above:\nup to 1047"], 2: ["epochs 1–2 above:\nup to 1047"]}[len(outside)]
    assert [text.get_text() for text in axes.texts] == note
    assert list(outside) == list(range(1, len(outside) + 1))
    assert bool(note) == (first == 900)


def test_curves_without_finite_values_are_drawn():
    rows = history(8)
    for row in rows:
        row["validation"]["loss"] = float("nan")
    rows[3]["train"]["loss"] = float("inf")
    assert draw(plots.training_curves, (rows,)).axes
