"""Published data sets are read from the files that they are published in, wherever these lie."""

import io
import tarfile
import zipfile

import numpy as np
import oracles
import pytest
from PIL import Image
from scipy.io import savemat
from test_cases import refused

from vae_jax.data import catalogue, formats
from vae_jax.data.loading import load_dataset
from vae_jax.data.published import PUBLISHED

RNG = np.random.default_rng(0)
NAMES = ["airplane", "cat", "dog"]


@pytest.fixture(autouse=True)
def no_data_anywhere(monkeypatch, tmp_path):
    monkeypatch.delenv("VAE_JAX_DATA_DIR", raising=False)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))


def write_cifar(folder, images=None, labels=None, names=NAMES, cut=0):
    """Five batches of four images and a test batch of three, as records of a label and three planes."""
    images = RNG.integers(0, 256, (23, 32, 32, 3), np.uint8) if images is None else images
    labels = np.arange(len(images)) % 3 if labels is None else labels
    with tarfile.open(folder / formats.CIFAR, "w:gz") as archive:

        def add(name, content):
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))

        for number in range(6):
            chosen = range(4 * number, min(4 * number + 4, len(images)))
            name = f"data_batch_{number + 1}.bin" if number < 5 else "test_batch.bin"
            content = b"".join(bytes([labels[i]]) + images[i].transpose(2, 0, 1).tobytes() for i in chosen)
            add(name, content[: len(content) - cut])
        add("batches.meta.txt", "\n".join([*names, ""]).encode())
    return images, labels


def write_svhn(folder, labels=(1, 2, 10, 9, 10, 3)):
    images = RNG.integers(0, 256, (32, 32, 3, len(labels)), np.uint8)
    for name in formats.SVHN:
        savemat(folder / name, {"X": images, "y": np.array(labels, np.uint8)[:, None]})
    return images


def write_amat(folder):
    images = [RNG.integers(0, 2, (number, 784)) for number in (7, 3, 4)]
    for name, each in zip(formats.AMAT, images, strict=True):
        np.savetxt(folder / name, each, "%d")
    return images


def write_omniglot(folder, damage=None):
    drawings = {}
    for number, name in enumerate(formats.OMNIGLOT):
        with zipfile.ZipFile(folder / name, "w") as archive:
            for character in ("character01", "character02"):
                for i in range(4):
                    image = RNG.random((105, 105)) > 0.1
                    path = f"{name[:-4]}/Greek_{number}/{character}/00{i}.png"
                    file = io.BytesIO()
                    Image.fromarray(image).save(file, "PNG")
                    archive.writestr(path, damage or file.getvalue())
                    archive.writestr(f"__MACOSX/{path}", b"no image")
                    drawings[path] = image
    return drawings


def test_cifar10_of_its_binary_version(tmp_path):
    images, labels = write_cifar(tmp_path)
    dataset = load_dataset("cifar10", tmp_path)
    assert (dataset.class_names, dataset.image_shape, len(dataset.test)) == (tuple(NAMES), (32, 32, 3), 3)
    np.testing.assert_array_equal(dataset.test.images, images[20:])
    np.testing.assert_array_equal(dataset.test.labels, labels[20:])
    both = np.concatenate([dataset.train.images, dataset.validation.images])
    assert sorted(map(bytes, both)) == sorted(map(bytes, images[:20]))


def test_svhn_of_its_mat_files_where_ten_is_the_digit_0(tmp_path):
    images = write_svhn(tmp_path)
    dataset = load_dataset("svhn_cropped", tmp_path)
    np.testing.assert_array_equal(dataset.test.images, np.moveaxis(images, -1, 0))
    assert dataset.test.labels.tolist() == [1, 2, 0, 9, 0, 3]


def test_binarized_mnist_has_its_own_splits(tmp_path):
    images = write_amat(tmp_path)
    dataset = load_dataset("binarized_mnist", tmp_path)
    for split, expected in zip(dataset.splits.values(), images, strict=True):
        np.testing.assert_array_equal(split.images, 255 * expected.reshape(-1, 28, 28, 1))
        assert split.labels is None


