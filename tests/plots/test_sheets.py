"""Every figure that shows images, for images of every shape: what is rendered is looked at."""

import numpy as np
import pytest
from rendered import check_texts

from experiments.anomaly.figures import GROUPS, extremes
from experiments.compare.figures import Space, comparison
from experiments.compression.figures import Row, compressed
from experiments.denoising.figures import denoised
from vae_jax import plots
from vae_jax.plots import animation, sheets

RNG = np.random.default_rng(0)
TITLE = "digits · VAE, 2 latent dimensions\ntest loss 24.9 nats"
NOTES = {
    (1, 1, 1): "",
    (1, 784, 1): "images: 1 × 784 pixels, drawn higher than they are",
    (784, 1, 1): "images: 784 × 1 pixels, drawn wider than they are",
    (4000, 1, 1): "images: 4000 × 1 pixels, drawn wider than they are",
    (100, 1, 2): "images: channel 1 of 2; 100 × 1 pixels, drawn wider than they are",
    (2, 3, 3): "",
    (28, 28, 1): "",
    (16, 16, 2): "images: channel 1 of 2",
    (16, 16, 4): "images: channels 1 to 3 of 4 as red, green and blue",
    (16, 16, 10): "images: channels 1 to 3 of 10 as red, green and blue",
    (512, 384, 3): "",
}


