"""What TensorBoard is shown of a run: the numbers of its records, and its figures."""

import contextlib
import re
import struct
import sys
import types
from pathlib import Path

import pytest

import vae_jax
from vae_jax.__main__ import tool
from vae_jax.cli.track import TensorBoard

SMALL = ["--epochs", "2", "--hidden-sizes", "4", "--batch-size", "512", "--no-compilation-cache", "--grid-size", "3"]


def events(folder):
    """All values that were written, (tag, step) to number or picture, in the order of the files."""
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    for file in sorted(folder.iterdir()):
        content, place = file.read_bytes(), 0
        while place < len(content):
            (length,) = struct.unpack_from("<Q", content, place)
            event = Event.FromString(content[place + 12 : place + 12 + length])
            place += length + 16  # two checksums
            for value in event.summary.value:
                picture = value.image.encoded_image_string
                found[value.tag, event.step] = picture or value.simple_value
    return found


@pytest.fixture(autouse=True)
def package(request):
    if "missing" not in request.node.name and "guide" not in request.node.name:
        pytest.importorskip("tensorboardX", reason="tensorboardX is not installed: pip install 'vae_jax[track]'")


def test_numbers_and_figures_are_those_of_the_run(tmp_path, capsys):
    path = tmp_path / "run"
    tool(["train", "digits", *SMALL, "--run-dir", str(path), "--track", "tensorboard"])
    run, found = vae_jax.load_run(path), events(path / "tensorboard")
    for row in run.metrics:
        for name in ("train/loss", "train/kl", "validation/reconstruction", "validation/loss"):
            part, _, term = name.partition("/")
            assert found[name, row["step"]] == pytest.approx(row[part][term], rel=1e-6)
        assert found["latent_grid", row["step"]].startswith(b"\x89PNG")
    last = run.metrics[-1]["step"]
    assert found["test/loss", last] == pytest.approx(run.summary["test"]["loss"], rel=1e-6)
    assert {name for name, step in found if step == last} >= {"samples", "latent_means", "reconstructions"}
    tool(["verify", str(path)])
    tool(["train", "--resume", "--run-dir", str(path), "--epochs", "3", "--track", "tensorboard"])
    again = events(path / "tensorboard")
    assert {step for name, step in again if name == "train/loss"} == {
        row["step"] for row in vae_jax.load_run(path).metrics
    }


def test_what_is_done_again_takes_the_place_of_what_was_written(tmp_path):
    from tensorboardX.proto.event_pb2 import SessionLog

    for loss in (1.0, 2.0):
        tracker = TensorBoard(tmp_path)
        tracker.epoch({"epoch": 2, "step": 7, "train": {"loss": loss}}, None)
        tracker.close()
    files = [file.read_bytes() for file in sorted((tmp_path / "tensorboard").iterdir())]
    assert len(files) == 2
    assert all(SessionLog(status=SessionLog.START).SerializeToString() in file for file in files)


def test_a_missing_package_is_named_before_anything_is_written(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(SystemExit) as stop:
        tool(["train", "digits", *SMALL, "--run-dir", str(tmp_path / "run"), "--track", "tensorboard"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("--track tensorboard needs tensorboardX, which is not installed.")
    assert "pip install 'vae_jax[track]'" in error
    assert list(tmp_path.iterdir()) == []


GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "track.md"


@pytest.mark.filterwarnings("ignore")
def test_the_example_of_the_guide_for_mlflow_logs_each_epoch_to_its_store(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed: pip install mlflow")
    first, of_mlflow, _ = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    store = of_mlflow.replace("sqlite:///mlflow.db", f"file://{tmp_path}/store")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    small = first.replace("epochs=10", "epochs=2, hidden_sizes=(4,), batch_size=512")
    exec(compile(small + store, str(GUIDE), "exec"), {})
    (logged,) = mlflow.search_runs(experiment_names=["digits"], output_format="list")
    rows = vae_jax.load_run("runs/mlflow").metrics
    for name in ("train/loss", "validation/kl"):
        part, _, term = name.partition("/")
        history = mlflow.MlflowClient().get_metric_history(logged.info.run_id, name)
        assert [(each.step, each.value) for each in history] == [(row["step"], row[part][term]) for row in rows]
    assert logged.data.params["latent_dim"] == "2"
    assert "test/loss" in logged.data.metrics


@pytest.mark.slow
def test_the_example_of_the_guide_for_weights_and_biases_logs_what_the_rows_say(tmp_path, monkeypatch):
    first, _, of_wandb = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    logged, tracked = [], types.SimpleNamespace(summary={}, saved=[])
    tracked.log = lambda values, step: logged.append((step, values))
    tracked.save = tracked.saved.append
    fake = types.ModuleType("wandb")
    fake.init = lambda **given: contextlib.nullcontext(tracked)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.chdir(tmp_path)
    small = first.replace("epochs=10", "epochs=2, hidden_sizes=(4,), batch_size=512")
    exec(compile(small + of_wandb, str(GUIDE), "exec"), {})
    rows = vae_jax.load_run("runs/wandb").metrics
    assert [(step, values["train/loss"]) for step, values in logged] == [(r["step"], r["train"]["loss"]) for r in rows]
    assert tracked.summary["loss"] == vae_jax.load_run("runs/wandb").summary["test"]["loss"]
