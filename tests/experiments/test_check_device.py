"""`make check-device`: what is kept of steps that end, fail, take too long or find no time."""

import json
from pathlib import Path

import pytest

from experiments import check_device
from experiments.benchmark import Config as BenchmarkConfig
from experiments.check_device import Config, Step, run, steps
from experiments.mnist import Config as MnistConfig
from vae_jax.cli.command import parse
from vae_jax.errors import RunError


@pytest.fixture
def looked(monkeypatch):
    monkeypatch.setattr(check_device, "look", lambda: {"device": "a device", "backend": "cpu", "jax": "0"})


def test_each_outcome_is_kept_and_a_failure_is_said_at_the_end(tmp_path, looked, monkeypatch, capsys):
    def told(printed):
        return {"result": printed.strip()}

    faked = [
        Step("fine", ["-c", "print('3 passed')"], 60, told),
        Step("too long", ["-c", "import time; print('begun', flush=True); time.sleep(60)"], 2, told),
        Step("wrong", ["-c", "import sys; print('1 failed'); sys.exit(1)"], 60, told),
        Step("without its file", ["-c", ""], 60, lambda _: json.loads((tmp_path / "none.json").read_text())),
    ]
    monkeypatch.setattr(check_device, "steps", lambda folder, small: faked)
    with pytest.raises(RunError, match=r"Failed on .*: wrong\. What they printed is in "):
        run(Config(tmp_path / "out"))
    found = json.loads((tmp_path / "out" / "device.json").read_text())
    outcomes = {step["name"]: (step["outcome"], step.get("result")) for step in found["steps"]}
    assert outcomes == {
        "fine": ("done", "3 passed"),
        "too long": ("stopped", "begun"),
        "wrong": ("failed", "1 failed"),
        "without its file": ("done", None),
    }
    table = (tmp_path / "out" / "device.md").read_text()
    assert all(name in table for name in outcomes)
    assert "1 failed" in (tmp_path / "out" / "3-wrong.log").read_text()
    assert "fine: done, 3 passed" in capsys.readouterr().out


def test_what_has_no_time_left_is_not_begun(tmp_path, looked, monkeypatch):
    never = Step("late", ["-c", f"open({str(tmp_path / 'begun')!r}, 'w')"], 60, lambda _: {})
    monkeypatch.setattr(check_device, "steps", lambda folder, small: [never])
    assert run(Config(tmp_path / "out", minutes=0.01))["steps"][0]["outcome"] == "no time left"
    assert not (tmp_path / "begun").exists()


def test_without_a_device_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(check_device, "_LOOK", "raise SystemExit('RuntimeError: no device was found')")
    with pytest.raises(RunError, match="JAX finds no device: RuntimeError: no device was found"):
        run(Config(tmp_path / "out"))


@pytest.mark.parametrize("small", [True, False])
def test_the_steps_are_commands_that_exist(tmp_path, small):
    kinds = {"experiments.mnist": MnistConfig, "experiments.benchmark": BenchmarkConfig}
    for step in steps(tmp_path, small):
        module, flags = step.arguments[1], step.arguments[2:]
        if module == "pytest":
            files = [flag for flag in flags if flag.startswith("tests/")]
            assert files
            assert all((Path(__file__).parents[2] / file).exists() for file in files)
        else:
            parse(kinds[module], flags)
