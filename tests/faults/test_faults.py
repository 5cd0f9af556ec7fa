"""Kills, damage, signals and concurrent starts: a short version by default, the whole harness by make test-faults."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import damage
import driver
import pytest

from vae_jax.config import Settings
from vae_jax.models.autoencoders import build_model
from vae_jax.runs.recording import train_run

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def run(tmp_path_factory, digits):
    """A run of three checkpoints."""
    settings = Settings(dataset="digits", hidden_sizes=(16,), epochs=3, batch_size=256, ema_decay=0.9)
    path = tmp_path_factory.mktemp("faults") / "run"
    train_run(path, build_model(settings, digits.image_shape), settings, digits)
    return path


def report(capsys, tallies):
    with capsys.disabled():
        print("", driver.HEADER, *(tally.row(name) for name, tally in tallies.items()), sep="\n")
    assert [line for tally in tallies.values() for line in tally.lost] == []
    assert all(tally.tried == tally.survived + tally.detected for tally in tallies.values())
    assert sum(tally.detected for tally in tallies.values()) > 0


def test_some_damage_is_noticed(run, digits, tmp_path, capsys):
    report(capsys, damage.campaign(run, tmp_path, len(digits.train), 12, 0, stride=7))


@pytest.mark.slow
def test_damage_to_every_file_is_noticed(run, digits, tmp_path, capsys):
    tallies = damage.campaign(run, tmp_path, len(digits.train), 240, 1)
    report(capsys, {**tallies, "item of another step": damage.swapped_folders(run, tmp_path, len(digits.train))})


@pytest.mark.slow
@pytest.mark.parametrize(("by", "number"), [("SIGKILL", 15), ("SIGTERM", 6)])
def test_runs_that_are_killed_reach_the_same_end(by, number, tmp_path):
    command = [sys.executable, str(HERE / "kills.py"), "--kills", str(number), "--signal", by]
    result = subprocess.run([*command, "--folder", str(tmp_path)], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
def test_the_second_of_two_starts_is_refused(tmp_path):
    flags = ["--epochs", "200"]
    first = driver.Running(tmp_path / "run", flags, whole=True)
    while not (tmp_path / "run" / "config.json").exists():
        assert first.wait(0.1) is None, first.output
    second = subprocess.run(
        [sys.executable, "-m", "experiments.mnist", *driver.command_line(tmp_path / "run", flags)],
        cwd=driver.ROOT,
        capture_output=True,
        text=True,
    )
    assert (second.returncode, "another process" in second.stderr) == (1, True), second.stderr
    assert len(second.stderr.strip().splitlines()) == 2
    first.send(signal.SIGTERM)
    assert first.wait(60) == 128 + signal.SIGTERM
    assert "--resume --run-dir" in first.output


@contextlib.contextmanager
def tmpfs(folder, size):
    """A file system of so many bytes."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")
def test_a_full_disk_and_a_read_only_one_end_in_two_lines_and_keep_what_there_was(tmp_path):
    flags = ["--epochs", "60", "--hidden-sizes", "64"]
    (tmp_path / "disk").mkdir()
    with tmpfs(tmp_path / "disk", "600k"):
        full = driver.Running(tmp_path / "disk" / "run", flags, whole=True)
        assert full.wait(200) == 1, full.output
        assert "Traceback" not in full.output
        assert "No space left" in full.output
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "disk")], check=True)
        command = [sys.executable, "-m", "experiments.mnist", *driver.command_line(tmp_path / "disk" / "run", flags)]
        refused = subprocess.run(command, cwd=driver.ROOT, capture_output=True, text=True)
        assert (refused.returncode, len(refused.stderr.strip().splitlines())) == (1, 2), refused.stderr
        assert "Read-only" in refused.stderr
