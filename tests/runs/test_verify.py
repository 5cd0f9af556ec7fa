"""`python -m experiments.verify`: each kind of damage is named, and nothing is changed."""

import json
import shutil

import pytest
from PIL import Image

from experiments import verify
from vae_jax.cli.command import main
from vae_jax.config import Settings
from vae_jax.models.autoencoders import build_model
from vae_jax.runs.recording import train_run
from vae_jax.runs.records import write_json


@pytest.fixture(scope="module")
def run(tmp_path_factory, digits):
    settings = Settings(dataset="digits", hidden_sizes=(8,), epochs=2, batch_size=256)
    path = tmp_path_factory.mktemp("verify") / "run"
    rows = train_run(path, build_model(settings, digits.image_shape), settings, digits).history
    test = {"loss": 1.0, "reconstruction": 1.0, "kl": 0.0}
    write_json(path / "summary.json", {"test": test, "epochs": 2, "steps": rows[-1]["step"]})
    (path / "figures").mkdir()
    Image.new("L", (30, 20), 99).save(path / "figures" / "samples.png")
    return path


def check(path):
    return {name: (good, said) for name, good, said in verify.check(path)}


def test_all_of_a_good_run_is_good(run, capsys):
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    main(verify.Config, verify.run, [str(run)])
    lines = capsys.readouterr().out.splitlines()
    names = "config.json environment.json metrics.jsonl summary.json checkpoints/6 checkpoints/12 figures/samples.png"
    assert all(line.startswith("ok") for line in lines)
    assert all(any(name in line for line in lines) for name in names.split())
    assert before == {p: p.stat().st_mtime_ns for p in run.rglob("*")}


def largest(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda file: file.stat().st_size)


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def change_row(path, change):
    lines = (path / "metrics.jsonl").read_text().splitlines()
    row = json.loads(lines[1])
    change(row)
    (path / "metrics.jsonl").write_text(f"{lines[0]}\n{json.dumps(row)}\n")


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
        (lambda p: flip(largest(p / "checkpoints/12/params")), "checkpoints/12", "damaged"),
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


def test_other_data_is_named(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["dataset"]["sha256"] = "0" * 64
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    assert check(tmp_path / "run")["data set"][0] is False


def test_data_that_can_not_be_read_any_more_is_named(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "images.npz").write_bytes(b"PK")
    config = json.loads((run / "config.json").read_text())
    config["settings"]["dataset"] = str(tmp_path / "images.npz")
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    good, said = check(tmp_path / "run")["data set"]
    assert not good
    assert "can't be read" in said
    (tmp_path / "images.npz").unlink()
    assert "not found" in check(tmp_path / "run")["data set"][1]


def test_no_run_directory_is_a_usage_error(tmp_path):
    with pytest.raises(SystemExit) as stop:
        main(verify.Config, verify.run, [str(tmp_path)])
    assert stop.value.code == 2
