"""Lists of pictures."""

import numpy as np
import pytest
from test_cases import refused, save, scene

from vae_jax.data.loading import load_dataset, read_images

NAMES = [f"photos/{'xy'[i % 2]}/{i:02}.png" for i in range(12)]


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate(NAMES):
        save(tmp_path / name, scene(i))
    return tmp_path


def listed(folder, *rows, heads="path,label,split", name="files.csv", encoding="utf-8"):
    (folder / name).write_text("\n".join([heads, *rows]) + "\n", encoding=encoding)
    return folder / name


def images_of(split):
    return split.images.astype(int)[:, 1, -1, 0] - 40


@pytest.mark.parametrize("by", ["file", "folder"])
def test_a_list_says_file_class_and_split(folder, by):
    rows = [f"{name},{['cat', 'dog'][i % 3 == 0]},{['Train', 'VAL', 'test'][i % 3]}" for i, name in enumerate(NAMES)]
    file = listed(folder, *reversed(rows))
    dataset = load_dataset(file if by == "file" else folder)
    assert dataset.class_names == ("cat", "dog")
    for number, split in enumerate(dataset.splits.values()):
        assert sorted(images_of(split)) == [i for i in range(12) if i % 3 == number]
        assert split.files == tuple(NAMES[i] for i in images_of(split))
        assert set(split.labels) == {int(number == 0)}
    assert dataset.source == f"images of {file}"
    assert len(read_images(file, (6, 9, 3))[0]) == 12


def test_only_paths_are_needed_and_other_columns_may_be_there(folder):
    listed(folder, *(f"7,{name}" for name in NAMES[:10]), heads="id, Path", encoding="utf-8-sig")
    dataset = load_dataset(folder)
    assert sorted(f for split in dataset.splits.values() for f in split.files) == sorted(NAMES[:10])
    assert (dataset.class_names, dataset.train.labels) == (None, None)


def test_labels_that_are_numbers_stay_the_numbers_in_order(folder):
    listed(folder, *(f"{name},{11 - i}" for i, name in enumerate(NAMES)), heads="path,label")
    dataset = load_dataset(folder)
    assert dataset.class_names == tuple(map(str, range(12)))
    np.testing.assert_array_equal(images_of(dataset.train), 11 - dataset.train.labels)


def test_a_list_is_scaled_and_may_skip_what_is_damaged(folder):
    (folder / NAMES[3]).write_text("none")
    file = listed(folder, *NAMES, heads="path")
    refused(lambda: load_dataset(file), "1 of 12 images", "photos/y/03.png")
    with pytest.warns(UserWarning, match=r"left out, .* \(1\)"):
        dataset = load_dataset(file, image_size=4, skip_damaged=True)
    assert (dataset.image_shape, sum(map(len, dataset.splits.values()))) == ((4, 4, 3), 11)


GOOD = [f"{name},a,train" for name in NAMES[:4]]


@pytest.mark.parametrize(
    ("heads", "rows", "parts"),
    [
        ("path,label,split", [*GOOD, "none.png,a,train"], ["line 6, column path", "'none.png'", "looked for in"]),
        ("path,label,split", [*GOOD, ",a,train"], ["line 6, column path", "''"]),
        ("path,label,split", [*GOOD, "photos,a,train"], ["line 6, column path", "be that of a file"]),
        ("path,label,split", [GOOD[0], *GOOD], ["line 3, column path", "be there once", "in line 2, too"]),
        (
            "path,label,split",
            [*GOOD, f"{NAMES[5]},a,tset"],
            ["line 6, column split", "train, training, test", "'tset'"],
        ),
        ("path,label,split", [*GOOD, f"{NAMES[5]},a,"], ["line 6, column split", "''", "Leave the column out"]),
        ("path,label,split", [*GOOD, f"{NAMES[5]},,test"], ["line 6, column label", "''"]),
        ("path,label,split", [*GOOD, f"{NAMES[5]},a"], ["line 6, must have 3 values", "quotes"]),
        ("path,label,split", [*GOOD, f"{NAMES[5]},a,b,test"], ["line 6, must have 3 values", "quotes"]),
        ("path,label,split", ["photos/x/00.png,a,test"], ["to train on", "got 1 in all"]),
        ("path", [], ["to train on", "got 0"]),
        ("file,label", [], ["the column path", "got file, label", "another name"]),
        ("path;label", [], ["separated by commas", "got path;label"]),
        ("path,path", [], ["each once"]),
        ("", [], ["got nothing"]),
        ("path,label", ['"photos'], ["can't be read as CSV"]),
        ("path\0", ["photos"], ["got path"]),
    ],
)
def test_what_is_wrong_in_a_list_is_named_by_line_and_column(folder, heads, rows, parts):
    file = listed(folder, *rows, heads=heads)
    for given in (file, folder):
        refused(lambda: load_dataset(given), str(file), *parts)  # noqa: B023


def test_a_list_that_is_no_text_is_named(folder):
    (folder / "files.csv").write_bytes(b"path\n\xff\xfe\n")
    refused(lambda: load_dataset(folder), "files.csv can't be read as CSV", "UTF-8")
    refused(lambda: load_dataset(folder / "none.csv"), "must exist", "none.csv")
