import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_sources import check_message, write_idx_files

from vae_jax.data import catalogue, idx
from vae_jax.data import dataset as data
from vae_jax.data.loading import load_dataset, read_images
from vae_jax.data.raw import Raw, RawSplit
from vae_jax.errors import UsageError
from vae_jax.models import inputs

REAL = Path(os.environ.get("VAE_JAX_DATA_DIR") or Path(__file__).parents[3] / "shared" / "data")
NOISE = np.random.default_rng(0).integers(0, 256, (20, 4, 5), np.uint8)


@pytest.fixture(autouse=True)
def no_data_anywhere(monkeypatch, tmp_path):
    monkeypatch.delenv("VAE_JAX_DATA_DIR", raising=False)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))

    def refuse(*_):
        raise catalogue.DownloadError("somewhere can't be reached")

    monkeypatch.setattr(catalogue, "download", refuse)


@pytest.mark.skipif(not (REAL / "mnist").is_dir(), reason=f"no MNIST in {REAL}: set VAE_JAX_DATA_DIR")
def test_real_mnist():
    mnist = load_dataset("mnist", REAL)
    assert (len(mnist.train), len(mnist.validation), len(mnist.test)) == (55_000, 5_000, 10_000)
    assert mnist.image_shape == (28, 28, 1)
    images = np.concatenate([mnist.train.images, mnist.validation.images])
    assert images.mean() / 255 == pytest.approx(0.1307, abs=1e-4)
    assert mnist.test.images.mean() / 255 == pytest.approx(0.1325, abs=1e-4)
    np.testing.assert_array_equal(mnist.train.labels[:5], [5, 0, 4, 1, 9])
    np.testing.assert_array_equal(mnist.test.labels[:5], [7, 2, 1, 0, 4])


def test_digits_are_split_and_span_the_bytes():
    digits = load_dataset("digits")
    assert (len(digits.train), len(digits.validation), len(digits.test)) == (1295, 143, 359)
    assert digits.image_shape == (8, 8, 1)
    for split in digits.splits.values():
        assert set(split.labels) == set(range(10))
        assert (split.images.min(), split.images.max()) == (0, 255)


def test_splits_hold_each_image_once(tmp_path):
    np.savez(tmp_path / "own.npz", images=NOISE, labels=np.arange(20))
    own = load_dataset(str(tmp_path / "own.npz"))
    assert own.name == "own"
    assert own.source == str(tmp_path / "own.npz")
    assert (len(own.train), len(own.validation), len(own.test)) == (15, 1, 4)
    labels = np.concatenate([split.labels for split in own.splits.values()])
    assert sorted(labels) == list(range(20))
    assert list(labels) != list(range(20))
    images = np.concatenate([split.images for split in own.splits.values()])
    np.testing.assert_array_equal(images[..., 0], NOISE[labels])
    np.savez(tmp_path / "own.npz", images=NOISE[:4])  # the fewest
    assert [len(split) for split in load_dataset(tmp_path / "own.npz").splits.values()] == [2, 1, 1]


def test_validation_images_of_a_set_sorted_by_class_are_of_many_classes(tmp_path):
    images, labels = np.repeat(NOISE, 20, axis=0), np.repeat(np.arange(20), 20)
    np.savez(tmp_path / "own.npz", images=images, labels=labels, test_images=NOISE, test_labels=np.arange(20))
    own = load_dataset(str(tmp_path / "own.npz"))
    assert len(np.unique(own.validation.labels)) > 10
    assert len(np.unique(own.train.labels)) == 20


def test_images_of_each_split_are_taken_where_they_are_given_in_order(tmp_path):
    given = {"x_train": NOISE[:14], "y_train": np.arange(14)[:, None], "x_val": NOISE[14:16]}
    np.savez(tmp_path / "own.npz", **given, x_test=NOISE[16:], y_test=np.arange(4))
    own = load_dataset(tmp_path / "own.npz")
    for split, images, labels in (
        (own.train, NOISE[:14], np.arange(14)),
        (own.validation, NOISE[14:16], None),
        (own.test, NOISE[16:], np.arange(4)),
    ):
        np.testing.assert_array_equal(split.images[..., 0], images)
        np.testing.assert_array_equal(split.labels, labels)
    everything = read_images(tmp_path / "own.npz", (4, 5, 1))[0]
    assert (len(everything), everything.labels) == (20, None)


