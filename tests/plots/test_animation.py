import numpy as np
import pytest
from PIL import Image

from vae_jax.plots import animation

TITLE = "MNIST · VAE, 2 latent dimensions\ntest loss 134.9 nats"
RNG = np.random.default_rng(0)


def noise(n, h, w, c):
    return list(RNG.integers(0, 256, (n, h, w, c), np.uint8))


def write(path, grids, title=TITLE, caption="the same caption"):
    epochs = range(3, 3 + len(grids))
    animation.write_progress_gif(path, dict(zip(epochs, grids, strict=True)), dict.fromkeys(epochs, caption), title)


@pytest.mark.parametrize(
    "grids",
    [noise(4, 40, 60, 1), noise(3, 7, 401, 1), [np.full((9, 9, 1), 7, np.uint8)] * 5, noise(1, 30, 500, 1)],
    ids=["noise", "wide", "identical", "one frame"],
)
def test_grey_grids_survive_the_gif_exactly(grids, tmp_path):
    path = tmp_path / "progress.gif"
    write(path, grids)
    found = animation.read_progress_grids(path)
    assert list(found) == list(range(3, 3 + len(grids)))
    read = list(found.values())
    for back, grid in zip(read, grids, strict=True):
        factor = back.shape[1] // grid.shape[1]
        assert back.shape[1] >= 400
        np.testing.assert_array_equal(back, grid.repeat(factor, axis=0).repeat(factor, axis=1))
    # An interrupted run goes on: what was read, and a new grid of the original size.
    write(path, [*read, grids[0]])
    again = animation.read_progress_grids(path)
    np.testing.assert_array_equal(list(again.values()), [*read, read[0]])
    assert [entry.name for entry in tmp_path.iterdir()] == ["progress.gif"]


def test_frames_of_another_size_than_the_last_are_left_out(tmp_path):
    write(tmp_path / "a.gif", [*noise(2, 40, 600, 1), *noise(2, 40, 500, 1)])
    assert list(animation.read_progress_grids(tmp_path / "a.gif")) == [5, 6]


def test_colour_grids_come_back_nearly(tmp_path):
    ramp = np.linspace(0, 255, 400).astype(np.uint8)
    grid = np.stack(np.broadcast_arrays(ramp[None], ramp[:20, None], np.uint8(90)), axis=-1)
    write(tmp_path / "a.gif", [grid, grid[:, ::-1]])
    first, second = animation.read_progress_grids(tmp_path / "a.gif").values()
    assert np.abs(first.astype(int) - grid).mean() < 4
    assert np.abs(second.astype(int) - grid[:, ::-1]).mean() < 4


@pytest.mark.parametrize("frames", [1, 5, 100, 300])
def test_the_gif_loops_and_lasts_at_most_eight_seconds(frames, tmp_path):
    write(tmp_path / "a.gif", noise(frames, 2, 400, 1))
    with Image.open(tmp_path / "a.gif") as gif:
        durations = []
        for i in range(getattr(gif, "n_frames", 1)):
            gif.seek(i)
            durations.append(gif.info["duration"])
        assert gif.info["loop"] == 0
    assert len(durations) == frames
    assert durations[-1] == 2000
    assert sum(durations) <= 8000


@pytest.mark.parametrize("title", ["short", TITLE, "word " * 60, "W" * 700 + "\n" + "two lines " * 12])
@pytest.mark.parametrize("width", [400, 420, 1200])
def test_the_band_of_the_gif_holds_title_caption_and_progress(title, width):
    bands = [animation._band(title, caption, width, 0.5) for caption in ("", "epoch 3: " + "loss 140.02 " * 20)]
    for band in bands:
        assert band.shape == (animation.BAND, width)
        assert np.all(band[:-4, :7] == 255)
        assert np.all(band[:-4, -7:] == 255)
        assert np.all(band[-6:-4] == 255)
        np.testing.assert_array_equal((band[-4:] < 255).sum(), 4 * width / 2)
    written = [np.flatnonzero((band[:-4] < 255).any(axis=1)) for band in bands]
    assert written[0].min() < 10
    assert 10 <= written[1].max() - written[0].max() <= 16  # the caption is one line below


def test_a_gif_of_another_program_is_refused(tmp_path):
    Image.new("L", (400, 100)).save(tmp_path / "other.gif")
    with pytest.raises(ValueError, match="that write_progress_gif wrote"):
        animation.read_progress_grids(tmp_path / "other.gif")
