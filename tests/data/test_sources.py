import gzip
import io
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vae_jax.data import sources
from vae_jax.errors import UsageError

PIXELS = np.arange(2 * 3 * 4, dtype=np.uint8)


def idx(magic=2051, sizes=(2, 3, 4), payload=bytes(range(24))):
    return struct.pack(f">i{len(sizes)}I", magic, *sizes) + payload


def check_message(error, *parts):
    message = str(error.value)
    assert message.count("\n") <= 1
    for part in parts:
        assert str(part) in message


@pytest.mark.parametrize("compress", [gzip.compress, bytes])
@pytest.mark.parametrize("name", ["images", "images.gz"])
def test_read_idx_by_content_not_by_name(tmp_path, compress, name):
    path = tmp_path / name
    path.write_bytes(compress(idx()))
    np.testing.assert_array_equal(sources.read_idx(path), PIXELS.reshape(2, 3, 4))
    path.write_bytes(compress(idx(2049, (24,))))
    np.testing.assert_array_equal(sources.read_idx(path), PIXELS)


def with_wrong_crc(content):
    packed = bytearray(gzip.compress(content))
    packed[-8] ^= 1
    return bytes(packed)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "found 0"),
        (b"<!DOCTYPE html>", "must start with 2051"),
        (idx(magic=0xD03), "found 3331"),  # floats
        (idx()[:10], "ends within its header, after 10 bytes"),
        (idx(payload=b"12345"), "must hold the 24 bytes of data that its header declares, found 5"),
        (idx(payload=bytes(25)), "must hold the 24 bytes of data that its header declares, found more"),
        (idx(sizes=(60_000, 28, 28)), "declares 47040000 bytes"),
        (gzip.compress(idx(sizes=(2**32 - 1,) * 3)), "are possible"),
        (gzip.compress(idx())[:-12], "can't be read: Compressed file ended"),
        (with_wrong_crc(idx()), "CRC check failed"),
        (gzip.compress(idx()) + b"more", "can't be read"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_broken_idx_is_named(tmp_path, content, found):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(UsageError) as error:
        sources.read_idx(path)
    check_message(error, path, found, "delete it and fetch it again")


def write_idx_files(folder, count=20, suffix=".gz"):
    folder.mkdir(parents=True, exist_ok=True)
    for name in sources.IDX_FILES:
        sizes = (count, 4, 4) if "images" in name else (count,)
        payload = (np.arange(np.prod(sizes)) % 10).astype(np.uint8).tobytes()
        content = idx(2051 if "images" in name else 2049, sizes, payload)
        (folder / (name + suffix)).write_bytes(gzip.compress(content) if suffix else content)


def test_named_subfolder_goes_before_the_folder(tmp_path):
    assert sources.find_idx_folder("kmnist", tmp_path) == {}
    write_idx_files(tmp_path, suffix="")
    assert set(sources.find_idx_folder("kmnist", tmp_path).values()) == set(tmp_path.iterdir())
    write_idx_files(tmp_path / "kmnist")
    files = sources.find_idx_folder("kmnist", tmp_path)
    assert {path.parent for path in files.values()} == {tmp_path / "kmnist"}
    assert sources.read_idx_files(files).test_images.shape == (20, 4, 4)


def test_missing_idx_file_is_named(tmp_path):
    write_idx_files(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UsageError) as error:
        sources.find_idx_folder("mnist", tmp_path)
    check_message(error, tmp_path, "lacks t10k-labels-idx1-ubyte (or .gz)")


def test_npz_round_trip(tmp_path):
    path = tmp_path / "own.npz"
    arrays = {"images": np.zeros((5, 2, 3)), "test_images": np.ones((2, 2, 3)), "test_labels": np.arange(2)}
    np.savez(path, **arrays, source=np.arange(3))
    raw = sources.read_npz(path)
    assert raw.source == str(path)
    assert raw.labels is None
    for key, array in arrays.items():
        np.testing.assert_array_equal(getattr(raw, key), array)


def save_objects(path):
    np.savez(path, images=np.array([{}, []], dtype=object))


def save_single_array(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def save_absurd_size(path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**15, 1, 1)})
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("images.npy", header.getvalue())


