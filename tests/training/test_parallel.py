import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from unoptimised import XLA_FLAGS

from vae_jax.runs.run import load_run

ROOT = Path(__file__).parents[2]
UNOPTIMISED = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": XLA_FLAGS}


def on_virtual_devices(*arguments):
    command = [sys.executable, "-W", "error", str(ROOT / "tests" / "training" / "many_devices.py"), *arguments]
    done = subprocess.run(command, env=UNOPTIMISED, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def check(found):
    for name, (params, metrics) in found.items():
        if name.endswith("moved"):
            assert params > 1e-2, name
        else:
            assert params <= 1e-5, name
            assert metrics <= 1e-5, name


def test_20_steps_on_many_devices_equal_those_on_one(tmp_path, digits):
    found = on_virtual_devices("few", str(tmp_path / "run"))
    fit, together = found.pop("fit"), found.pop("together")
    assert len(found) == 4
    check(found)
    # What the callers of fit see lies on one device, a state goes on under another layout, and images are streamed.
    assert fit["devices"] == [1]
    assert max(fit["differences"]) <= 1e-5
    assert fit["layouts"] == {"auto": [0, False], "jit": [8, False], "pmap": [8, True]}
    # Whole models of their own classes are spread over the devices, also where these don't divide their number.
    assert len(together) == 9
    assert max(together) <= 1e-5
    # A run that was trained on the fourth of them is restored on the one of this process.
    run = load_run(tmp_path / "run")
    assert {leaf.device for leaf in jax.tree.leaves(run.params)} == {jax.devices()[0]}
    assert run.evaluate(digits.test.images)["loss"] == pytest.approx(run.summary["test"]["loss"], abs=1e-4)


@pytest.mark.slow
def test_every_layout_of_1_2_and_8_devices_gives_the_same_parameters():
    found = on_virtual_devices("all")
    assert max(found.pop("together")) <= 1e-5
    assert len(found) == 8 * 7
    check(found)
