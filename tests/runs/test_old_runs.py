"""A small run of every schema that was ever on main: it loads to the same numbers, for ever."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from experiments import mnist, plot_latent
from vae_jax.cli import defaults, session
from vae_jax.cli.command import parse
from vae_jax.config import Settings
from vae_jax.errors import UsageError
from vae_jax.runs import records
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


@pytest.mark.parametrize(
    "old",
    [
        pytest.param(name, marks=() if name in ("schema1_ae", "schema4_vae") else pytest.mark.slow)
        for name in GONE_ON_WITH
    ],
    indirect=True,
)
def test_an_old_run_is_plotted_and_gone_on_with(old, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(session, "draw_run", lambda *_: None)  # its figures are those of any run
    assert all(path.exists() for path in plot_latent.run(plot_latent.Config(old, output=tmp_path / "out", grid_size=3)))
    epochs = len(load_run(old).metrics) + 1
    mnist.run(parse(mnist.Config, ["--run-dir", str(old), "--resume", "--epochs", str(epochs), "--grid-size", "3"]))
    assert [row["epoch"] for row in load_run(old).metrics] == list(range(1, epochs + 1))


def changed(path, part="settings", **values):
    config = json.loads((path / "config.json").read_text())
    held = config[part] if part else config
    held |= values
    for name in [name for name, value in values.items() if value is None]:
        del held[name]
    (path / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("old", ["schema4_vae"], indirect=True)
def test_a_setting_that_a_run_does_not_have_is_its_default_and_what_is_not_known_is_refused(old):
    before = load_run(old)
    changed(old, ema_decay=None, free_bits=None, fourier_features=None)
    assert load_run(old).config == before.config
    for part, where in (("", ""), ("dataset", " in its dataset"), ("settings", " in its settings")):
        changed(old, part, temperature=2.0)
        with pytest.raises(UsageError, match=rf"holds 'temperature'{where}, which .* not know\.\n.*newer"):
            load_run(old)
        changed(old, part, temperature=None)
    load_run(old)


@pytest.mark.parametrize("old", ["schema1_vae"], indirect=True)
def test_what_is_decided_for_new_runs_changes_no_old_one(old, monkeypatch):
    monkeypatch.setattr(defaults, "MANY_IMAGES", 100)
    changed(old, epochs=None)
    found = session.load(parse(mnist.Config, ["--run-dir", str(old), "--resume"]))[1].settings
    assert (found.fourier_features, found.epochs) == (0, None)
    found = session.load(parse(mnist.Config, ["--run-dir", str(old / "new"), "--dataset", "digits"]))[1].settings
    assert (found.fourier_features, found.epochs) == (64, 20)


@pytest.mark.parametrize("old", ["schema4_vae"], indirect=True)
@pytest.mark.parametrize(("saved", "given"), [("epochs", "steps"), ("steps", "epochs")])
def test_of_what_says_when_a_run_ends_the_one_that_is_given_counts(saved, given, old):
    changed(old, **{given: None, saved: 5})
    found = parse(mnist.Config, ["--run-dir", str(old), "--resume", f"--{given}", "9"])
    assert (getattr(found, saved), getattr(found, given)) == (None, 9)


@pytest.mark.parametrize("schema", [4, 5])
@pytest.mark.parametrize(
    ("settings", "dropped"),
    [
        ({"beta": 0.0, "free_bits": 0.1, "kl_warmup_steps": 3}, ("free_bits", "kl_warmup_steps")),
        ({"corruption": "gaussian", "corruption_level": 0.0}, ("corruption", "corruption_level")),
        ({"sigma": 3.0}, ("sigma",)),
    ],
    ids=str,
)
@pytest.mark.parametrize("old", ["schema4_vae"], indirect=True)
def test_settings_without_effect_that_earlier_versions_took_are_their_defaults(old, schema, settings, dropped):
    changed(old, **settings, **dict.fromkeys(records._OF_THE_COMMAND if schema == 5 else ()))
    changed(old, "", schema=schema)
    found = records.read_settings(old, Settings)
    for name in settings:
        assert getattr(found, name) == (getattr(Settings, name) if name in dropped else settings[name])
