"""Runs that are interrupted anywhere end as straight ones; what can go wrong while recording is said in two lines."""

import dataclasses
import itertools
import json
import resource
import shutil
import signal

import jax
import numpy as np
import pytest

from vae_jax.config import Settings
from vae_jax.errors import Interrupted, RunError, UsageError
from vae_jax.models.autoencoders import build_model
from vae_jax.runs import recording, together
from vae_jax.runs.checkpoints import Checkpoints
from vae_jax.runs.recording import train_run
from vae_jax.runs.records import read_config, read_metrics
from vae_jax.runs.run import load_run
from vae_jax.runs.verify import check

SETTINGS = Settings(dataset="digits", hidden_sizes=(8,), epochs=2, batch_size=256, checkpoint_every_steps=2)


def train(path, digits, settings=SETTINGS, **arguments):
    return train_run(path, build_model(settings, digits.image_shape), settings, digits, **arguments)


@pytest.fixture(scope="module")
def straight(digits, tmp_path_factory):
    """A finished run that nothing went wrong with, to copy, and its last state."""
    path = tmp_path_factory.mktemp("straight") / "run"
    return path, train(path, digits).state


def in_pieces(path, digits, settings, questions):
    """Train, ended at each so-manieth question whether to stop, and gone on with until it is done."""
    for ends in itertools.count():
        asked = itertools.count(1)
        try:
            result = train(
                *(path, digits, settings),
                resume=ends > 0,
                stop=lambda asked=asked: signal.SIGTERM if next(asked) == questions else 0,
            )
        except Interrupted:
            continue
        return result, ends


def without_times(rows):
    return [
        {name: value for name, value in row.items() if name not in ("seconds", "images_per_second")} for row in rows
    ]


def assert_same(a, b):
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "changes",
    [
        {
            "ema_decay": 0.9,
            "kl_warmup_steps": 10,
            "binarize": "dynamic",
            "augment": ("flip",),
            "epochs": None,
            "steps": 14,
        },
        pytest.param({"model": "ae", "likelihood": "squared_error", "corruption": "masking"}, marks=pytest.mark.slow),
        pytest.param({"arch": "conv", "hidden_sizes": (2,), "dense_size": 2}, marks=pytest.mark.slow),
        pytest.param({"model": "ae", "arch": "conv", "hidden_sizes": (2,), "dense_size": 0}, marks=pytest.mark.slow),
        pytest.param(
            {"patience": 1, "epochs": 5, "learning_rate": 1e-9, "warmup_fraction": 0.0, "parallel": "pmap"},
            marks=pytest.mark.slow,
        ),
        pytest.param({"parallel": "pmap", "ema_decay": 0.9, "binarize": "dynamic"}, marks=pytest.mark.slow),
        pytest.param({"device_data": "never", "ema_decay": 0.9, "binarize": "dynamic"}, marks=pytest.mark.slow),
        pytest.param({"device_data": "never", "model": "ae", "corruption": "masking"}, marks=pytest.mark.slow),
    ],
    ids=[
        *(
            "vae with EMA and KL warm-up that ends in an epoch",
            "denoising ae",
            "conv vae",
            "conv ae",
            "early stopping under pmap",
        ),
        *("vae under pmap", "streamed vae", "streamed denoising ae"),
    ],
)
def test_a_run_in_pieces_equals_a_straight_one_bit_for_bit(changes, digits, tmp_path):
    settings = dataclasses.replace(SETTINGS, **changes)
    straight = train(tmp_path / "straight", digits, dataclasses.replace(settings, checkpoint_every_steps=0))
    pieces, ends = in_pieces(tmp_path / "pieces", digits, settings, 4)
    assert ends >= 2
    assert_same(straight.state, pieces.state)
    assert (
        without_times(straight.history)
        == without_times(pieces.history)
        == without_times(read_metrics(tmp_path / "pieces"))
    )
    best = [load_run(tmp_path / name) for name in ("straight", "pieces")]
    assert best[0].step == best[1].step
    assert_same(best[0].params, best[1].params)


