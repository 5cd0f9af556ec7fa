import gzip
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from bad_files import npy_header

from vae_jax.data import arrays, idx, published, sources
from vae_jax.data.loading import load_dataset, read_images
from vae_jax.data.raw import Raw, RawSplit
from vae_jax.errors import UsageError

PIXELS = np.arange(2 * 3 * 4, dtype=np.uint8)


def idx_bytes(magic=2051, sizes=(2, 3, 4), payload=bytes(range(24))):
    return struct.pack(f">i{len(sizes)}I", magic, *sizes) + payload


def check_message(error, *parts):
    message = str(error.value)
    assert message.count("\n") <= 1
    assert max(map(len, message.splitlines())) < 500
    for part in parts:
        assert str(part) in message


def test_idx_files_are_read_by_content_not_by_name(tmp_path):
    for compress in (gzip.compress, bytes):
        for name in ("images", "images.gz"):
            (tmp_path / name).write_bytes(compress(idx_bytes()))
            np.testing.assert_array_equal(idx.read_idx(tmp_path / name), PIXELS.reshape(2, 3, 4))
            (tmp_path / name).write_bytes(compress(idx_bytes(2049, (24,))))
            np.testing.assert_array_equal(idx.read_idx(tmp_path / name), PIXELS)


def with_wrong_crc(content):
    packed = bytearray(gzip.compress(content))
    packed[-8] ^= 1
    return bytes(packed)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "found 0"),
        (b"<!DOCTYPE html>", "must start with 2051"),
        (idx_bytes(magic=0xD03), "found 3331"),  # floats
        (idx_bytes()[:10], "ends within its header, after 10 bytes"),
        (idx_bytes(payload=b"12345"), "must hold the 24 bytes of data that its header declares, found 5"),
        (idx_bytes(payload=bytes(25)), "must hold the 24 bytes of data that its header declares, found more"),
        (idx_bytes(sizes=(60_000, 28, 28)), "declares 47040000 bytes"),
        (gzip.compress(idx_bytes(sizes=(2**32 - 1,) * 3)), "are possible"),
        (gzip.compress(idx_bytes())[:-12], "can't be read: Compressed file ended"),
        (with_wrong_crc(idx_bytes()), "CRC check failed"),
        (gzip.compress(idx_bytes()) + b"more", "can't be read"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_broken_idx_is_named(tmp_path, content, found):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(UsageError) as error:
        idx.read_idx(path)
    check_message(error, path, found, "delete it and fetch it again")


def write_idx_files(folder, count=20, suffix=".gz"):
    folder.mkdir(parents=True, exist_ok=True)
    for name in idx.IDX_FILES:
        sizes = (count, 4, 4) if "images" in name else (count,)
        payload = (np.arange(np.prod(sizes)) % 10).astype(np.uint8).tobytes()
        content = idx_bytes(2051 if "images" in name else 2049, sizes, payload)
        (folder / (name + suffix)).write_bytes(gzip.compress(content) if suffix else content)


def test_a_subfolder_of_its_name_goes_first_and_a_missing_idx_file_is_named(tmp_path):
    assert published.find_files("kmnist", tmp_path) == {}
    write_idx_files(tmp_path, suffix="")
    assert set(published.find_files("kmnist", tmp_path).values()) == set(tmp_path.iterdir())
    write_idx_files(tmp_path / "kmnist")
    files = published.find_files("kmnist", tmp_path)
    assert {path.parent for path in files.values()} == {tmp_path / "kmnist"}
    assert idx.read_idx_files(files).test.images.shape == (20, 4, 4)
    (tmp_path / "kmnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UsageError) as error:
        published.find_files("kmnist", tmp_path)
    check_message(error, tmp_path / "kmnist", "lacks t10k-labels-idx1-ubyte (or .gz)")


def save_single_array(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def save_absurd_size(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("images.npy", npy_header((10**15, 1, 1)))


def save_corrupt(path):
    np.savez(path, images=np.zeros((50, 8, 8)))
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("write", "found"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.write_bytes(b""), "can't be read"),
        (lambda path: np.savez(path, images=np.array([{}, []], dtype=object)), "allow_pickle=False"),
        (save_single_array, "not a zip file"),
        (save_corrupt, "Bad CRC-32"),
        (save_absurd_size, "declares 1000000000000000 bytes in its header"),
        (lambda path: np.savez(path, x=np.zeros(3), y=np.zeros(3)), "must hold images, found the keys: x, y"),
        (lambda path: np.savez(path), "found the keys: none"),
        (lambda path: np.savez(path, images=[0], test_labels=[0]), "must hold test_images"),
        (lambda path: np.savez(path, images=[0], x_train=[0]), "one of images and x_train, found both"),
    ],
)
def test_broken_npz_is_named(tmp_path, write, found):
    path = tmp_path / "own.npz"
    write(path)
    with pytest.raises(UsageError) as error:
        arrays.read_npz(path)
    check_message(error, path, found)


def test_a_registered_source_is_asked_first_listed_and_read_everywhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("7.grey", "9.grey"):
        Path(name).touch()
    monkeypatch.setattr(sources, "SOURCES", list(sources.SOURCES))
    with pytest.raises(UsageError, match=r"an \.npz file"):
        load_dataset("7.grey")
    grey = sources.Source(
        "grey",
        "a .grey file",
        lambda given: given.endswith(".grey"),
        lambda given, reading: Raw(given, RawSplit(np.full((5, 2, 2), int(Path(given).stem), np.uint8))),
    )
    sources.register_source(grey)
    dataset = load_dataset("./7.grey")
    assert (dataset.name, dataset.source, dataset.train.images.max()) == ("7", "./7.grey", 7)
    assert read_images("9.grey", (2, 2, 1))[0].images.shape == (5, 2, 2, 1)
    for paths_only in (False, True):
        assert sources.sources_in_words(paths_only=paths_only).startswith("a .grey file, ")
    with pytest.raises(UsageError, match=r"got 'none'(.|\n)*a \.grey file"):
        read_images("none", (2, 2, 1))
    with pytest.raises(UsageError, match="'grey' is registered already"):
        sources.register_source(grey)


def test_paths_are_what_images_are_read_from():
    words = sources.sources_in_words(paths_only=True)
    assert words == "an .npz file, an .npy file, a .csv file that lists images, a folder of images or one picture"
    every = sources.sources_in_words()
    assert every.startswith(
        "mnist, fashion_mnist, kmnist, digits, cifar10, svhn_cropped, binarized_mnist, omniglot, dsprites, "
        "dsprites-N, an .npz file, "
    )
    assert every.endswith(" or the name of a data set that TFDS has prepared")
    with pytest.raises(UsageError, match=r"images must exist, got 'digits'(.|\n)*one picture"):
        read_images("digits", (8, 8, 1))


def test_reading_needs_no_jax_and_no_tfds():
    code = "import sys, vae_jax.data.sources; print({'jax', 'tensorflow_datasets'} & set(sys.modules))"
    root = Path(__file__).parents[2]
    output = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "set()"
