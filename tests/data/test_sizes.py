"""Pictures of many sizes and depths, and the run that knows what was done with them."""

import contextlib
import json

import numpy as np
import oracles
import pytest
from PIL import Image
from test_cases import STORED, deep_png, refused, save, scene, tagged

from vae_jax.config import Settings
from vae_jax.data.loading import load_dataset, read_images
from vae_jax.data.raw import Pictures
from vae_jax.errors import UsageError
from vae_jax.runs.datasets import find_dataset
from vae_jax.runs.records import read_dataset_record, write_config

SIZES = [(24, 24), (24, 60), (60, 24), (17, 31), (12, 12), (50, 49)]


def smooth(height, width):
    """A colour picture without edges, so that a filter rings by less than a level."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    colours = [np.sin(3 * x + y), np.cos(2 * y), np.sin(x * y * 4)]
    return np.uint8(np.rint(128 + 90 * np.stack(colours, -1)))


def picture(array):
    array = np.asarray(array)
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def all_of(dataset):
    """The images of a data set in the order of their files."""
    pairs = [(f, x) for s in dataset.splits.values() for f, x in zip(s.files, s.images, strict=True)]
    return np.stack([image for _, image in sorted(pairs, key=lambda pair: pair[0])])


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("size", [(24, 24), (16, 40)])
@pytest.mark.parametrize("grey", [True, False])
def test_pictures_of_any_size_are_scaled_and_cropped_or_padded(tmp_path, fit, size, grey):
    expected = []
    for i, sides in enumerate(SIZES):
        image = smooth(*sides)[..., : 1 if grey else 3]
        picture(image).save(tmp_path / f"{i}.png")
        expected.append(oracles.scaled(image, size, fit, 255))
    dataset = load_dataset(tmp_path, image_size="x".join(map(str, size)), fit=fit)
    images = all_of(dataset)
    assert images.shape == (len(SIZES), *size, 1 if grey else 3)
    assert np.abs(images - np.clip(expected, 0, 255)).max() <= 1.2  # Pillow rounds after each of the two directions
    assert dataset.pictures == Pictures(size, fit, 1 if grey else 3, True)
    black = all_of(load_dataset(tmp_path, image_size="x".join(map(str, size)), fit=fit, background="black"))
    assert (black == images).all() == (fit == "crop")
    np.testing.assert_array_equal(all_of(load_dataset(tmp_path, image_size="x".join(map(str, size)), fit=fit)), images)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tif"])
def test_all_orientations_of_all_shapes_become_the_same_image(tmp_path, ending):
    options = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}.get(ending, {})
    for number in range(1, 9):
        save(tmp_path / f"{number}.{ending}", STORED[number](scene(0, 60, 90)), exif=tagged(number), **options)
    for sizes in (None, "12", "14x9"):
        images = all_of(load_dataset(tmp_path, image_size=sizes)).astype(int)
        assert images.shape[1:3] == {None: (60, 90), "12": (12, 12), "14x9": (14, 9)}[sizes]
        assert np.abs(images - images[0]).max() <= (6 if ending == "jpg" else 2)
        assert images[0, 0, 0, 0] > 200 > 90 > images[0, 0, -1].max()
        assert (np.abs(images[0, -1] - 180) < 4).all()


def test_a_large_photograph_is_decoded_small_to_nearly_the_same(tmp_path):
    for i in range(4):
        save(tmp_path / f"{i}.jpg", smooth(900, 1200), quality=95)
    expected = oracles.scaled(smooth(900, 1200), (24, 24), "crop", 255)
    assert np.abs(all_of(load_dataset(tmp_path, image_size=24))[0] - expected).max() <= 3


def test_sizes_that_differ_become_64_and_that_is_said(tmp_path):
    for i in range(12):
        save(tmp_path / f"{i:02}.png", scene(0, 40 + 7 * i, 90 - 4 * i))
    with pytest.warns(UserWarning, match=r"of different sizes, scaled to 64x64 and cropped; --image-size .* \(12\)"):
        assert load_dataset(tmp_path).image_shape == (64, 64, 3)
    for i in range(12):
        save(tmp_path / f"{i:02}.png", scene(0, 40, 30))
    dataset = load_dataset(tmp_path)
    assert dataset.pictures == Pictures((40, 30), "crop", 3)
    assert (dataset.train.images == scene(0, 40, 30)).all()


@pytest.mark.parametrize("value", ["0", "64x", "axb", "-3", "8x0", "1.5", "", "6 4", "100000"])
def test_a_size_that_is_none_is_refused(tmp_path, value):
    refused(lambda: load_dataset(tmp_path, image_size=value), "--image-size", "N or HxW", repr(value))


def test_a_size_acts_on_pictures_alone(tmp_path):
    np.save(tmp_path / "own.npy", np.zeros((9, 4, 4), np.uint8) + 9)
    for options in ({"image_size": 8}, {"fit": "pad"}):
        refused(lambda: load_dataset(tmp_path / "own.npy", **options), "no effect", "own.npy", "a folder of images")  # noqa: B023
    refused(lambda: load_dataset(tmp_path, fit="stretch"), "--fit", "crop or pad", "'stretch'")
    refused(lambda: load_dataset(tmp_path), "no images")


# 16 bits and floats.


def deep_levels(channels, seed=0):
    return np.random.default_rng(seed).integers(100, 4001, (6, 5, channels)).astype(np.uint16)


def write_deep(path, values, **options):
    tifffile = pytest.importorskip("tifffile")  # comes with scikit-image; Pillow writes no colours of 16 bits
    kind = {1: "minisblack", 2: "minisblack", 3: "rgb", 4: "rgb"}[values.shape[-1]]
    extra = {"extrasamples": ["unassalpha"]} if values.shape[-1] in (2, 4) else {}
    tifffile.imwrite(path, values[..., 0] if values.shape[-1] == 1 else values, photometric=kind, **extra, **options)


def expected_bytes(values, low, high):
    return np.rint(np.clip((np.float64(values) - low) / (high - low), 0, 1) * 255)


OPTIONS = {
    "plain": {},
    "big-endian": {"byteorder": ">"},
    "deflated": {"compression": "zlib"},
    "predicted": {"compression": "zlib", "predictor": True},
    "big-endian, deflated": {"byteorder": ">", "compression": "zlib"},
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("options", OPTIONS)
def test_tiff_of_16_bits_is_scaled_by_the_range_of_all(tmp_path, channels, options):
    values = [deep_levels(channels, seed) for seed in range(5)]
    values[3][0, 0] = 50
    values[4][0, 0] = 4095
    for i, each in enumerate(values):
        write_deep(tmp_path / f"{i}.tif", each, **OPTIONS[options])
    dataset = load_dataset(tmp_path)
    assert dataset.pictures.levels == (50, 4095)
    np.testing.assert_array_equal(all_of(dataset), expected_bytes(values, 50, 4095))


@pytest.mark.parametrize("colour_type", [0, 2, 4, 6])
def test_png_of_16_bits_grey_colour_and_alpha(tmp_path, colour_type):
    samples = {0: 1, 2: 3, 4: 2, 6: 4}[colour_type]
    values = np.random.default_rng(0).integers(0, 65536, (4, 6, 9, samples))
    for i, each in enumerate(values):
        (tmp_path / f"{i}.png").write_bytes(deep_png(colour_type, each))
    alpha, colours = np.ones((4, 6, 9, 1)), values
    if samples in (2, 4):
        alpha, colours = values[..., -1:] / 65535, values[..., :-1]
    for background, behind in (("white", 1), ("black", 0)):
        with pytest.warns(UserWarning, match="transparent") if samples in (2, 4) else contextlib.nullcontext():
            dataset = load_dataset(tmp_path, background=background)
        low, high = dataset.pictures.levels
        units = (colours - low) / (high - low)
        expected = np.rint(255 * (behind + (units - behind) * alpha))
        assert (low, high) == (colours.min(), colours.max())
        assert np.abs(all_of(dataset) - expected).max() <= (samples in (2, 4))  # float32 at a half


def test_floats_in_the_unit_interval_are_read_and_others_refused(tmp_path):
    values = np.random.default_rng(0).random((5, 6, 5)).astype(np.float32)
    for i, each in enumerate(values):
        Image.fromarray(each).save(tmp_path / f"{i}.tiff")
    np.testing.assert_array_equal(all_of(load_dataset(tmp_path))[..., 0], np.rint(np.float64(values) * 255))
    for bad, words in ((1.5, "to 1.5"), (-0.1, "from -0.1"), (np.nan, "nan")):
        each[0, 0] = bad
        Image.fromarray(each).save(tmp_path / "4.tiff")
        refused(lambda: load_dataset(tmp_path), "4.tiff", words, "[0, 1]")


def test_what_is_read_only_in_part_is_refused(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, deep_levels(3).transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    refused(lambda: load_dataset(tmp_path), "a.tif", "16 bits a channel of a kind")
    tifffile.imwrite(path, np.zeros((6, 5), np.int32))
    refused(lambda: load_dataset(tmp_path), "a.tif", "mode I")


def test_of_several_pages_the_first_is_taken_and_that_is_said(tmp_path):
    for i in range(4):
        pages = [Image.fromarray(np.full((4, 4), value, np.uint8)) for value in (i, 200)]
        pages[0].save(tmp_path / f"{i}.tif", save_all=True, append_images=pages[1:])
    with pytest.warns(UserWarning, match=r"several pages, the first is taken \(4\)"):
        assert all_of(load_dataset(tmp_path))[:, 0, 0, 0].tolist() == [0, 1, 2, 3]


# What a run knows.


def recorded(tmp_path, dataset, **settings):
    (tmp_path / "run").mkdir(exist_ok=True)
    write_config(tmp_path / "run", Settings(dataset=str(tmp_path / "own"), **settings), dataset)
    return read_dataset_record(tmp_path / "run")


def test_images_given_later_become_what_the_runs_own_became(tmp_path):
    for i, sides in enumerate(SIZES):
        save(tmp_path / "own" / f"{i}.png", smooth(*sides))
    settings = {"image_size": "16x20", "fit": "pad"}
    dataset = load_dataset(tmp_path / "own", **settings)
    record = recorded(tmp_path, dataset, **settings)
    found = find_dataset(Settings(dataset=str(tmp_path / "own"), **settings), record)
    assert (found.sha256, found.pictures) == (dataset.sha256, dataset.pictures)
    again, _ = read_images(tmp_path / "own", dataset.image_shape, pictures=found.pictures)
    np.testing.assert_array_equal(again.images, all_of(dataset))
    one, _ = read_images(tmp_path / "own" / "1.png", dataset.image_shape, pictures=found.pictures)
    np.testing.assert_array_equal(one.images[0], all_of(dataset)[1])
    assert json.loads((tmp_path / "run" / "config.json").read_text())["dataset"]["pictures"]["fit"] == "pad"


def test_another_size_than_that_of_all_is_said(tmp_path):
    for i in range(4):
        save(tmp_path / "own" / f"{i}.png", smooth(8, 8))
    dataset = load_dataset(tmp_path / "own")
    save(tmp_path / "other.png", smooth(30, 20))
    with pytest.warns(
        UserWarning, match=r"of another size than the pictures of the run, scaled to 8x8 and cropped \(1\)"
    ):
        read_images(tmp_path / "other.png", (8, 8, 3), pictures=dataset.pictures)
    refused(lambda: read_images(tmp_path / "other.png", (8, 8, 3)), "other.png is 30x20", "takes 8x8", "Scale or crop")


def test_the_range_of_16_bits_is_that_of_the_run(tmp_path):
    for i in range(4):
        Image.fromarray(deep_levels(1, i)[..., 0]).save(tmp_path / f"{i}.png")
    how = load_dataset(tmp_path).pictures
    later = deep_levels(1, 9)[..., 0]
    later[0, 0], later[0, 1] = 9000, how.levels[0]
    (tmp_path / "later").mkdir()
    Image.fromarray(later).save(tmp_path / "later" / "x.png")
    with pytest.warns(UserWarning, match=rf"outside \({how.levels[0]}, {how.levels[1]}\) .* clipped \(1\): x.png"):
        split, _ = read_images(tmp_path / "later", (6, 5, 1), pictures=how)
    np.testing.assert_array_equal(split.images[0, ..., 0], expected_bytes(later, *how.levels))
    Image.fromarray(np.uint8(later // 256)).save(tmp_path / "later" / "x.png")
    refused(lambda: read_images(tmp_path / "later", (6, 5, 1), pictures=how), "has 8 bits", "trained on 16", "Convert")


@pytest.mark.parametrize(
    "change",
    [
        {"size": [3, 3]},
        {"size": 7},
        {"fit": "none"},
        {"channels": 2},
        {"levels": [1]},
        {"levels": ["a", 2]},
        {"more": 1},
    ],
)
def test_a_damaged_record_of_pictures_is_named(tmp_path, change):
    for i in range(4):
        save(tmp_path / "own" / f"{i}.png", smooth(8, 8))
    recorded(tmp_path, load_dataset(tmp_path / "own"))
    file = tmp_path / "run" / "config.json"
    content = json.loads(file.read_text())
    content["dataset"]["pictures"] |= change
    file.write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"damaged: dataset\.pictures"):
        read_dataset_record(tmp_path / "run")