def test_what_changes_on_resume_is_recorded(digits, tmp_path):
    with pytest.raises(Interrupted):
        train(tmp_path, digits, stop=lambda: signal.SIGINT)
    step = load_run(tmp_path, "latest").step
    train(tmp_path, digits, dataclasses.replace(SETTINGS, epochs=3, checkpoint_every_steps=0), resume=True)
    assert read_config(tmp_path)["resumed"] == [
        {"step": step, "changed": {"epochs": [2, 3], "checkpoint_every_steps": [2, 0]}}
    ]
    assert read_config(tmp_path)["settings"]["epochs"] == 3
    assert next(iter(check(tmp_path)))[2] == "vae, 2 latent dimensions, digits, resumed with changes 1 time"


def test_an_epoch_whose_caller_was_interrupted_comes_again_whatever_the_end_left_of_its_row(digits, tmp_path):
    def interrupt(_, row):
        if row["epoch"] == at:
            raise KeyboardInterrupt

    settings, seen = dataclasses.replace(SETTINGS, epochs=3, checkpoint_every_steps=0, device_data="never"), []
    for at in (1, 2):  # before and after the first checkpoint
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, digits, settings, resume=at > 1, on_epoch=interrupt)
        if at == 1:
            with pytest.raises(UsageError, match="no finished checkpoint"):
                load_run(tmp_path)
    with open(tmp_path / "metrics.jsonl", "a") as log:
        log.write('{"epoch": 3, "st')
    settings = dataclasses.replace(settings, device_data="always")  # where the images live may change
    train(tmp_path, digits, settings, resume=True, on_epoch=lambda _, row: seen.append(row["epoch"]))
    assert seen == [2, 3]
    assert [row["epoch"] for row in read_metrics(tmp_path)] == [1, 2, 3]


def test_leftovers_of_a_kill_are_cleared_and_a_run_that_had_not_begun_begins(digits, tmp_path):
    (tmp_path / ".lock").write_text("1")
    (tmp_path / ".config.json.1.tmp").write_text("{")
    straight = train(tmp_path, digits, resume=True)
    (tmp_path / ".metrics.jsonl.1.tmp").write_text("{")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / ".samples.png.1.tmp").write_text("")
    (tmp_path / "checkpoints" / "99.orbax-checkpoint-tmp").mkdir()
    (tmp_path / "environment.json").unlink()
    shutil.copytree(tmp_path / "checkpoints" / "12", tmp_path / "checkpoints" / ".removed.tmp" / "12")
    resumed = train(tmp_path, digits, dataclasses.replace(SETTINGS, epochs=3), resume=True)
    assert int(straight.state.step) < int(resumed.state.step)
    found = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.name.startswith(".") or "tmp" in p.name}
    assert found == set()
    assert (tmp_path / "environment.json").exists()


def test_rows_that_are_gone_are_not_trained_over(straight, digits, tmp_path):
    path = shutil.copytree(straight[0], tmp_path / "run")
    lines = (path / "metrics.jsonl").read_text().splitlines()
    (path / "metrics.jsonl").write_text("\n".join(["{", lines[1]]) + "\n")
    with pytest.raises(UsageError, match=r"metrics\.jsonl is damaged") as error:
        train(path, digits, dataclasses.replace(SETTINGS, epochs=3), resume=True)
    assert len(str(error.value).splitlines()) <= 2


def test_the_latest_two_and_the_best_checkpoint_survive_those_within_an_epoch(digits, tmp_path):
    settings = dataclasses.replace(SETTINGS, epochs=2, learning_rate=1e-3)
    asked = itertools.count(1)
    with pytest.raises(Interrupted):
        train(tmp_path, digits, settings, stop=lambda: signal.SIGINT if next(asked) == 6 else 0)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.best_step == 6
        assert checkpoints.steps[0] == 6
        assert len(checkpoints.steps) == 3


