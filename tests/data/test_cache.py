"""Pictures that were decoded once come back from the cache, and never others than those that lie there."""

import json
import os
import shutil
import time
import warnings

import numpy as np
import pytest
from test_cases import save, scene

from vae_jax.data import cache, decoding, stored
from vae_jax.data.loading import load_dataset, read_images


@pytest.fixture(params=["small", "large"])
def folder(request, tmp_path, monkeypatch):
    """A folder of pictures that are kept: as those that took long, or as those that are large and stay in the file."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "SETTLED_SECONDS", -10.0)
    monkeypatch.setattr(cache, "SLOW_SECONDS", 0.0 if request.param == "small" else 1e9)
    monkeypatch.setattr(stored, "SMALLEST_BYTES", 1e9 if request.param == "small" else 1)
    for i in range(12):
        save(tmp_path / "own" / "ab"[i % 2] / f"{i:02}.png", scene(i))
    return tmp_path / "own"


@pytest.fixture
def decoded(monkeypatch):
    """A list of the files that were decoded."""
    files = []
    read = decoding.read
    monkeypatch.setattr(decoding, "read", lambda path, **options: files.append(path) or read(path, **options))
    return files


def same(one, other):
    assert (one.sha256, one.class_names, one.pictures) == (other.sha256, other.class_names, other.pictures)
    for name, split in one.splits.items():
        np.testing.assert_array_equal(np.asarray(split.images), np.asarray(other.splits[name].images))
        np.testing.assert_array_equal(split.labels, other.splits[name].labels)
        assert split.files == other.splits[name].files


def entries(folder):
    return sorted((folder.parent / "cache").iterdir())


@pytest.mark.parametrize("in_file", [True, False])
def test_the_second_time_nothing_is_decoded_and_all_is_the_same(folder, decoded, monkeypatch, in_file):
    first = load_dataset(folder, in_file=in_file)
    assert (len(decoded), len(entries(folder))) == (12, 2)
    same(load_dataset(folder, in_file=in_file), first)
    assert len(decoded) == 12
    again, _ = read_images(folder, first.image_shape, pictures=first.pictures)  # what a model takes is another entry
    assert len(decoded) == 24
    np.testing.assert_array_equal(
        read_images(folder, first.image_shape, pictures=first.pictures)[0].images, again.images
    )
    assert len(decoded) == 24
    monkeypatch.setenv(cache.VARIABLE, "off")
    same(load_dataset(folder, in_file=in_file), first)
    assert len(decoded) == 36


def changed_content(folder):
    seen = (folder / "a" / "00.png").stat()
    save(folder / "a" / "00.png", 255 - scene(0))
    os.utime(folder / "a" / "00.png", ns=(seen.st_atime_ns, seen.st_mtime_ns))


CHANGES = {
    "content, at the same time": changed_content,
    "one more": lambda folder: save(folder / "a" / "more.png", scene(0)),
    "one less": lambda folder: (folder / "a" / "00.png").unlink(),
    "another name": lambda folder: (folder / "a" / "00.png").rename(folder / "a" / "0.png"),
    "two exchanged": lambda folder: exchange(folder / "a" / "00.png", folder / "b" / "01.png"),
}


def exchange(one, other):
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_is_decoded_anew(folder, decoded, monkeypatch, change):
    first = load_dataset(folder)
    CHANGES[change](folder)
    second = load_dataset(folder)
    assert len(decoded) > 12
    assert second.sha256 != first.sha256 or change == "another name"
    monkeypatch.setenv(cache.VARIABLE, "off")
    same(load_dataset(folder), second)


@pytest.mark.parametrize("options", [{"image_size": 7}, {"image_size": "8x7", "fit": "pad"}, {"background": "black"}])
def test_what_is_read_otherwise_is_another_entry(folder, decoded, options):
    first = load_dataset(folder)
    other = load_dataset(folder, **options)
    assert len(decoded) == 24
    assert (other.sha256 == first.sha256) == ("background" in options)
    same(load_dataset(folder, **options), other)
    assert len(decoded) == 24


def damage(change):
    def damaged(images, record):
        content = json.loads(record.read_text())
        change(content)
        record.write_text(json.dumps(content))

    return damaged


DAMAGES = {
    "shorter": lambda images, record: images.write_bytes(images.read_bytes()[:-1]),
    "a byte": lambda images, record: images.write_bytes(images.read_bytes()[:-1] + b"\1"),
    "no array": lambda images, record: images.write_bytes(b"hello"),
    "a folder": lambda images, record: (images.unlink(), images.mkdir()),
    "gone": lambda images, record: images.unlink(),
    "no record": lambda images, record: record.unlink(),
    "no json": lambda images, record: record.write_text("{"),
    "a list": lambda images, record: record.write_text("[]"),
    "other rows": damage(lambda content: content.update(left_out=["a/00.png"])),
    "another size": damage(lambda content: content["how"].update(size=[9, 6])),
    "unknown": damage(lambda content: content["how"].update(more=1)),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_an_entry_that_is_damaged_is_made_anew(folder, decoded, name):
    first = load_dataset(folder)
    DAMAGES[name](*reversed(entries(folder)))
    if name == "a folder":
        with pytest.warns(UserWarning, match=rf"not kept for the next start in .*; {cache.VARIABLE} names another"):
            same(load_dataset(folder), first)
        return
    same(load_dataset(folder), first)
    assert len(decoded) == 24
    same(load_dataset(folder), first)
    assert len(decoded) == 24


def test_what_was_left_out_is_said_again(folder, decoded):
    (folder / "b" / "01.png").write_bytes(b"none")
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"left out, as they can't be read \(1\): b/01.png"):
            dataset = load_dataset(folder, skip_damaged=True)
        assert sum(map(len, dataset.splits.values())) == len(decoded) == 11


def test_a_cache_that_can_not_be_written_is_a_warning(folder, decoded):
    (folder.parent / "cache").write_text("a file")
    with pytest.warns(UserWarning, match=r"not kept for the next start in .*: Not a directory|File exists"):
        same(load_dataset(folder), no_cache(folder))


def no_cache(folder):
    os.environ[cache.VARIABLE], place = "off", os.environ[cache.VARIABLE]
    try:
        return load_dataset(folder)
    finally:
        os.environ[cache.VARIABLE] = place


def test_a_disk_that_becomes_full_is_a_warning(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stored, "write_npy", full)
    with pytest.warns(UserWarning, match="No space left on device"):
        same(load_dataset(folder), no_cache(folder))


def test_files_that_have_just_changed_are_not_kept(folder, monkeypatch):
    monkeypatch.setattr(cache, "SETTLED_SECONDS", 2.0)
    first = load_dataset(folder)
    assert not (folder.parent / "cache").exists() or not entries(folder)
    same(load_dataset(folder), first)


def test_the_entries_that_were_used_longest_ago_make_room(folder, decoded, monkeypatch):
    sizes = [8, 9, 10]
    for size in sizes[:2]:
        load_dataset(folder, image_size=size)
        time.sleep(0.01)
    load_dataset(folder, image_size=8)  # used again
    before = len(decoded)
    monkeypatch.setattr(cache, "MOST_BYTES", 12 * 8 * 8 * 3 + 128)
    (folder.parent / "cache" / ".killed.tmp").write_text("")
    os.utime(folder.parent / "cache" / ".killed.tmp", (0, 0))
    load_dataset(folder, image_size=10)
    assert len(entries(folder)) == 4
    load_dataset(folder, image_size=8)
    load_dataset(folder, image_size=10)
    assert len(decoded) == before + 12


def test_a_folder_that_is_quick_to_read_is_not_kept(folder, monkeypatch):
    monkeypatch.setattr(cache, "SLOW_SECONDS", 1e9)
    monkeypatch.setattr(stored, "SMALLEST_BYTES", 1e9)
    load_dataset(folder)
    assert not (folder.parent / "cache").exists()


def test_a_folder_that_was_moved_is_the_same(folder, decoded):
    first = load_dataset(folder)
    shutil.move(folder, folder.parent / "moved")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same(load_dataset(folder.parent / "moved"), first)
    assert len(decoded) == 12
