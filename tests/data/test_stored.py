import zipfile

import numpy as np
import pytest
from bad_files import npy_header
from test_sources import check_message

from vae_jax.data import stored
from vae_jax.data.loading import load_dataset
from vae_jax.errors import RunError, UsageError

IMAGES = np.random.default_rng(0).integers(0, 256, (60, 4, 5), np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (60, 4, 5, 3), np.uint8)
LABELS = np.arange(60) % 3


@pytest.fixture
def all_stored(monkeypatch):
    monkeypatch.setattr(stored, "SMALLEST_BYTES", 1)
    monkeypatch.setattr(stored, "PIECE_BYTES", 7 * 20)


@pytest.fixture
def opened(tmp_path, all_stored):
    np.save(tmp_path / "own.npy", IMAGES)
    return stored.open_npy(tmp_path / "own.npy")


@pytest.mark.parametrize(
    "chosen",
    [
        slice(None),
        slice(3, 40, 7),
        slice(0, 0),
        -1,
        np.array([5, 6, 7, 2, 2, 59]),
        np.array([[1, 0], [58, 3]]),
        np.array([], np.int64),
        np.arange(60) % 2 == 0,
    ],
)
def test_indexing_and_reading_into_memory_give_what_an_array_gives(opened, chosen):
    assert isinstance(opened, stored.StoredImages)
    np.testing.assert_array_equal(opened[chosen], IMAGES[chosen])
    order = np.random.default_rng(2).permutation(60)
    np.testing.assert_array_equal(opened.rows(order)[chosen], IMAGES[order][chosen])
    assert opened.rows(order)[chosen].dtype == np.uint8
    if isinstance(chosen, np.ndarray) and chosen.dtype == np.int64:
        for images in (opened, IMAGES):
            memory = np.full((len(chosen) + 1, *IMAGES[chosen].shape[1:]), 7, np.uint8)
            stored.read_into(memory[:-1], images, chosen)
            np.testing.assert_array_equal(memory[:-1], IMAGES[chosen])
            assert (memory[-1] == 7).all()


def test_it_looks_like_an_array(opened):
    part = opened.with_channel().rows(slice(10, 30)).rows(np.array([1, 0, 19]))
    assert (part.shape, len(part), part.nbytes, part.dtype) == ((3, 4, 5, 1), 3, 60, np.uint8)
    np.testing.assert_array_equal(np.asarray(part), IMAGES[[11, 10, 29]][..., None])
    np.testing.assert_array_equal(np.asarray(part, np.float32), IMAGES[[11, 10, 29]][..., None].astype(np.float32))
    assert opened.shape == (60, 4, 5)
    together = np.concatenate(list(stored.pieces(opened)))
    assert len(next(stored.pieces(opened))) == 7
    np.testing.assert_array_equal(together, IMAGES)


@pytest.mark.parametrize("images", [IMAGES, COLOUR])
@pytest.mark.parametrize("own_test", [False, True])
def test_splits_and_fingerprint_are_those_of_arrays_in_memory(tmp_path, monkeypatch, images, own_test):
    of_test = {"test_images": images[:9], "test_labels": LABELS[:9]} if own_test else {}
    np.savez(tmp_path / "own.npz", images=images, labels=LABELS, **of_test)
    in_memory = load_dataset(str(tmp_path / "own.npz"))
    monkeypatch.setattr(stored, "SMALLEST_BYTES", 1)
    monkeypatch.setattr(stored, "PIECE_BYTES", 150)
    in_file = load_dataset(str(tmp_path / "own.npz"), in_file=True)
    found = [in_file]
    asked_for = load_dataset(str(tmp_path / "own.npz"))
    assert all(isinstance(split.images, np.ndarray) for split in asked_for.splits.values())
    assert asked_for.sha256 == in_memory.sha256
    if not own_test:
        np.save(tmp_path / "own.npy", images)
        np.save(tmp_path / "own.labels.npy", LABELS)
        found.append(load_dataset(str(tmp_path / "own.npy"), in_file=True))
    for one in found:
        assert one.sha256 == in_memory.sha256
        for classes in (None, (2, 0)):
            for name, expected in in_memory.of_classes(classes).splits.items():
                split = one.of_classes(classes).splits[name]
                assert isinstance(split.images, stored.StoredImages)
                assert isinstance(expected.images, np.ndarray)
                np.testing.assert_array_equal(split.images[:], expected.images)
                np.testing.assert_array_equal(split.labels, expected.labels)