@pytest.mark.parametrize("limit", [200, 4000], ids=["a row", "a checkpoint"])
def test_a_full_disk_is_said_and_the_run_goes_on_once_there_is_room(limit, straight, digits, tmp_path):
    old = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(_, row):
        if row["epoch"] == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))

    try:
        with pytest.raises(RunError, match=r"could not be written|can't be written") as error:
            train(tmp_path / "run", digits, on_epoch=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert len(str(error.value).splitlines()) <= 2
    assert load_run(tmp_path / "run", "latest").step >= 4  # that of step 6 was being written
    assert_same(straight[1], train(tmp_path / "run", digits, resume=True).state)


def test_damaged_later_checkpoints_are_set_aside_only_when_training_goes_on(straight, digits, tmp_path):
    path = shutil.copytree(straight[0], tmp_path / "run")
    (path / "summary.json").unlink()  # as of a run that was killed before it was finished
    last = path / "checkpoints" / str(int(straight[1].step))
    for file in (last / "params").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    with pytest.warns(UserWarning, match="is damaged"):
        load_run(path, "latest")
    assert last.exists()
    with pytest.warns(UserWarning, match="is damaged"):
        resumed = train(path, digits, resume=True)
    assert_same(straight[1], resumed.state)
    assert (path / "set_aside" / last.name).is_dir()
    assert load_run(path, "latest").step == int(last.name)


@pytest.mark.parametrize(
    ("changes", "first", "words"),
    [
        ({"parallel": "pmap", "device_data": "never"}, {}, "--parallel pmap needs the images on the device"),
        ({}, {"--seed": "7"}, "--seed is 0 in this process, 7 in the first"),
        ({}, {"the data set's sha256": "other"}, "the data set's sha256 is .* other in the first"),
    ],
    ids=["pmap streamed", "other settings", "other data"],
)
def test_what_can_not_be_trained_is_refused_before_anything_is_written(
    changes, first, words, digits, tmp_path, monkeypatch
):
    monkeypatch.setattr(recording, "text_of_first", lambda text: json.dumps(json.loads(text) | first))
    with pytest.raises(UsageError, match=words):
        train(tmp_path / "run", digits, dataclasses.replace(SETTINGS, **changes))
    assert not (tmp_path / "run").exists()


def test_members_that_can_not_be_trained_together_are_refused_before_anything_is_written(digits, tmp_path):
    members = [SETTINGS, dataclasses.replace(SETTINGS, latent_dim=3)]
    model = build_model(SETTINGS, digits.image_shape)
    with pytest.raises(UsageError, match="--latent-dim must be the same"):
        together.train_runs([tmp_path / "a", tmp_path / "b"], model, members, digits)
    assert list(tmp_path.iterdir()) == []


def test_a_member_with_fewer_images_than_others_can_not_go_on_alone_and_says_why(digits, tmp_path):
    settings = dataclasses.replace(SETTINGS, epochs=1, batch_size=64, checkpoint_every_steps=0)
    members = [dataclasses.replace(settings, classes=classes) for classes in [(0,), (1, 2, 3)]]
    together.train_runs([tmp_path / "a", tmp_path / "b"], build_model(settings, digits.image_shape), members, digits)
    with pytest.raises(UsageError, match="trained together with runs of more images"):
        train(tmp_path / "a", digits, dataclasses.replace(members[0], epochs=2), resume=True)


def remove(path):
    path.rename(path.with_name("elsewhere"))  # what is being written there would keep rmtree from ending


def test_a_directory_that_is_deleted_underneath_is_said(digits, tmp_path):
    with pytest.raises(RunError, match="moved or deleted") as error:
        train(tmp_path / "run", digits, on_epoch=lambda *_: remove(tmp_path / "run"))
    assert len(str(error.value).splitlines()) <= 2


def test_a_file_in_place_of_the_checkpoints_is_said(digits, tmp_path):
    with pytest.raises(RunError, match="written"):
        train(
            tmp_path / "run",
            digits,
            on_epoch=lambda *_: (remove(tmp_path / "run"), (tmp_path / "run").write_text("")),
        )
    train(tmp_path / "other", digits, dataclasses.replace(SETTINGS, epochs=1))
    shutil.rmtree(tmp_path / "other" / "checkpoints")
    (tmp_path / "other" / "checkpoints").write_text("")
    with pytest.raises(RunError, match="can't be written"):
        train(tmp_path / "other", digits, dataclasses.replace(SETTINGS, epochs=2), resume=True)
