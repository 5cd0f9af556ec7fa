"""A small run of every schema that was ever on main: it loads to the same numbers, for ever."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from experiments import mnist, plot_latent, verify
from vae_jax.cli.command import parse
from vae_jax.errors import UsageError
from vae_jax.models.evaluation import encode_images, evaluate
from vae_jax.runs.run import load_run

RUNS = sorted(Path(__file__).parent.glob("schema4*"))


@pytest.fixture(params=RUNS, ids=lambda path: path.name)
def old(request, tmp_path):
    return shutil.copytree(request.param, tmp_path / request.param.name)


def test_an_old_run_loads_to_the_same_numbers(old, digits):
    run = load_run(old)
    wanted = np.load(old / "expected_means.npy")
    images = digits.test.images[: len(wanted)]
    means, _ = encode_images(run.model, run.params, images, run.evaluation_key, binarize=run.config.binarize)
    np.testing.assert_allclose(means, wanted, atol=1e-5)
    test = evaluate(run.model, run.params, digits.test.images, run.evaluation_key, binarize=run.config.binarize)
    assert test["loss"] == pytest.approx(run.summary["test"]["loss"], abs=1e-3)


def test_an_old_run_is_verified_plotted_and_gone_on_with(old, tmp_path, capsys):
    verify.run(verify.Config(old))
    assert all(path.exists() for path in plot_latent.run(plot_latent.Config(old, output=tmp_path / "out", grid_size=3)))
    epochs = len(load_run(old).metrics) + 1
    mnist.run(parse(mnist.Config, ["--run-dir", str(old), "--resume", "--epochs", str(epochs), "--grid-size", "3"]))
    assert [row["epoch"] for row in load_run(old).metrics] == list(range(1, epochs + 1))


def changed(path, **settings):
    config = json.loads((path / "config.json").read_text())
    for name, value in settings.items():
        if value is None:
            del config["settings"][name]
        else:
            config["settings"][name] = value
    (path / "config.json").write_text(json.dumps(config))


def test_a_setting_that_a_run_does_not_have_is_its_default(old, digits):
    before = load_run(old)
    defaults = [name for name in ("ema_decay", "free_bits", "fourier_features") if name in before.config.__dict__]
    changed(old, **dict.fromkeys(defaults))
    assert load_run(old).config == before.config


def test_a_setting_that_is_not_known_is_refused_by_name(old):
    changed(old, temperature=2.0)
    with pytest.raises(UsageError, match=r"'temperature'.*\n.*newer"):
        load_run(old)
