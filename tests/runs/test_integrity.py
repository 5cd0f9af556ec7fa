import dataclasses
import hashlib
import warnings

import numpy as np
import pytest

from vae_jax.config import Settings
from vae_jax.errors import Interrupted
from vae_jax.models.autoencoders import build_model
from vae_jax.runs.integrity import FILES, array_digests, changed_files, list_files, record_digest
from vae_jax.runs.recording import train_run
from vae_jax.runs.records import write_json
from vae_jax.runs.run import load_run

EMPTY_LIST = hashlib.sha256(b"[]").hexdigest()
SETTINGS = Settings(dataset="digits", hidden_sizes=(8,), epochs=1, batch_size=256)


def test_digests_are_those_of_the_bytes():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    digest = hashlib.sha256(array.tobytes()).hexdigest()
    assert array_digests({"a": [array]}) == {"['a'][0]": ["float32", [2, 3], digest]}
    assert record_digest({"a": 1, "b": 2}) == record_digest({"b": 2, "a": 1}) != record_digest({"a": 1, "b": 3})


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda folder: None, []),
        (lambda folder: (folder / "a").write_text("2"), ["a"]),
        (lambda folder: (folder / "sub" / "b").unlink(), ["sub/b"]),
        (lambda folder: (folder / "c").touch(), ["c"]),
        (lambda folder: (folder / FILES).write_text("{"), [FILES]),
        (lambda folder: (folder / FILES).write_text('{"files": {}, "sha256": ""}'), [FILES]),
        (lambda folder: (folder / FILES).write_text(f'{{"files": [], "sha256": "{EMPTY_LIST}"}}'), [FILES]),
        (lambda folder: ((folder / "a").unlink(), (folder / "a").symlink_to("/proc/self/mem")), ["a"]),
        (lambda folder: (folder / FILES).unlink(), None),
    ],
    ids=["none", "changed", "gone", "more", "list cut", "list changed", "no dict", "unreadable", "no list"],
)
def test_files_that_are_not_as_listed_are_named(change, names, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a").write_text("1")
    (tmp_path / "sub" / "b").write_text("1")
    list_files(tmp_path)
    change(tmp_path)
    assert changed_files(tmp_path) == names


def train(path, digits, settings=SETTINGS, **arguments):
    return train_run(path, build_model(settings, digits.image_shape), settings, digits, **arguments)


def test_a_checkpoint_whose_arrays_are_good_is_used_and_what_is_wrong_with_it_said(digits, tmp_path):
    params = train(tmp_path, digits).params
    folder = next(path for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_run(tmp_path)
    (folder / "more").touch()
    with pytest.warns(UserWarning, match=r"other files than were written \(more\).*it is used"):
        run = load_run(tmp_path)
    np.testing.assert_array_equal(run.params["encoder"]["Dense_0"]["kernel"], params["encoder"]["Dense_0"]["kernel"])
    (folder / "more").unlink()
    (folder / FILES).unlink()
    with warnings.catch_warnings():  # as a kill leaves it
        warnings.simplefilter("error")
        load_run(tmp_path)
    write_json(tmp_path / "summary.json", {"test": dict.fromkeys(("loss", "reconstruction", "kl"), 1.0)})
    with pytest.warns(UserWarning, match="no list of its files"):
        load_run(tmp_path)


def test_a_checkpoint_is_listed_once_it_is_on_disk_and_at_the_latest_when_the_run_goes_on(digits, tmp_path):
    settings = dataclasses.replace(SETTINGS, epochs=2, checkpoint_every_steps=1)
    with pytest.raises(Interrupted):
        train(tmp_path, digits, settings, stop=iter([0, 0, 0, 2]).__next__)
    folders = [path for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()]
    assert [changed_files(folder) for folder in folders] == [[]] * len(folders)
    (max(folders, key=lambda folder: int(folder.name)) / FILES).unlink()  # as a kill leaves it
    (folders[0] / f".{FILES}.1.tmp").write_text("{")
    assert [changed_files(folder) or [] for folder in folders] == [[]] * len(folders)
    train(tmp_path, digits, settings, resume=True)
    folders = [path for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()]
    assert [changed_files(folder) for folder in folders] == [[]] * len(folders)
