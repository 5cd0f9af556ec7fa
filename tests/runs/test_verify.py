"""`python -m experiments.verify`: each kind of damage is named, and nothing is changed."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from damaged import flip
from PIL import Image

from experiments import verify
from vae_jax.cli.command import main
from vae_jax.config import Settings
from vae_jax.data.loading import load_dataset
from vae_jax.errors import UsageError
from vae_jax.models.autoencoders import build_model
from vae_jax.runs.datasets import MissingDataError, find_dataset
from vae_jax.runs.recording import train_run
from vae_jax.runs.records import read_dataset_record, read_settings, write_json
from vae_jax.runs.verify import check as verified


@pytest.fixture(scope="module")
def run(tmp_path_factory, digits):
    settings = Settings(dataset="digits", hidden_sizes=(8,), epochs=2, batch_size=256)
    path = tmp_path_factory.mktemp("verify") / "run"
    rows = train_run(path, build_model(settings, digits.image_shape), settings, digits).history
    test = {"loss": 1.0, "reconstruction": 1.0, "kl": 0.0}
    write_json(path / "summary.json", {"test": test, "epochs": 2, "steps": rows[-1]["step"], "best_step": 6})
    (path / "figures").mkdir()
    Image.new("L", (30, 20), 99).save(path / "figures" / "samples.png")
    return path


def check(path):
    return {name: (good, said) for name, good, said in verified(path)}


def test_all_of_a_good_run_is_good(run, capsys):
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    main(verify.Config, verify.run, [str(run)])
    lines = capsys.readouterr().out.splitlines()
    names = "config.json environment.json metrics.jsonl summary.json checkpoints/6 checkpoints/12 figures/samples.png"
    assert all(line.startswith("ok") for line in lines)
    assert all(any(name in line for line in lines) for name in names.split())
    assert before == {p: p.stat().st_mtime_ns for p in run.rglob("*")}


def change_row(path, change):
    lines = (path / "metrics.jsonl").read_text().splitlines()
    row = json.loads(lines[1])
    change(row)
    (path / "metrics.jsonl").write_text(f"{lines[0]}\n{json.dumps(row)}\n")


def change_summary(path, **values):
    summary = json.loads((path / "summary.json").read_text()) | values
    write_json(path / "summary.json", {name: value for name, value in summary.items() if value is not None})


@pytest.mark.parametrize(
    ("spoil", "name", "said"),
    [
        (lambda p: (p / "config.json").write_text("{"), "config.json", "no JSON"),
        (lambda p: (p / "environment.json").unlink(), "environment.json", "can't be read"),
        (lambda p: change_row(p, lambda row: row["train"].update(loss=1.0)), "metrics.jsonl", "is not reconstruction"),
        (lambda p: change_row(p, lambda row: row.update(epoch=3)), "metrics.jsonl", "each epoch must be there once"),
        (lambda p: (p / "metrics.jsonl").write_text("{\n{\n"), "metrics.jsonl", "no JSON"),
        (lambda p: (p / "summary.json").write_text('{"test": {}}'), "summary.json", "no test loss"),
        (lambda p: change_row(p, lambda row: row.update(step=13)), "summary.json", "12 steps"),
        (lambda p: change_summary(p, steps=6), "summary.json", "6 steps"),
        (lambda p: change_summary(p, best_step=7), "summary.json", "best at 7"),
        (lambda p: change_summary(p, epochs=1), "summary.json", "says 1 epoch and 12 steps"),
        (lambda p: change_summary(p, epochs=None), "summary.json", "'epochs' is missing"),
        (lambda p: flip(p / "checkpoints/12/params"), "checkpoints/12", "damaged"),
        (lambda p: flip(p / "checkpoints/6/training"), "checkpoints/6", "damaged"),
        (lambda p: shutil.rmtree(p / "checkpoints/12"), "checkpoints", "last step 12 is missing"),
        (lambda p: (p / "figures/samples.png").write_bytes(b"\x89PNG"), "figures/samples.png", ""),
    ],
)
def test_damage_is_named(spoil, name, said, run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "run")
    spoil(tmp_path / "run")
    good, found = check(tmp_path / "run")[name]
    assert not good
    assert said in found
    with pytest.raises(SystemExit) as stop:
        main(verify.Config, verify.run, [str(tmp_path / "run")])
    assert stop.value.code == 1
    assert name in capsys.readouterr().err


def test_a_study_that_called_the_best_step_its_steps_is_good(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    change_summary(tmp_path / "run", steps=6, best_step=None)
    assert check(tmp_path / "run")["summary.json"] == (True, "test loss 1.00 after 2 epochs")


def change_config(path, part, **values):
    config = json.loads((path / "config.json").read_text())
    config[part] |= values
    (path / "config.json").write_text(json.dumps(config))


def test_other_data_is_named(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    change_config(tmp_path / "run", "dataset", sha256="0" * 64)
    good, said = check(tmp_path / "run")["data set"]
    assert not good
    assert "digits" in said
    assert "is other data" in said


def test_data_that_can_not_be_read_any_more_is_named(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "images.npz").write_bytes(b"PK")
    change_config(tmp_path / "run", "settings", dataset=str(tmp_path / "images.npz"))
    good, said = check(tmp_path / "run")["data set"]
    assert not good
    assert "can't be read" in said
    (tmp_path / "images.npz").unlink()
    assert check(tmp_path / "run")["data set"] == (True, "not found, so not checked; give --data-dir")


@pytest.fixture
def moved(tmp_path):
    """Images in a file, a folder of pictures, and what a run says of each that was trained there."""
    images = np.random.default_rng(0).integers(0, 256, (20, 6, 5), np.uint8)
    (tmp_path / "then").mkdir()
    np.savez(tmp_path / "then" / "own.npz", images=images)
    (tmp_path / "then" / "pictures").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "then" / "pictures" / f"{i:02}.png")

    def run_on(name):
        dataset = load_dataset(str(tmp_path / "then" / name))
        settings = Settings(dataset=str(tmp_path / "then" / name))
        return settings, {"name": dataset.name, "sha256": dataset.sha256}, dataset

    trained = {name: run_on(name) for name in ("own.npz", "pictures")}
    (tmp_path / "then").rename(tmp_path / "now")
    return trained


@pytest.mark.parametrize("name", ["own.npz", "pictures"])
@pytest.mark.parametrize("given", ["folder", "itself", "renamed"])
def test_data_that_moved_is_found_by_what_it_is(name, given, moved, tmp_path):
    settings, record, wanted = moved[name]
    with pytest.raises(MissingDataError, match=r"not found.*\nGive the file or folder"):
        find_dataset(settings, record)
    here = tmp_path / "now" / name
    if given == "renamed":
        here = here.rename(here.with_name(f"other{here.suffix}"))
    found = find_dataset(settings, record, here.parent if given == "folder" else here, in_file=True)
    assert (found.name, found.sha256) == (wanted.name, wanted.sha256)
    for split in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(found, split).images, getattr(wanted, split).images)


def test_other_data_is_not_taken_for_what_moved(moved, tmp_path):
    settings, record, _ = moved["own.npz"]
    np.savez(tmp_path / "now" / "own.npz", images=np.zeros((20, 6, 5), np.uint8))
    with pytest.raises(UsageError, match=r"own \(.*own.npz\) is other data") as error:
        find_dataset(settings, record, tmp_path / "now")
    assert len(str(error.value).splitlines()) == 2
    with pytest.raises(UsageError, match="must be a file or folder that exists"):
        find_dataset(settings, record, tmp_path / "nowhere")


def test_the_same_images_under_a_name_that_splits_them_otherwise_are_not_taken(moved, tmp_path):
    settings, record, _ = moved["own.npz"]
    shutil.copy(tmp_path / "now" / "own.npz", tmp_path / "mnist.npz")  # the MNIST family is not shuffled
    with pytest.raises(UsageError, match="is other data"):
        find_dataset(settings, record, tmp_path / "mnist.npz")


def test_embedded_data_is_found_whatever_folder_is_given(run, tmp_path):
    settings, record = read_settings(run, Settings), read_dataset_record(run)
    for folder in (None, tmp_path):
        assert find_dataset(settings, record, folder).sha256 == record["sha256"]
    assert find_dataset(dataclasses.replace(settings, dataset=None), record).name == "digits"


def test_no_run_directory_is_a_usage_error(tmp_path):
    with pytest.raises(SystemExit) as stop:
        main(verify.Config, verify.run, [str(tmp_path)])
    assert stop.value.code == 2


def test_a_damaged_codec_is_named(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    file = tmp_path / "run" / "codec-0123.npz"
    np.savez_compressed(file, spec=np.arange(1000))
    assert check(tmp_path / "run")[file.name] == (True, "1 array, each as its checksum says")
    flip(file)
    good, said = check(tmp_path / "run")[file.name]
    assert not good
    assert "no file that it compressed" in said