def save_corrupt(path):
    np.savez(path, images=np.zeros((50, 8, 8)))
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("write", "found"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.write_text("hello"), "can't be read"),
        (lambda path: path.write_bytes(b""), "can't be read"),
        (save_objects, "allow_pickle=False"),
        (save_single_array, "a single array"),
        (save_corrupt, "Bad CRC-32"),
        (save_absurd_size, "declares 1000000000000000 bytes in its header"),
        (lambda path: np.savez(path, x=np.zeros(3), y=np.zeros(3)), "must hold images, found the keys: x, y"),
        (lambda path: np.savez(path), "found the keys: none"),
        (lambda path: np.savez(path, images=[0], test_labels=[0]), "must hold test_images"),
    ],
)
def test_broken_npz_is_named(tmp_path, write, found):
    path = tmp_path / "own.npz"
    write(path)
    with pytest.raises(UsageError) as error:
        sources.read_npz(path)
    check_message(error, path, found)


def save_image(path, mode="L", size=(5, 4), value=7):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


def test_folder_of_grey_images(tmp_path):
    save_image(tmp_path / "b.png", value=2)
    save_image(tmp_path / "a.bmp", value=1)
    save_image(tmp_path / "c.png", "LA", value=(3, 0))
    (tmp_path / ".hidden").write_text("not looked at")
    raw = sources.read_image_folder(tmp_path)
    assert raw.images.shape == (3, 4, 5, 1)
    assert raw.images.dtype == np.uint8
    np.testing.assert_array_equal(raw.images[:, 0, 0, 0], [1, 2, 3])
    assert raw.labels is None


def test_subfolders_are_classes_and_one_colour_image_makes_all_rgb(tmp_path):
    save_image(tmp_path / "dog" / "1.png", "RGBA", value=(1, 2, 3, 0))
    save_image(tmp_path / "cat" / "1.png", value=9)
    save_image(tmp_path / "cat" / "2.gif", "P", value=0)
    save_image(tmp_path / "cat" / "3.webp", "RGB", value=(0, 0, 0))
    save_image(tmp_path / "cat" / "4.jpg", "RGB", value=(0, 0, 0))
    raw = sources.read_image_folder(tmp_path)
    np.testing.assert_array_equal(raw.labels, [0, 0, 0, 0, 1])
    np.testing.assert_array_equal(raw.images[[0, 4], 0, 0], [[9, 9, 9], [1, 2, 3]])


def save_bomb(folder):
    folder.joinpath("a.png").parent.mkdir(parents=True, exist_ok=True)
    Image.new("1", (10_000, 9_000)).save(folder / "a.png")


@pytest.mark.parametrize(
    ("write", "found"),
    [
        (lambda folder: folder.mkdir(), ["holds no images"]),
        (lambda folder: (folder / "empty").mkdir(parents=True), ["holds no images"]),
        (
            lambda folder: (save_image(folder / "a.png"), save_image(folder / "b.png", size=(6, 4))),
            ["b.png is 6x4", "a.png is 5x4", "one size"],
        ),
        (
            lambda folder: (save_image(folder / "a.png"), (folder / "notes.txt").write_text("hello")),
            ["notes.txt can't be read as an image", "Remove it"],
        ),
        (
            lambda folder: (save_image(folder / "a.png"), save_image(folder / "cat" / "a.png")),
            ["both subfolders (cat) and files (a.png)"],
        ),
        (lambda folder: save_image(folder / "cat" / "sub" / "a.png"), ["sub can't be read"]),
        (lambda folder: save_image(folder / "a.png", "I;16"), ["mode I;16", "8 bits"]),
        (save_bomb, ["a.png can't be read", "decompression bomb"]),
    ],
)
def test_bad_image_folder_is_named(tmp_path, write, found):
    write(tmp_path / "own")
    with pytest.raises(UsageError) as error:
        sources.read_image_folder(tmp_path / "own")
    check_message(error, tmp_path / "own", *found)


def test_truncated_image_is_named(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UsageError) as error:
        sources.read_image_folder(tmp_path)
    check_message(error, path, "truncated")


def test_digits_span_the_bytes():
    raw = sources.read_digits()
    assert raw.images.shape == (1797, 8, 8)
    assert (raw.images.min(), raw.images.max()) == (0, 255)
    assert set(raw.labels) == set(range(10))


def test_reading_needs_no_jax_and_no_tfds():
    code = "import sys, vae_jax.data.catalogue; print({'jax', 'tensorflow_datasets'} & set(sys.modules))"
    root = Path(__file__).parents[2]
    output = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "set()"