def test_omniglot_has_white_ink_and_the_size_that_is_asked_for(tmp_path):
    drawings = write_omniglot(tmp_path)
    dataset = load_dataset("omniglot", tmp_path)
    assert dataset.image_shape == (105, 105, 1)
    for split, folder in ((dataset.train, "images_background"), (dataset.test, "images_evaluation")):
        for image, label, path in zip(split.images, split.labels, split.files, strict=True):
            np.testing.assert_array_equal(image[..., 0], np.where(drawings[path], 0, 255))
            assert path.startswith(f"{folder}/{dataset.class_names[label]}/")
    small = load_dataset("omniglot", tmp_path, image_size=28)
    image, path = small.test.images[0], small.test.files[0]
    expected = oracles.scaled(255 * ~drawings[path][..., None], (28, 28), "crop", 0)
    assert np.abs(image.astype(float) - np.clip(expected, 0, 255)).mean() < 10  # an average before the filter


WRITERS = {
    "cifar10": write_cifar,
    "svhn_cropped": write_svhn,
    "binarized_mnist": write_amat,
    "omniglot": write_omniglot,
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("by", ["subfolder", "environment", "cache", "download"])
def test_where_the_files_are_found(tmp_path, monkeypatch, name, by):
    place = catalogue.data_dir() / "downloads" / "vae_jax" / name
    folder = {"subfolder": tmp_path / "own" / name, "environment": tmp_path / "own", "cache": place}.get(by, tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    asked = []

    def fetch(files, where):
        asked.extend(files)
        where.mkdir(parents=True)
        WRITERS[name](where)

    monkeypatch.setattr(catalogue, "download", fetch)
    if by != "download":
        WRITERS[name](folder)
    if by == "environment":
        monkeypatch.setenv("VAE_JAX_DATA_DIR", str(folder))
    dataset = load_dataset(name, folder.parent if by == "subfolder" else None)
    assert str(place if by == "download" else folder) in dataset.source
    assert {file.name for file in asked} == (set(PUBLISHED[name].files) if by == "download" else set())
    assert all(len(file.sha256) == 64 for file in asked)


@pytest.mark.parametrize("name", WRITERS)
def test_files_that_are_broken_or_missing_are_named(tmp_path, name):
    WRITERS[name](tmp_path)
    first, *others = PUBLISHED[name].files
    whole = (tmp_path / first).read_bytes()
    for content in (b"", b"<html>404</html>", whole[: len(whole) // 2]):
        (tmp_path / first).write_bytes(content)
        refused(lambda: load_dataset(name, tmp_path), str(tmp_path / first), "can't be read", "fetch it again")
    if others:
        (tmp_path / first).unlink()
        refused(lambda: load_dataset(name, tmp_path), f"{tmp_path} lacks {first}, found {others[0]}", "All these files")


BROKEN = {
    "a label without a name": lambda folder: write_cifar(folder, names=NAMES[:2]),
    "a record cut short": lambda folder: write_cifar(folder, cut=7),
    "a label of 11": lambda folder: write_svhn(folder, (11, 1, 2)),
    "other text": lambda folder: (write_amat(folder), (folder / formats.AMAT[0]).write_text("0 1 2\n")),
    "half an image": lambda folder: (write_amat(folder), (folder / formats.AMAT[0]).write_text("0 1 0\n")),
    "no image": lambda folder: (write_amat(folder), (folder / formats.AMAT[0]).write_text("\n")),
    "no picture": lambda folder: write_omniglot(folder, b"none"),
    "a large picture": lambda folder: write_omniglot(folder, bytes(2**20 + 1)),
}


@pytest.mark.parametrize("case", BROKEN)
def test_contents_that_are_not_as_published_are_refused(tmp_path, case):
    BROKEN[case](tmp_path)
    name = next(name for name in WRITERS if (tmp_path / PUBLISHED[name].files[0]).exists())
    refused(lambda: load_dataset(name, tmp_path), str(tmp_path))


def test_only_omniglot_has_a_size_to_choose(tmp_path):
    refused(lambda: load_dataset("cifar10", tmp_path, image_size=16), "--image-size 16 has no effect", "omniglot")