def make(shape, *lead):
    # Two halves of different random colours, one beside or below the other along the longer side.
    height, width, channels = shape
    images = np.empty((*lead, *shape), np.float32)
    images[:] = RNG.random((*lead, 1, 1, channels))
    second = images[..., height // 2 :, :, :] if height >= width else images[..., width // 2 :, :]
    second[:] = RNG.random((*lead, 1, 1, channels))
    return images


def blank(images, number):
    return np.concatenate([images, np.ones((number, *images.shape[1:]), images.dtype)])


def grid(shape):
    images = make(shape, 3, 4)
    return plots.latent_grid(images, np.arange(4.0), np.arange(3.0), TITLE), {0: images[::-1]}


def samples(shape):
    images = make(shape, 7)
    return plots.samples(images, TITLE), {0: blank(images, 2).reshape(3, 3, *shape)}


def reconstructions(shape):
    a, b = make(shape, 13), make(shape, 13)
    shown = {0: np.stack([a[:10], b[:10]]), 1: np.stack([blank(a[10:], 7), blank(b[10:], 7)])}
    return plots.reconstructions(a, b, TITLE), shown


def traversal(shape):
    images, base = make(shape, 3, 4), make(shape, 2)
    figure = plots.traversals(
        images, base, np.array([0, 3, 1]), (0.1, 0.4, 0.6, 0.9), ["$z_1$\nKL 1"] * 3, ["1\nto 2"] * 3, TITLE
    )
    beside = np.full((2, *shape), np.nan)  # words
    return figure, {0: np.concatenate([np.concatenate([base, beside])[None], images])}


def interpolation(shape):
    ends, decoded = make(shape, 2, 2), make(shape, 2, 2, 3)
    names = ["a_shirt$\nto a long class n…", "3\nto 8"]
    figure = plots.interpolations(ends, decoded, names, ["straight", "spherical"], TITLE)
    return figure, {i: np.stack([np.stack([ends[i, 0], *row, ends[i, 1]]) for row in decoded[i]]) for i in (0, 1)}


def nearest(shape):
    images, found = make(shape, 2), make(shape, 2, 3)
    figure = plots.neighbours(images, found, RNG.random((2, 3)), ["a$.png", "photo of a cat on a roof"], TITLE)
    return figure, {i: np.concatenate([images[i, None], found[i]])[None] for i in (0, 1)}


def atoms(shape):
    change = make(shape, 3) - 0.5
    white = blank(0.5 + 0.5 * change / np.abs(change).max(axis=(1, 2, 3), keepdims=True), 1)
    return plots.dictionaries({"$L_1$": change, "top-k": change[:1]}, TITLE), {0: white.reshape(2, 2, *shape)}


def anomalies(shape):
    images = make(shape, 3, len(GROUPS), 2)
    figure = extremes(images, ["shirt", "a bag with a long name", "$boot"], "the normal class", TITLE)
    return figure, {i: images[:, i] for i in range(len(GROUPS))}


def codecs(shape):
    images = np.rint(255 * make(shape, 3, 4)).astype(np.uint8)
    return compressed([Row(f"codec_{i}$\n0.1 bits", row) for i, row in enumerate(images)], TITLE), {0: images / 255}


def denoisers(shape):
    images = make(shape, 2, 3, 4)
    rows = ("clean", "noisy", "median 3x3")
    panels = [(f"noise_{i}$", dict(zip(rows, images[i], strict=True)), {"noisy": 9.25}) for i in (0, 1)]
    return denoised(panels, TITLE), dict(enumerate(images))


def spaces(shape):
    images, paths, points = make(shape, 3, 4), make(shape, 2, 5), RNG.normal(size=(30, 2))
    axes = (("$z_1$", "$z_2$"), images, np.arange(4.0), np.arange(3.0), np.ones((5, 5)), (-1, 1, -1, 1), paths)
    space = Space("AE: 25.0 nats", points, np.arange(30) % 3, *axes)
    return comparison([space], TITLE), {1: images[::-1], 3: paths}


FIGURES = (grid, reconstructions, traversal, interpolation, nearest, atoms, anomalies, codecs, denoisers, spaces)
HARD = ((1, 784, 1), (16, 16, 4))


@pytest.mark.parametrize(
    ("figure", "shape"),
    [(samples, shape) for shape in NOTES] + [(figure, shape) for figure in FIGURES for shape in HARD],
    ids=lambda value: getattr(value, "__name__", "x".join(map(str, value)) if isinstance(value, tuple) else None),
)
def test_every_image_is_rendered_in_its_place_and_colours_and_every_text_can_be_read(figure, shape):
    drawn, shown = figure(shape)
    drawn.set_dpi(100)
    drawn.draw_without_rendering()  # as saving does: the layout settles at the second time
    drawn.canvas.draw()
    pixels = np.asarray(drawn.canvas.buffer_rgba())[::-1, :, :3]
    for panel, images in shown.items():
        axes = drawn.axes[panel]
        for place in np.argwhere(~np.isnan(images).all(axis=(2, 3, 4))):
            for part in (0.2, 0.8):
                down, right = (part, 0.5) if shape[0] >= shape[1] else (0.5, part)
                x, y = np.int32(axes.transData.transform((place[1] + right, place[0] + down)))
                colour = images[tuple(place)][int(down * shape[0]), int(right * shape[1])]
                wanted = colour[:3] if len(colour) > 2 else colour[[0, 0, 0]]
                np.testing.assert_allclose(pixels[y, x], 255 * np.clip(wanted, 0, 1), atol=3)
    assert drawn.get_supxlabel() == NOTES[shape]
    width, height = drawn.get_size_inches()
    assert width < 18
    assert height < 11
    check_texts(drawn)


@pytest.mark.parametrize("shape", NOTES, ids=str)
def test_separators_cover_no_pixel_and_no_image_is_thin(shape):
    figure = plots.samples(np.full((100, *shape), 0.5, np.float32), TITLE)
    figure.set_dpi(150)
    figure.canvas.draw()
    (axes,) = figure.axes
    wide, high = np.abs(axes.transData.transform((1, 1)) - axes.transData.transform((0, 0)))
    assert min(wide, high) > 8
    assert max(wide, high) < 6.5 * min(wide, high)
    left, bottom, right, top = np.int32(np.ravel(axes.bbox.extents))
    inside = np.asarray(figure.canvas.buffer_rgba())[::-1][bottom:top, left:right, 0]
    assert np.mean(np.abs(inside - 127.5) < 2) > 0.7
    assert np.mean(inside > 200) > 0.02


@pytest.mark.parametrize(
    ("rows", "shape"),
    [
        *[(1, (784, 1, 1)), (10, (1, 784, 1)), (25, (8, 8, 1))],
        *[pytest.param(*case, marks=pytest.mark.slow) for case in [(10, (784, 1, 1)), (100, (8, 8, 1))]],
    ],
    ids=str,
)
def test_however_many_rows_there_are_their_names_can_be_read(rows, shape):
    images = np.full((rows, 11, *shape), 0.5, np.float32)
    names, ranges = ["$z_{10}$\nKL 1.25 nats"] * rows, ["−10.25\nto 12.05"] * rows
    levels = (0.01, *np.arange(1, 10) / 10, 0.99)
    figures = [plots.traversals(images, images[0, :2], np.zeros(rows, int), levels, names, ranges, TITLE)]
    pairs = -(-rows // 10)
    decoded = np.full((pairs, 2, 9, *shape), 0.5, np.float32)
    for kinds in (["straight"], ["straight", "spherical"]):
        name = "ankle boots or s…\nto a shirt with s…"
        some = decoded[:, : len(kinds)]
        figures.append(plots.interpolations(decoded[:, 0, :2], some, [name] * pairs, kinds, TITLE))
    for figure in figures:
        figure.draw_without_rendering()
        figure.draw_without_rendering()
        check_texts(figure)


def test_images_of_a_latent_grid_are_told_apart_by_gaps_unless_their_rims_are_dark():
    for rim, gaps in ((0.0, False), (0.5, True)):
        images = np.full((4, 4, 8, 8, 1), rim, np.float32)
        images[:, :, 1:-1, 1:-1] = 0.5
        figure = plots.latent_grid(images, np.arange(4.0), np.arange(4.0), TITLE)
        shown = np.asarray(figure.axes[0].images[0].get_array())
        assert (shown == 1).any() == gaps


def test_frames_lie_in_the_gaps():
    figure, _ = traversal((8, 8, 1))
    figure.canvas.draw()
    orange = np.all(np.abs(np.asarray(figure.canvas.buffer_rgba())[::-1, :, :3] - np.int32(sheets.FRAME)) < 60, axis=-1)
    (axes,) = figure.axes
    found = np.argwhere(orange)[:, ::-1]
    x, y = np.clip(axes.transData.inverted().transform(found + 0.5), 0, 3.999).T
    assert set(zip(x // 1, y // 1, strict=True)) == {(0, 1), (3, 2), (1, 3)}
    assert np.all(np.maximum(np.abs(x % 1 - 0.5), np.abs(y % 1 - 0.5)) > 0.45)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_tile_puts_each_image_in_its_place_and_clips(channels):
    images = RNG.uniform(-0.1, 1.1, (2, 3, 4, 5, channels)).astype(np.float32)
    shown = images[..., : 3 if channels > 2 else 1]
    tiled = plots.tile(images)
    assert tiled.shape == (8, 15, shown.shape[-1])
    for row, column in np.ndindex(2, 3):
        part = tiled[4 * row : 4 * row + 4, 5 * column : 5 * column + 5]
        np.testing.assert_allclose(part, np.clip(shown[row, column], 0, 1), atol=0.5 / 255 + 1e-6)


def test_large_images_are_averaged_and_small_ones_repeated():
    images = RNG.random((1, 1, 4, 6, 1)).astype(np.float32)
    halved = plots.tile(images, (2, 3))
    np.testing.assert_allclose(halved[..., 0], images.reshape(2, 2, 3, 2).mean((1, 3)), atol=1.5 / 255)
    doubled = plots.tile(images, (8, 12))
    np.testing.assert_array_equal(doubled, plots.tile(images).repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("shape", NOTES, ids=str)
def test_the_gif_is_of_bounded_size_and_shows_the_images(shape, tmp_path):
    images = make(shape, 15, 15)
    grids = {1: np.rint(plots.tile(images) * 255).astype(np.uint8)}
    animation.write_progress_gif(tmp_path / "a.gif", grids, {1: "epoch 1"}, TITLE)
    (found,) = animation.read_progress_grids(tmp_path / "a.gif").values()
    height, width, depth = found.shape
    assert depth == (3 if shape[-1] > 2 else 1)
    assert 400 <= width <= 1200
    assert height <= 1600
    inner = found[:, found.min((0, 2)) < 255]  # without the white beside narrow ones
    high, wide = height // 15, inner.shape[1] // 15
    for row, column in ((0, 0), (7, 3), (14, 14)):
        colour = inner[int((row + 0.2) * high), int((column + 0.2) * wide)]
        np.testing.assert_allclose(colour, 255 * images[row, column, 0, 0, :depth], atol=1 if depth == 1 else 40)


WITHIN = {
    # Images a side: of the latent grid, of the samples, of a frame of the GIF.
    (1, 1, 1): (20, 10, 15),
    (28, 28, 1): (20, 10, 15),
    (32, 32, 3): (20, 10, 15),
    (1, 784, 1): (20, 10, 15),
    (4000, 1, 1): (20, 10, 8),
    (64, 64, 3): (20, 10, 8),
    (128, 128, 3): (16, 10, 4),
    (384, 512, 3): (4, 4, 3),
    (1024, 1024, 3): (3, 3, 3),
    (10_000, 10_000, 1): (3, 3, 3),
}


@pytest.mark.parametrize("shape", WITHIN, ids=str)
def test_a_figure_shows_fewer_images_only_where_they_are_large(shape):
    found = [sheets.side_within(shape, most, pixels) for most, pixels in ((20, 2**22), (10, 2**22), (15, 2**18))]
    assert tuple(found) == WITHIN[shape]
    assert sheets.side_within(shape, 2) == 2
    for number in (sheets.number_within(shape, 20, least=4), sheets.number_within(shape, 20)):
        assert number == 20 or number * shape[0] * shape[1] <= max(4 * shape[0] * shape[1], sheets.PIXELS)
    assert sheets.number_within(shape, 20, least=4) >= 4
