import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from unoptimised import XLA_FLAGS

from vae_jax.config import Settings
from vae_jax.errors import RunError, UsageError
from vae_jax.models.autoencoders import build_model
from vae_jax.runs.recording import train_run
from vae_jax.runs.records import read_metrics
from vae_jax.runs.run import load_run
from vae_jax.training.processes import connect, ending_together, in_cluster, is_first

ROOT = Path(__file__).parents[2]
FLAGS = ["--hidden-sizes=16", "--batch-size=301", "--dataset=digits", "--free-bits=0.1", "--no-compilation-cache"]
FLAGS += ["--test-samples=1", "--grid-size=2"]
SETTINGS = Settings(hidden_sizes=(16,), batch_size=301, dataset="digits", free_bits=0.1, epochs=2)


@pytest.fixture
def start():
    """A function that starts a process; none is left behind."""
    started = []

    def one(run_dir, *flags, **environment):
        command = [sys.executable, "-m", "experiments.mnist", "--run-dir", str(run_dir), *FLAGS, *flags]
        fast = {"PYTHONPATH": str(ROOT), "XLA_FLAGS": XLA_FLAGS}
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, env={**os.environ, **fast, **environment}, **streams))
        return started[-1]

    yield one
    for process in started:
        process.kill()
        process.communicate()


def free_port(first, last):
    for port in range(first, last):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


def largest_difference(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.max(np.abs(np.asarray(x) - np.asarray(y)))) for x, y in pairs)


def test_two_processes_train_the_same_parameters_as_one_which_restores_them(start, tmp_path, digits):
    port = free_port(20000 + os.getpid() % 20000, 60000)
    address = ["--coordinator", f"127.0.0.1:{port}", "--num-processes", "2", "--process-id"]
    streamed = ["--device-data", "never"]
    processes = [start(tmp_path / "two", "--epochs", "2", *streamed, *address, str(i)) for i in range(2)]
    alone = train_run(tmp_path / "one", build_model(SETTINGS, digits.image_shape), SETTINGS, digits)
    for process in processes:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    run = load_run(tmp_path / "two", "latest")
    assert run.step == int(alone.state.step)
    assert largest_difference(run.params, alone.params) <= 1e-5
    assert [row["epoch"] for row in run.metrics] == [1, 2]  # written once
    for row, expected in zip(run.metrics, alone.history, strict=True):
        assert row["train"] == pytest.approx(expected["train"], rel=1e-5)
        assert row["validation"] == pytest.approx(expected["validation"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_process_that_dies_ends_the_other_and_the_run_goes_on(lost, start, tmp_path):
    run_dir, port = tmp_path / "run", free_port(61440 + os.getpid() % 2000, 65536)
    slurm = {"SLURM_JOB_ID": str(port - 61440), "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_NTASKS": "2"}
    processes = [
        start(run_dir, "--epochs", "100000", SLURM_PROCID=str(i), SLURM_LOCALID=str(i), **slurm) for i in range(2)
    ]
    deadline = time.monotonic() + 240
    while len(read_metrics(run_dir)) < 3:
        assert all(process.poll() is None for process in processes)
        assert time.monotonic() < deadline
        time.sleep(0.1)
    processes[lost].kill()
    _, errors = processes[1 - lost].communicate(timeout=60)
    assert processes[1 - lost].returncode == 1
    assert "Another of the processes ended" in errors
    assert "Traceback" not in errors
    number = len(read_metrics(run_dir)) + 2
    resumed = start(run_dir, "--resume", "--epochs", str(number))
    _, errors = resumed.communicate(timeout=240)
    assert resumed.returncode == 0, errors
    assert [row["epoch"] for row in read_metrics(run_dir)] == list(range(1, number + 1))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("host:1", 2, None), "--process-id must be given"),
        ((None, 2, 0), "--coordinator must be given"),
        (("host", 2, 0), "HOST:PORT"),
        ((":1", 2, 0), "HOST:PORT"),
        (("host:99999", 2, 0), "HOST:PORT"),
        (("host:1", 2, 2), "--process-id must be"),
    ],
)
def test_flags_that_do_not_fit_are_refused(arguments, words):
    with pytest.raises(UsageError, match=words):
        connect(*arguments)


def test_a_single_process_is_alone(monkeypatch):
    assert not connect(None, None, None)
    assert is_first()
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "a,b")
    assert not connect(None, 1, None)


SLURM = {"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "a", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({**SLURM, "SLURM_NTASKS": "4"}, True),
        ({**SLURM, "SLURM_NTASKS": "1"}, False),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4"}, False),  # a shell within an allocation
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_MCA_orte_hnp_uri": "1.0;tcp://a:1"}, True),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, False),  # a pod of its own
    ],
)
def test_a_cluster_is_known_by_its_environment(environment, expected):
    assert in_cluster(environment) == expected


def caused_by(cause):
    error = RunError("The checkpoint was not written")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("UNKNOWN: Gloo all-reduce failed: Connection reset by peer"), (RunError, "--resume")),
        (caused_by(ValueError("Gloo all-reduce failed")), (RunError, "--resume")),
        (caused_by(OSError("Resource temporarily unavailable")), (RunError, "not written")),
        (RunError("mnist could not be downloaded: Connection reset by peer"), (RunError, "downloaded")),
        (ValueError("shapes do not fit"), (ValueError, "shapes")),
        (UsageError("the device is unavailable"), (UsageError, "unavailable")),
    ],
)
def test_errors_that_tell_of_a_lost_process_are_told_from_others(error, expected, monkeypatch):
    monkeypatch.setattr("vae_jax.training.processes.is_connected", lambda: True)
    with pytest.raises(expected[0], match=expected[1]), ending_together():
        raise error


def test_a_single_process_keeps_its_errors():
    with pytest.raises(RunError, match="download"), ending_together():
        raise RunError("download failed: connection reset by peer")