def test_words_get_the_same_number_in_all_splits(tmp_path):
    words, test_words = np.array(["b 10", "b 2"] * 10), np.array(["c", "b 10", "a"])
    given = {"images": NOISE, "labels": words, "test_images": NOISE[:3], "test_labels": test_words}
    np.savez(tmp_path / "own.npz", **given)
    own = load_dataset(tmp_path / "own.npz")
    assert own.class_names == ("a", "b 2", "b 10", "c")
    np.testing.assert_array_equal(own.test.labels, [3, 2, 0])
    place = {image.tobytes(): index for index, image in enumerate(NOISE)}
    for split in (own.train, own.validation):
        expected = [own.class_names.index(words[place[image.tobytes()]]) for image in split.images]
        np.testing.assert_array_equal(split.labels, expected)
    assert own.labels_of(("c", 1)) == (3, 1)
    with pytest.raises(UsageError, match=r"'d'; they are a, b 2, b 10, c"):
        own.of_classes(("d",))


def with_labels(tmp_path, numbers, **options):
    labels = np.repeat(np.arange(len(numbers)), numbers)
    images = np.random.default_rng(1).integers(0, 256, (len(labels), 2, 2), np.uint8)
    np.savez(tmp_path / "own.npz", images=images, labels=labels)
    dataset = load_dataset(tmp_path / "own.npz", **options)
    assert sorted(b"".join(x) for s in dataset.splits.values() for x in s.images) == sorted(map(bytes, images))
    return dataset, [np.bincount(split.labels, minlength=len(numbers)).tolist() for split in dataset.splits.values()]


def test_a_split_that_would_lack_a_class_is_held_out_by_class(tmp_path):
    dataset, numbers = with_labels(tmp_path, (11, 5))
    assert numbers == [[8, 3], [1, 1], [2, 1]]
    plain, numbers = with_labels(tmp_path, (11, 5), stratify=False)
    assert [sum(row) for row in numbers] == [12, 1, 3]
    assert plain.sha256 == dataset.sha256
    with pytest.raises(UsageError) as error:
        with_labels(tmp_path, (40, 1))[0].of_classes((1,))
    check_message(error, "--classes 1", "no image in the", "split", "1 in all")