def test_small_and_compressed_and_other_arrays_are_read_into_memory(tmp_path, monkeypatch):
    np.savez(tmp_path / "small.npz", images=IMAGES)
    np.save(tmp_path / "small.npy", IMAGES)
    for name in ("small.npz", "small.npy"):
        assert isinstance(load_dataset(str(tmp_path / name), in_file=True).train.images, np.ndarray)
    monkeypatch.setattr(stored, "SMALLEST_BYTES", 1)
    np.savez_compressed(tmp_path / "a.npz", images=IMAGES)
    np.savez(tmp_path / "b.npz", images=np.float32(IMAGES) / 255)
    np.savez(tmp_path / "c.npz", images=np.asfortranarray(IMAGES))
    np.save(tmp_path / "b.npy", np.float32(IMAGES) / 255)
    np.save(tmp_path / "c.npy", np.asfortranarray(IMAGES))
    for name in ("a.npz", "b.npz", "c.npz", "b.npy", "c.npy"):
        train = load_dataset(str(tmp_path / name), in_file=True).train.images
        assert isinstance(train, np.ndarray)
        np.testing.assert_array_equal(train, load_dataset(str(tmp_path / "small.npz")).train.images)


@pytest.mark.parametrize(
    ("array", "parts"),
    [
        (np.array([IMAGES, None], object), ["objects", "allow_pickle=False"]),
        (IMAGES[0], ["(4, 5)", "[n, height, width]"]),
        (IMAGES[:, :0], ["(60, 0, 5)", "No size may be 0"]),
        (np.uint8(7), ["()"]),
        (IMAGES % 2, ["0 to 255", "only 0 and 1"]),
        (IMAGES[:2], ["at least 4", "got 2"]),
    ],
)
def test_npy_files_that_hold_no_images_are_refused(tmp_path, all_stored, array, parts):
    np.save(tmp_path / "own.npy", array)
    _refused(tmp_path / "own.npy", parts)


def test_damaged_files_are_refused(tmp_path, all_stored):
    np.save(tmp_path / "own.npy", IMAGES)
    whole = (tmp_path / "own.npy").read_bytes()
    for content, part in ((whole[:-1], "found 1199"), (whole + b"x", "found 1201"), (whole[:20], ""), (b"", "")):
        (tmp_path / "own.npy").write_bytes(content)
        _refused(tmp_path / "own.npy", [part])
    (tmp_path / "own.npy").write_bytes(whole)
    np.save(tmp_path / "own.labels.npy", LABELS[:-1])
    _refused(tmp_path / "own.npy", ["labels", "[60]", "(59,)"])
    (tmp_path / "own.labels.npy").write_bytes(b"no array")
    _refused(tmp_path / "own.labels.npy", ["integers [n]"], tmp_path / "own.npy")


def test_a_damaged_npz_file_is_refused(tmp_path, all_stored):
    np.savez(tmp_path / "own.npz", images=IMAGES)
    content = bytearray((tmp_path / "own.npz").read_bytes())
    content[700] ^= 1
    (tmp_path / "own.npz").write_bytes(content)
    _refused(tmp_path / "own.npz", ["Bad CRC-32"])
    (tmp_path / "own.npz").write_bytes(content[:900])
    _refused(tmp_path / "own.npz", ["zip"])
    with zipfile.ZipFile(tmp_path / "own.npz", "w") as archive:
        archive.writestr("images.npy", npy_header(IMAGES.shape) + IMAGES.tobytes()[:-5])
    _refused(tmp_path / "own.npz", ["images declares 1200 bytes", "found"])


def test_a_file_that_shrinks_while_it_is_read_is_named(tmp_path, opened):
    (tmp_path / "own.npy").write_bytes(b"")
    with pytest.raises(RunError, match=r"own\.npy has become shorter"):
        opened[[3]]


def _refused(path, parts, given=None):
    with pytest.raises(UsageError) as error:
        load_dataset(str(given or path), in_file=True)
    check_message(error, path, *parts)
