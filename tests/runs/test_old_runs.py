"""A small run of every schema that was ever on main: it loads to the same numbers, for ever."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from experiments import mnist, plot_latent
from vae_jax.cli.command import parse
from vae_jax.errors import UsageError
from vae_jax.runs.run import load_run
from vae_jax.runs.verify import check

RUNS = {path.name: path for path in sorted(Path(__file__).parent.glob("schema*"))}
GONE_ON_WITH = ["schema1_ae", "schema2_conv", "schema3_vae", "schema4_vae"]


@pytest.fixture
def old(request, tmp_path):
    return shutil.copytree(RUNS[request.param], tmp_path / request.param)


@pytest.mark.parametrize("old", RUNS, indirect=True)
def test_an_old_run_loads_to_the_same_numbers_and_is_verified(old, digits):
    run = load_run(old)
    wanted = np.load(old / "expected_means.npy")
    np.testing.assert_allclose(run.encode(digits.test.images[: len(wanted)]).means, wanted, atol=1e-5)
    again = run.evaluate(digits.test.images)["loss"]
    assert again == pytest.approx(run.summary["test"]["loss"], abs=1e-3)
    assert [name for name, good, _ in check(old) if not good] == []


@pytest.mark.parametrize("old", GONE_ON_WITH, indirect=True)
def test_an_old_run_is_plotted_and_gone_on_with(old, tmp_path, capsys):
    assert all(path.exists() for path in plot_latent.run(plot_latent.Config(old, output=tmp_path / "out", grid_size=3)))
    epochs = len(load_run(old).metrics) + 1
    mnist.run(parse(mnist.Config, ["--run-dir", str(old), "--resume", "--epochs", str(epochs), "--grid-size", "3"]))
    assert [row["epoch"] for row in load_run(old).metrics] == list(range(1, epochs + 1))


def changed(path, **settings):
    config = json.loads((path / "config.json").read_text())
    for name, value in settings.items():
        if value is None:
            config["settings"].pop(name, None)
        else:
            config["settings"][name] = value
    (path / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("old", ["schema4_vae"], indirect=True)
def test_a_setting_that_a_run_does_not_have_is_its_default_and_one_that_is_not_known_is_refused(old):
    before = load_run(old)
    changed(old, ema_decay=None, free_bits=None, fourier_features=None)
    assert load_run(old).config == before.config
    changed(old, temperature=2.0)
    with pytest.raises(UsageError, match=r"'temperature'.*\n.*newer"):
        load_run(old)
