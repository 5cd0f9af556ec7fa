"""What a checkpoint holds beside its arrays, what of it is read, and the layouts that earlier versions wrote."""

import dataclasses
import hashlib
import json
import shutil
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
from damaged import flip

from vae_jax.config import Settings
from vae_jax.models.autoencoders import build_model
from vae_jax.runs.checkpoints import Checkpoints
from vae_jax.runs.integrity import DamagedError, array_digests, make_record, read_record
from vae_jax.runs.recording import train_run
from vae_jax.runs.records import read_settings
from vae_jax.runs.run import load_run
from vae_jax.training.recipe import Recipe
from vae_jax.training.step import init_state, zero_metrics

SETTINGS = Settings(dataset="digits", hidden_sizes=(8,), epochs=2, batch_size=256)
OLD_RUNS = sorted(Path(__file__).parent.glob("schema*"))


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    path = tmp_path_factory.mktemp("integrity") / "run"
    return path, train_run(path, build_model(SETTINGS, digits.image_shape), SETTINGS, digits)


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained[0], tmp_path / "run")


def problem(path, step):
    with Checkpoints(path) as checkpoints:
        return checkpoints.problem(step)


def test_digests_are_those_of_the_bytes():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    digest = hashlib.sha256(array.tobytes()).hexdigest()
    assert array_digests({"a": [array]}) == {"['a'][0]": ["float32", [2, 3], digest]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, None),
        ({"loss": 1.0}, "not what was saved"),
        ({"step": 4}, "not what was saved"),
        ({"sha256": "0"}, "not what was saved"),
        (None, "no list"),
    ],
)
def test_a_record_that_is_not_what_was_saved_is_named(change, said, tmp_path):
    folder = tmp_path / "3" / "record"
    folder.mkdir(parents=True)
    record = make_record(3, 2.0, 0.5, {"params": {"a": np.zeros(2, np.float32)}})
    text = "[" * 10_000 if change is None else json.dumps(record | change)
    (folder / "metadata").write_text(text)
    if said:
        with pytest.raises(DamagedError, match=said):
            read_record(folder.parent)
    else:
        assert read_record(folder.parent)["arrays"] == {"params": array_digests({"a": np.zeros(2, np.float32)})}


def test_the_record_of_another_step_is_named(tmp_path):
    (tmp_path / "4" / "record").mkdir(parents=True)
    (tmp_path / "4" / "record" / "metadata").write_text(json.dumps(make_record(3, 2.0, 0.5, {})))
    with pytest.raises(DamagedError, match="step 3"):
        read_record(tmp_path / "4")


def test_loading_a_model_reads_its_parameters_only_and_verifying_reads_all(run, trained):
    flip(run / "checkpoints" / "12" / "training")
    (run / "checkpoints" / "12" / "more").touch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        params = load_run(run, "latest").params
    jax.tree.map(np.testing.assert_array_equal, params, trained[1].params)
    assert "training" in problem(run, 12) or "can't be read" in problem(run, 12)
    assert problem(run, 6) is None
    shutil.rmtree(run / "checkpoints" / "12" / "training")
    assert load_run(run, "latest").step == 12
    assert "can't be read" in problem(run, 12)


def test_no_file_of_a_checkpoint_tells_where_the_run_lies(trained):
    files = [file for file in (trained[0] / "checkpoints").rglob("*") if file.is_file()]
    assert len(files) > 20
    assert [file for file in files if str(trained[0].parent).encode() in file.read_bytes()] == []


def test_a_checkpoint_that_is_no_longer_kept_leaves_nothing(run, digits):
    settings = dataclasses.replace(SETTINGS, epochs=5)
    result = train_run(run, build_model(settings, digits.image_shape), settings, digits, resume=True)
    losses = {row["step"]: row["validation"]["loss"] for row in result.history}
    best = min(losses, key=losses.__getitem__)
    assert {path.name for path in (run / "checkpoints").iterdir()} == {str(step) for step in {24, 30, best}}


@pytest.mark.parametrize("path", OLD_RUNS, ids=lambda path: path.name)
def test_training_of_every_schema_restores_whole(path, digits):
    settings = read_settings(path, Settings)
    model = build_model(settings, (8, 8, 1))
    recipe = Recipe(model, settings, len(digits.train))
    with Checkpoints(path) as checkpoints:
        progress = checkpoints.restore_progress(12, recipe)
    state, metrics = jax.eval_shape(lambda: (init_state(recipe), zero_metrics(recipe.steps)))
    assert int(progress.state.step) == int(progress.state.opt_state[1][0].count) == 12
    assert jax.tree.structure(progress.state) == jax.tree.structure(state)
    for found, wanted in zip(jax.tree.leaves(progress[:2]), jax.tree.leaves((state, metrics)), strict=True):
        assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
    assert all(not np.any(leaf) for leaf in progress.metrics)


def test_damage_to_an_old_checkpoint_is_named(tmp_path):
    run = shutil.copytree(next(path for path in OLD_RUNS if path.name == "schema1_conv"), tmp_path / "run")
    assert problem(run, 12) is None
    (run / "checkpoints" / "12" / "digests" / "metadata").unlink()
    assert "no list" in problem(run, 12)
    (run / "checkpoints" / "12" / "metrics" / "metrics").write_text("{}")
    assert "no list" in problem(run, 12)
