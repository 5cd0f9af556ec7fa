"""What lies in real folders of pictures, case by case, and what it has to become."""

import io
import os
import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from test_sources import check_message

from vae_jax.data.loading import load_dataset, read_images
from vae_jax.data.pictures import FORMATS, flattened
from vae_jax.errors import UsageError

HEIGHT, WIDTH = 6, 9
ORIENTATION = 0x0112
# How an upright picture is stored where its tag says so, by the numbers of EXIF.
STORED = {
    0: lambda x: x,
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x, -1),
    9: lambda x: x,  # no orientation
    65535: lambda x: x,
}


def scene(shift=0, height=HEIGHT, width=WIDTH):
    """Dark above and bright below, with a bright square top left and colours that differ: no turn of it looks alike."""
    image = np.full((height, width, 3), 40 + shift, np.uint8)
    image[height // 2 :] = 180
    image[: height // 3, : width // 3] = (250, 220, 200)
    return image


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(image, np.uint8)).save(path, **options)


def tagged(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def read(folder, shape=(HEIGHT, WIDTH, 3), **options):
    return read_images(folder, shape, **options)[0]


def pixels(picture, background):
    found, is_transparent = flattened(picture, background)
    return np.asarray(found).reshape(*found.size[::-1], -1), is_transparent


def told(folder, *parts, shape=(HEIGHT, WIDTH, 3), **options):
    """What is read with one warning that says these."""
    with pytest.warns(UserWarning, match=r": .* \(\d+\): ") as seen:
        split = read(folder, shape, **options)
    assert len(seen) == 1
    for part in parts:
        assert part in str(seen[0].message)
    return split


def refused(function, *parts):
    with pytest.raises(UsageError) as error:
        function()
    check_message(error, *parts)


@pytest.mark.parametrize(
    ("ending", "options", "error"),
    [("png", {}, 0), ("webp", {"lossless": True}, 0), ("jpg", {"quality": 100, "subsampling": 0}, 3)],
)
def test_photographs_stand_upright_in_all_orientations(tmp_path, ending, options, error):
    for number, stored in STORED.items():
        save(tmp_path / f"{number}.{ending}", stored(scene()), exif=tagged(number), **options)
    images = read(tmp_path).images.astype(int)
    assert images.shape == (len(STORED), HEIGHT, WIDTH, 3)
    assert np.abs(images - scene()).max() <= error


def test_damaged_exif_data_damage_no_picture(tmp_path):
    for name, exif in (("a", b"Exif\0\0II*\0\xff\xff\xff\xff"), ("b", b"Exif\0\0MM"), ("c", b"")):
        save(tmp_path / f"{name}.png", scene(), exif=exif)
    both = tagged(6)
    both[0x011A] = 72.0  # a resolution, whose type is made one that there is not
    turned = both.tobytes().replace(b"\x1a\x01\x05\0", b"\x1a\x01\x63\0").replace(b"\x01\x1a\0\x05", b"\x01\x1a\0\x63")
    save(tmp_path / "d.png", STORED[6](scene()), exif=turned)
    assert (read(tmp_path).images == scene()).all()


RGBA = np.dstack([scene(), np.full((HEIGHT, WIDTH), 255, np.uint8)])
RGBA[0, 0] = (10, 20, 30, 0)
RGBA[0, 1] = (0, 0, 0, 51)


def see_through(mode):
    """A picture whose first pixel is transparent."""
    of_mode = {"palette": "P", "grey value": "L", "colour": "RGB"}.get(mode, mode)
    picture = Image.fromarray(RGBA)
    for step in ("LA", "La") if mode == "La" else (of_mode,):
        picture = picture.convert(step)
    if mode == "grey value":
        picture.putpixel((0, 0), 7)
    if mode != of_mode:
        picture.info["transparency"] = picture.getpixel((0, 0))
    return picture


@pytest.mark.parametrize("mode", ["RGBA", "RGBa", "LA", "La", "PA", "palette", "grey value", "colour"])
def test_what_is_transparent_shows_the_background(mode):
    picture = see_through(mode)
    for background, value, mixed in (("white", 255, 204), ("black", 0, 0)):
        found, is_transparent = pixels(picture, background)
        assert is_transparent
        assert found.shape == (HEIGHT, WIDTH, 1 if mode in ("LA", "La", "grey value") else 3)
        assert (found[0, 0] == value).all()
        assert (found[-1] == 180).all()
        assert mode not in ("RGBA", "LA") or (found[0, 1] == mixed).all()


@pytest.mark.parametrize("ending", ["png", "webp", "gif"])
def test_black_drawings_on_transparency_are_drawings(tmp_path, ending):
    drawing = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    drawing[2:4, 3:5, 3] = 255
    for i in range(12):
        save(tmp_path / f"{i:02d}.{ending}", drawing, **({"lossless": True, "exact": True} if ending == "webp" else {}))
    expected = np.where(drawing[..., 3:] == 255, 0, 255)
    split = told(tmp_path, "(12)", "transparent", "white", "--background", f"09.{ending} and 2 more")
    np.testing.assert_array_equal(split.images, np.broadcast_to(expected, (12, HEIGHT, WIDTH, 3)))
    assert (told(tmp_path, "black", background="black").images == 0).all()
    refused(lambda: read(tmp_path, background="pink"), "--background", "white or black", "'pink'")


OPAQUE = np.dstack([scene(), np.full((HEIGHT, WIDTH), 255, np.uint8)])
GREY = scene()[..., 0]
COLOURS = [(mode, Image.fromarray(scene()).convert(mode), scene()) for mode in ("RGB", "RGBX", "YCbCr", "HSV", "CMYK")]
COLOURS += [
    ("P", Image.fromarray(scene()).quantize(), scene()),
    ("LAB", Image.new("LAB", (2, 2), (255, 128, 128)), np.full((2, 2, 3), 255)),
    ("opaque", Image.fromarray(OPAQUE), scene()),
    ("L", Image.fromarray(GREY), GREY[..., None]),
    ("1", Image.fromarray(GREY).convert("1", dither=Image.Dither.NONE), np.where(GREY > 127, 255, 0)[..., None]),
]


@pytest.mark.parametrize(("mode", "picture", "expected"), COLOURS)
def test_pictures_of_any_mode_become_grey_or_red_green_and_blue(mode, picture, expected):
    found, is_transparent = pixels(picture, "white")
    assert not is_transparent
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= (0 if mode in ("1", "L", "RGB", "opaque") else 4)


def test_one_colour_picture_makes_all_colour(tmp_path):
    save(tmp_path / "a.png", scene()[..., 0])
    save(tmp_path / "b.png", scene())
    np.testing.assert_array_equal(read(tmp_path).images, [scene()[..., :1].repeat(3, 2), scene()])


def test_grey_and_colour_become_what_the_model_takes_where_nothing_is_lost(tmp_path):
    grey = scene()[..., :1]
    save(tmp_path / "grey" / "a.png", grey[..., 0])
    save(tmp_path / "colour" / "a.png", grey.repeat(3, 2))
    np.testing.assert_array_equal(read(tmp_path / "grey").images[0], grey.repeat(3, 2))
    np.testing.assert_array_equal(read(tmp_path / "colour", (HEIGHT, WIDTH, 1)).images[0], grey)
    save(tmp_path / "colour" / "a.png", scene())
    refused(lambda: read(tmp_path / "colour", (HEIGHT, WIDTH, 1)), "(1, 6, 9, 3)", "[n, 6, 9, 1]")


def deep_png(colour_type, values=None):
    """A PNG file of 16 bits a channel, which Pillow writes for grey only: 0 is grey, 2 colour, 4 and 6 with alpha."""
    samples = {0: 1, 2: 3, 4: 2, 6: 4}[colour_type]
    if values is None:
        values = 4000 * np.arange(HEIGHT)[:, None, None] * np.ones((1, WIDTH, samples), int)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, colour_type, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    parts = (struct.pack(">I", len(x)) + kind + x + struct.pack(">I", zlib.crc32(kind + x)) for kind, x in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("files", "parts"),
    [
        *(({"a.png": deep_png(kind)}, ["a.png has 16 bits", "trained on 8"]) for kind in (0, 2, 4, 6)),
        ({"a.png": png(scene()), "b.png": png(scene(height=7))}, ["b.png is 7x9", "the model takes 6x9", "Scale or"]),
        ({"a.png": png(scene()), "b.png": deep_png(0)}, ["b.png has 16 bits", "a.png has not", "Convert all"]),
        (
            {"a.png": png(scene()), "b.tif": b"II*\0", "c.heic": b"\0\0\0 ftypheic"},
            ["2 of 3", "b.tif, c.heic", *FORMATS],
        ),
    ],
)
def test_pictures_that_are_not_read_are_refused_not_passed_over(tmp_path, files, parts):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    refused(lambda: read(tmp_path), *parts)


def test_what_is_no_picture_is_passed_over_and_counted(tmp_path):
    save(tmp_path / "cat" / "a.PNG", scene())
    save(tmp_path / "dog" / "b", scene(), format="JPEG", quality=100)  # by its content
    names = "Thumbs.db desktop.ini .DS_Store ._a.png labels.csv notes.txt meta.json README.md x"
    for name in names.split():
        (tmp_path / name).write_text("hello")
    save(tmp_path / "__MACOSX" / "cat" / "._a.png", scene())
    (tmp_path / "cat" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "empty").mkdir()
    split = told(tmp_path, "(11)", "passed over", "Thumbs.db", "and 1 more")
    assert (split.labels.tolist(), split.files) == ([0, 1], ("cat/a.PNG", "dog/b"))
    np.testing.assert_array_equal(split.images[0], scene())


def test_all_damaged_pictures_are_named_and_left_out_on_request(tmp_path):
    folder = tmp_path
    for i in range(14):
        save(folder / f"{i:02d}.png", scene(i))
    (folder / "03.png").write_bytes((folder / "03.png").read_bytes()[:60])
    (folder / "07.png").write_bytes(b"")
    refused(lambda: read(folder), str(folder), "2 of 14", "03.png, 07.png", "truncated", "--skip-damaged", *FORMATS)
    split = told(folder, "(2)", "left out", "03.png, 07.png", skip_damaged=True)
    kept = [i for i in range(14) if i not in (3, 7)]
    np.testing.assert_array_equal(split.images, [scene(i) for i in kept])
    assert split.files == tuple(f"{i:02d}.png" for i in kept)
    for i in kept[:10]:
        (folder / f"{i:02d}.png").write_text("no picture")
    refused(lambda: read(folder), "12 of 14", "09.png and 2 more", "no PNG or JPEG")
    assert len(told(folder, "(12)", skip_damaged=True)) == 2
    for file in folder.iterdir():
        file.write_bytes(b"")
    refused(lambda: read(folder, skip_damaged=True), "no image that can be read, out of 14")


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_of_damaged_pictures_alone_is_refused(tmp_path, split):
    for name in ("train", "test"):
        for i in range(4):
            save(tmp_path / name / f"{i}.png", scene(i))
            if name == split:
                (tmp_path / name / f"{i}.png").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"left out, .* \(4\)"):
        refused(lambda: load_dataset(tmp_path, skip_damaged=True), f"no {split} image that can be read", "Mend some")


def test_what_might_never_end_is_not_waited_for(tmp_path):
    save(tmp_path / "a.png", scene())
    os.mkfifo(tmp_path / "b.png")
    (tmp_path / "c.png").symlink_to("/dev/zero")
    (tmp_path / "d.png").symlink_to("nowhere")
    refused(lambda: read(tmp_path), "3 of 4", "b.png, c.png, d.png", "Not a regular file")
    os.mkfifo(tmp_path / "pipe")
    with (
        pytest.warns(UserWarning, match=r"left out, .* \(3\)"),
        pytest.warns(UserWarning, match=r"passed over, .* \(1\)"),
    ):
        assert len(read(tmp_path, skip_damaged=True)) == 1


def test_decompression_bombs_are_refused(tmp_path):
    Image.new("1", (10_000, 9_000)).save(tmp_path / "a.png")
    refused(lambda: read(tmp_path), "a.png", "decompression bomb")


def test_a_malformed_segment_that_pillow_makes_do_with_is_no_error(tmp_path):
    file = io.BytesIO()
    Image.fromarray(scene()).save(file, "JPEG", quality=100, subsampling=0)
    segment = b"MPF\0II*\0\x08\0\0\0\0\0\0\0\0\0"
    content = file.getvalue()
    whole = content[:2] + b"\xff\xe2" + (len(segment) + 2).to_bytes(2, "big") + segment + content[2:]
    (tmp_path / "a.jpg").write_bytes(whole)
    with pytest.warns(UserWarning, match="malformed MPO"), Image.open(tmp_path / "a.jpg"):
        pass
    assert np.abs(read(tmp_path).images[0].astype(int) - scene()).max() <= 3


def test_one_picture_is_a_set_of_one(tmp_path):
    save(tmp_path / "photo.PNG", STORED[6](scene()), exif=tagged(6))
    split = read(tmp_path / "photo.PNG")
    np.testing.assert_array_equal(split.images, scene()[None])
    assert (split.files, split.labels) == (("photo.PNG",), None)
    refused(lambda: load_dataset(tmp_path / "photo.PNG"), "at least 4 images", "got 1")
    for name in ("notes.png", "b.tif"):
        (tmp_path / name).write_text("no picture")
        refused(lambda: read(tmp_path / name), f"{name} can't be read: no PNG or JPEG", ".\nConvert it; allowed are")  # noqa: B023


def test_classes_are_numbered_in_the_order_of_their_numbers(tmp_path):
    for label in range(12):
        for i in range(6):
            save(tmp_path / "set" / str(label) / f"{i}.png", np.full((2, 2), 20 * label))
    dataset = load_dataset(tmp_path / "set")
    assert (dataset.name, dataset.class_names) == ("set", tuple(map(str, range(12))))
    for split in dataset.splits.values():
        np.testing.assert_array_equal(split.images[:, 0, 0, 0], 20 * split.labels)
        assert [int(file.split("/")[0]) for file in split.files] == split.labels.tolist()
        assert set(split.labels) == set(range(12))
    assert dataset.labels_of(("10",)) == (10,)


NAMES = [("train", "validation", "test"), ("Train", "val", "TEST"), ("training", "valid", "testing")]
NAMES += [("train", "dev", "test"), ("train", "Eval", "test")]


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("with_classes", [True, False])
def test_folders_of_splits_are_the_splits(tmp_path, names, with_classes):
    for part, name in enumerate(names):
        for i in range(4):
            below = ("b", "a", "c")[i % (3 if part == 2 else 2)] if with_classes else "."
            save(tmp_path / name / below / f"{i}.png", np.full((2, 2), 50 * part + i))
    dataset = load_dataset(tmp_path)
    assert dataset.class_names == (("a", "b", "c") if with_classes else None)
    for part, split in enumerate((dataset.train, dataset.validation, dataset.test)):
        assert sorted(split.images[:, 0, 0, 0]) == [50 * part + i for i in range(4)]
        for image, file in zip(split.images, split.files, strict=True):
            assert file.startswith(names[part])
            assert file.endswith(f"{image[0, 0, 0] % 50}.png")
        if with_classes:
            expected = [dataset.class_names.index(file.split("/")[1]) for file in split.files]
            np.testing.assert_array_equal(split.labels, expected)
    assert len(read_images(tmp_path, (2, 2, 1))[0]) == 12


@pytest.mark.parametrize(("given", "held_out"), [("test", "validation"), ("validation", "test"), (None, "test")])
def test_a_split_that_is_not_there_is_held_out_of_train(tmp_path, given, held_out):
    for part, name in enumerate(("train", given)):
        for i in range(20 if name else 0):
            save(tmp_path / name / f"{i}.png", np.full((2, 2), 100 * part + i))
    dataset = load_dataset(tmp_path)
    assert all(file.startswith("train") for file in (*getattr(dataset, held_out).files, *dataset.train.files))
    if given:
        assert getattr(dataset, given).files == tuple(sorted(f"{given}/{i}.png" for i in range(20)))


@pytest.mark.parametrize(
    ("paths", "parts"),
    [
        (["train/a.png", "test/a.png", "a.png"], ["splits test, train", "a.png", "beside"]),
        (["train/a.png", "test/a.png", "extra/a.png"], ["beside them extra"]),
        (["test/a.png", "val/a.png"], ["splits test, val", "train is needed"]),
        (["test/a.png"], ["splits test", "train is needed"]),
        (["train/a.png", "holdout/a.png"], ["splits train and beside them holdout", "train, training, test, testing"]),
        (["train/a.png", "holdout/a.png"], ["validation, val, valid, dev, eval", "If train is a class"]),
        (["control/a.png", "test/a.png"], ["splits test and beside them control", "If test is a class"]),
        (["train/a.png", "val/a.png", "valid/a.png"], ["train, val, valid", "one folder each"]),
        (["a.png", "cat/a.png"], ["found a.png and cat/a.png", "directly"]),
        (["train/a.png", "train/cat/a.png"], ["train must hold images", "train/a.png and train/cat/a.png"]),
        (["cat/a.png", "cat/one/a.png"], ["cat must hold images", "cat/a.png and cat/one/a.png", "a subfolder"]),
        (["train/cat/a.png", "train/cat/a/b/a.png"], ["train/cat must hold", "train/cat/a/b/a.png"]),
        (["photos/train/a.png", "photos/test/a.png"], ["test below another: photos/test", "Give the folder"]),
        (["cat/Test/a.png", "dog/a.png"], ["a folder test below another: cat/Test"]),
        (["a/b/c/d/e/f/g/h/i/a.png"], ["a/b/c/d/e/f/g/h holds subfolders"]),
    ],
)
def test_folders_that_could_mean_two_things_are_refused(tmp_path, paths, parts):
    for path in paths:
        save(tmp_path / path, scene())
    refused(lambda: load_dataset(tmp_path), str(tmp_path), *parts)


def test_classes_may_lie_in_folders_of_folders(tmp_path):
    for path in ("animals/10", "animals/9", "plants/trees/oak", "stones"):
        for i in range(6):
            save(tmp_path / path / f"{i}.png", scene())
            save(tmp_path / "with_splits" / ("train", "test")[i % 2] / path / f"{i}.png", scene())
    dataset = load_dataset(tmp_path / "with_splits")
    assert dataset.class_names == ("animals/9", "animals/10", "plants/trees/oak", "stones")
    assert {file.split("/")[1] for file in dataset.test.files} == {"animals", "plants", "stones"}
    for file, label in zip(dataset.train.files, dataset.train.labels, strict=True):
        assert file.rpartition("/")[0] == f"train/{dataset.class_names[label]}"
    shutil.rmtree(tmp_path / "with_splits")
    assert load_dataset(tmp_path).class_names == dataset.class_names


@pytest.mark.parametrize("names", [("invalid", "valid"), ("bus", "dev")])
def test_a_class_may_be_called_as_a_validation_split(tmp_path, names):
    for i in range(6):
        save(tmp_path / names[i % 2] / f"{i}.png", scene())
    assert load_dataset(tmp_path).class_names == names


def test_a_class_may_be_called_train_within_train(tmp_path):
    for i in range(6):
        save(tmp_path / "train" / ("bus", "train")[i % 2] / f"{i}.png", scene())
    assert load_dataset(tmp_path).class_names == ("bus", "train")


def test_a_link_that_leads_in_a_circle_ends(tmp_path):
    save(tmp_path / "cat" / "a.png", scene())
    (tmp_path / "cat" / "again").symlink_to(tmp_path)
    refused(lambda: load_dataset(tmp_path), "subfolder")


def test_an_animation_is_its_first_frame(tmp_path):
    frames = [Image.fromarray(np.full((4, 4), value, np.uint8)) for value in (9, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (read(tmp_path, (4, 4, 3)).images == 9).all()