@pytest.mark.parametrize("numbers", [(150, 150), (60, 4), (40, 1, 1)])
def test_where_each_larger_class_is_in_all_splits_they_are_those_without_labels(tmp_path, numbers):
    dataset, _ = with_labels(tmp_path, numbers)
    order = np.random.default_rng(0).permutation(sum(numbers))
    rest = order[: -(sum(numbers) // 5)]
    rest = rest[np.random.default_rng(0).permutation(len(rest))]
    images = np.load(tmp_path / "own.npz")["images"][..., None]
    np.testing.assert_array_equal(dataset.test.images, images[order[len(rest) :]])
    np.testing.assert_array_equal(dataset.validation.images, images[rest[-(len(rest) // 10) :]])
    np.testing.assert_array_equal(dataset.train.images, images[rest[: -(len(rest) // 10)]])


def test_a_data_set_made_by_hand_has_the_fingerprint_of_its_arrays():
    def made(images, labels=None):
        split = data.Split(images, labels)
        return data.Dataset("mine", split, split, split)

    assert made(NOISE).source == "arrays"
    assert made(NOISE).sha256 == made(NOISE / 255).sha256 == made(jnp.asarray(NOISE)).sha256
    changed = NOISE.copy()
    changed[0, 0, 0] ^= 1
    others = [
        made(changed),
        made(NOISE.reshape(20, 5, 4)),
        made(NOISE, np.zeros(20, int)),
        made(NOISE, np.ones(20, int)),
    ]
    assert len({one.sha256 for one in (made(NOISE), *others)}) == 5
    part = made(NOISE, np.arange(20) % 2)
    assert part.of_classes((1,)).sha256 == part.sha256
    with pytest.raises(UsageError, match=r"test images must have the shape \(4, 5, 1\) .* got \(3, 5, 1\)"):
        data.Dataset("mine", data.Split(NOISE), data.Split(NOISE), data.Split(NOISE[:, :3]))
    with pytest.raises(
        UsageError, match=r"^validation of a Dataset must be a Split, got ndarray.\nGive .*validation=S"
    ):
        data.Dataset("mine", data.Split(NOISE), NOISE, data.Split(NOISE))


def test_files_and_labels_follow_their_images():
    split = data.Split(NOISE, np.arange(20) % 2, tuple(map(str, range(20))))
    odd = split.of_classes((1,)).rows(slice(None, None, -1))
    assert odd.files == tuple(map(str, range(19, 0, -2)))
    np.testing.assert_array_equal(odd.images[..., 0], NOISE[::-2])
    assert odd.labels.tolist() == [1] * 10
    for labels, files, match in ((["a"] * 20, None, "words"), (None, ("a",), "got 1 for 20"), ([1], None, r"\[20\]")):
        with pytest.raises(UsageError, match=match):
            data.Split(NOISE, labels, files)


@pytest.mark.parametrize(
    ("arrays", "parts"),
    [
        ({"images": NOISE[:3]}, ["at least 4 images", "got 3"]),
        ({"images": NOISE[:2], "test_images": NOISE[:1]}, ["at least 3 images", "got 2"]),
        ({"images": NOISE.astype(complex)}, ["images of", "complex128", "Convert"]),
        ({"images": NOISE, "labels": np.arange(19)}, ["labels of", "[20]", "(19,)"]),
        ({"images": NOISE, "test_images": NOISE[:0]}, ["test_images", "(0, 4, 5)"]),
        ({"images": NOISE, "test_images": NOISE, "test_labels": [1]}, ["test_labels", "(1,)"]),
        ({"images": NOISE, "x_val": NOISE[:, :3]}, ["validation_images", "[n, 4, 5, 1]", "(20, 3, 5)"]),
        (
            {"images": NOISE, "labels": ["a"] * 20, "test_images": NOISE, "test_labels": np.arange(20)},
            ["words in all splits or in none"],
        ),
    ],
)
def test_bad_arrays_are_named(tmp_path, arrays, parts):
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises(UsageError) as error:
        load_dataset(str(tmp_path / "own.npz"))
    check_message(error, tmp_path / "own.npz", *parts)


@pytest.mark.parametrize("folder", ["mnist", "."])
@pytest.mark.parametrize("by", ["argument", "environment", "cache"])
def test_where_idx_files_are_found(monkeypatch, tmp_path, folder, by):
    where = catalogue.data_dir() / "downloads" / "vae_jax" / "mnist" if by == "cache" else tmp_path / "d" / folder
    write_idx_files(where)
    if by == "environment":
        monkeypatch.setenv("VAE_JAX_DATA_DIR", str(tmp_path / "d"))
    mnist = load_dataset("mnist", tmp_path / "d" if by == "argument" else None)
    assert mnist.source == f"IDX files in {where}"
    assert (len(mnist.train), len(mnist.validation), len(mnist.test)) == (18, 2, 20)
    np.testing.assert_array_equal(mnist.train.labels, np.arange(18) % 10)  # not permuted


def test_a_broken_cached_file_is_an_error_and_an_incomplete_cache_is_downloaded_anew(monkeypatch):
    cache = catalogue.data_dir() / "downloads" / "vae_jax" / "mnist"
    write_idx_files(cache)
    path = cache / f"{idx.IDX_FILES[0]}.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UsageError) as error:
        load_dataset("mnist")
    check_message(error, path, "delete it and fetch it again")
    path.unlink()
    monkeypatch.setattr(catalogue, "download", lambda files, folder: write_idx_files(folder, count=30))
    assert len(load_dataset("mnist").test) == 30


def test_mnist_that_cannot_be_had_is_an_error_where_it_is_named_and_otherwise_digits_with_a_warning(tmp_path):
    with pytest.raises(catalogue.DownloadError) as error:
        load_dataset("mnist")
    check_message(error, "can't be reached", "--data-dir", "VAE_JAX_DATA_DIR", *idx.IDX_FILES)
    with pytest.warns(UserWarning, match=r"NOT MNIST.*digits instead.*can't be reached(.|\n)*--data-dir") as seen:
        assert load_dataset().name == "digits"
    assert seen[0].message.args[0].count("\n") <= 1
    write_idx_files(tmp_path)
    assert load_dataset(data_dir=tmp_path).name == "mnist"


def test_prepared_tfds_goes_before_the_download(monkeypatch):
    raw = Raw("prepared", RawSplit(NOISE), test=RawSplit(NOISE))
    monkeypatch.setattr(catalogue, "is_prepared", lambda name: name in ("kmnist", "cifar10", "omniglot"))
    monkeypatch.setattr(catalogue, "knows", lambda name: name == "cifar100")
    monkeypatch.setattr(catalogue, "read_prepared", lambda _: raw)
    assert load_dataset("kmnist").source == "prepared"
    for name in ("cifar10", "cifar100"):
        assert load_dataset(name).name == name
    with pytest.raises(catalogue.DownloadError, match="omniglot could not"):  # TFDS makes other images of it
        load_dataset("omniglot")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("mnist", "no/such/folder"), ["--data-dir", "'no/such/folder'"]),
        (
            ("no/such/folder",),
            ["--dataset must exist, got 'no/such/folder'.\n", f"There is no file or folder {Path.cwd()}/no"],
        ),
        (
            ("no_such.npz",),
            ["'no_such.npz'", f"no file or folder {Path.cwd()}/no_such.npz; allowed are mnist, "],
        ),
        (("nope.png",), ["'nope.png'", "no file or folder", "an .npz file", "a folder of images", "one picture"]),
        (("no_such_data",), ["--dataset must exist", "'no_such_data'", "digits"]),
        (("",), ["--dataset", "''", "digits"]),
        (("~no_such_user/images",), ["--dataset", "'~no_such_user/images'"]),
        (("a" * 300,), ["--dataset", "digits"]),
        (("mnist:9.9.9",), ["'mnist:9.9.9'", "folder"]),
        (("a b?",), ["'a b?'"]),
        (("huggingface:mnist",), ["'huggingface:mnist'", "that TFDS has prepared"]),
        (("cifar100",), ['pip install "vae_jax[tf]"', "tfds.builder('cifar100', file_format='array_record')"]),
    ],
)
def test_what_is_not_there_is_named(arguments, parts):
    with pytest.raises(UsageError) as error:
        load_dataset(*arguments)
    check_message(error, *parts)


@pytest.mark.parametrize(
    ("name", "option", "parts"),
    [
        ("digits", {"background": "black"}, ["--background black", "'digits'", "a folder of images and one picture"]),
        ("digits", {"data_dir": "."}, ["--data-dir .", "'digits'", "mnist, fashion_mnist, kmnist"]),
        (
            "mnist",
            {"skip_damaged": True},
            ["--skip-damaged True", "'mnist'", "only on a .csv file that lists images and a folder of images"],
        ),
        (None, {"background": "black"}, ["--background black", "'mnist'"]),
        ("own.npz", {"skip_damaged": True}, ["--skip-damaged", "own.npz"]),
        ("own.npz", {"data_dir": "."}, ["--data-dir", "own.npz"]),
        ("own.npy", {"background": "black"}, ["--background", "own.npy"]),
        ("own.png", {"skip_damaged": True}, ["--skip-damaged", "own.png", "a folder of images"]),
    ],
)
def test_what_has_no_effect_on_a_source_is_refused(monkeypatch, tmp_path, name, option, parts):
    monkeypatch.chdir(tmp_path)
    for path in ("own.npz", "own.npy", "own.png"):
        Path(path).touch()
    with pytest.raises(UsageError) as error:
        load_dataset(name, **option)
    check_message(error, "has no effect", "Leave it out", *parts)


def test_the_background_of_a_run_says_nothing_of_its_images_that_are_arrays(tmp_path):
    np.save(tmp_path / "own.npy", NOISE)
    assert len(read_images(tmp_path / "own.npy", (4, 5, 1), background="black")[0]) == 20
    with pytest.raises(UsageError, match="--skip-damaged True has no effect"):
        read_images(tmp_path / "own.npy", (4, 5, 1), skip_damaged=True)


def test_batch_must_not_exceed_the_training_images():
    split = data.Split(NOISE / 255)
    data.check_batch_size(split, 20)
    for number, words in ((20, "20 training images"), (1, "1 training image")):
        with pytest.raises(UsageError, match=f"--batch-size must be at most the {words}, got 21."):
            data.check_batch_size(split.rows(slice(number)), 21)


ALL_BYTES = jnp.arange(256, dtype=jnp.uint8).reshape(4, 8, 8, 1)


def test_preprocess_scales_and_thresholds():
    exact = np.arange(256).reshape(4, 8, 8, 1) / 255
    pixels = jax.jit(inputs.preprocess)(ALL_BYTES)
    assert pixels.dtype == jnp.float32
    np.testing.assert_allclose(pixels, exact, rtol=1e-6)
    np.testing.assert_array_equal(inputs.preprocess(ALL_BYTES, "threshold"), exact >= 0.5)


def test_dynamic_binarisation_draws_the_pixel_as_a_probability():
    draws, levels = 4000, np.array([0, 51, 127, 204, 255], np.uint8)
    images = jnp.broadcast_to(levels[None, :, None, None], (draws, 5, 1, 1))
    keys = jax.random.split(jax.random.key(0), draws)
    binary = np.asarray(jax.jit(inputs.preprocess, static_argnums=1)(images, "dynamic", keys))[:, :, 0, 0]
    p = levels / 255
    assert set(np.unique(binary)) == {0.0, 1.0}
    assert np.all(np.abs(binary.mean(0) - p) <= 5 * np.sqrt(p * (1 - p) / draws))


@pytest.mark.parametrize("binarize", ["dynamic", "sometimes"])
def test_binarize_is_checked(binarize):
    with pytest.raises(UsageError, match="--binarize"):
        inputs.preprocess(ALL_BYTES, binarize)
