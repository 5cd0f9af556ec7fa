"""Runs with other priors than N(0, I): trained with the rest, or fitted afterwards."""

import dataclasses
import json
import os
import signal

import jax
import numpy as np
import pytest
from damaged import flip

import vae_jax
from vae_jax.__main__ import tool
from vae_jax.config import Settings
from vae_jax.errors import Interrupted, UsageError
from vae_jax.models.autoencoders import build_model
from vae_jax.models.conditions import conditions_of
from vae_jax.models.evaluation import evaluate
from vae_jax.models.mixtures import OfClass
from vae_jax.models.posteriors import Householder
from vae_jax.registry import PRIORS
from vae_jax.runs.recording import train_run
from vae_jax.runs.records import SCHEMA_VERSION
from vae_jax.runs.refit import check_refittable
from vae_jax.runs.run import load_run
from vae_jax.runs.verify import check
from vae_jax.training.fit import fit

SETTINGS = Settings(dataset="digits", hidden_sizes=(16,), epochs=2, batch_size=256, ema_decay=0.5)
MORE = {
    "mixture": {"prior_components": 5},
    "vamp": {"prior_components": 7},
    "flow": {"prior_layers": 2},
    "class": {"condition": "labels"},
}


def train(path, digits, settings, **options):
    model = build_model(settings, digits.image_shape, conditions_of(settings, digits))
    return train_run(path, model, settings, digits, **options)


def test_every_prior_of_the_library_is_tried_here():
    assert set(MORE) == set(PRIORS) - {"standard"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "vamp" else pytest.mark.slow) for name in MORE]
)
def test_a_run_with_a_learned_prior_goes_on_as_if_never_stopped_and_comes_back_to_the_same_numbers(
    name, tmp_path, digits
):
    settings = dataclasses.replace(SETTINGS, prior=name, **MORE[name])
    straight = train(tmp_path / "straight", digits, settings)
    with pytest.raises(Interrupted):
        train(tmp_path / "twice", digits, settings, stop=lambda: signal.SIGINT)
    resumed = train(tmp_path / "twice", digits, settings, resume=True)
    for a, b in zip(jax.tree.leaves(straight.state), jax.tree.leaves(resumed.state), strict=True):
        np.testing.assert_array_equal(a, b)
    path = tmp_path / "straight"
    run, test = load_run(path), digits.test
    again = run.evaluate(test.images, test.labels)
    for term in ("loss", "reconstruction", "kl"):
        assert again[term] == pytest.approx(run.summary["test"][term], abs=1e-4)
    assert "diagnosis" not in run.summary
    estimated = name != "class"
    assert ("kl_samples" in run.summary["test"]) == ("kl_samples" in run.metrics[0]["train"]) == estimated
    begun = build_model(settings, digits.image_shape, conditions_of(settings, digits)).init(jax.random.key(9))
    assert jax.tree.map(np.shape, begun) == jax.tree.map(np.shape, run.params)
    moved = jax.tree.map(lambda a, b: not np.allclose(a, b), straight.state.params["prior"], begun["prior"])
    assert all(jax.tree.leaves(moved))
    z = run.draw(8, seed=3)
    labels = np.resize(run.model.classes, 8) if run.model.classes else None
    np.testing.assert_allclose(run.decode(z, labels), run.generate(8, seed=3), atol=1e-6)
    assert all(good for _, good, _ in check(path))


def test_rows_say_from_how_many_latents_the_kl_is_estimated(digits):
    prior = {"prior": "mixture", "prior_components": 2}
    objective = {"objective": "iwae", "importance_samples": 3, "importance_groups": 2}
    settings = dataclasses.replace(SETTINGS, epochs=1, **prior, **objective)
    model = build_model(settings, digits.image_shape)
    (row,) = fit(model, digits.train, digits.validation, settings).history
    assert (row["train"]["kl_samples"], row["validation"]["kl_samples"]) == (6, 3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, digits):
    """A VAE and an AE of two dimensions."""
    folder = tmp_path_factory.mktemp("fitted")
    for kind in ("vae", "ae"):
        train(folder / kind, digits, dataclasses.replace(SETTINGS, model=kind, epochs=6, latent_dim=2))
    return folder


KINDS = {"gaussian": [], "mixture": ["--prior-components", "6"], "flow": ["--prior-layers", "3"]}


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("vae", "gaussian"),
        pytest.param("vae", "mixture", marks=pytest.mark.slow),
        pytest.param("ae", "flow", marks=pytest.mark.slow),
    ],
)
def test_a_prior_is_fitted_to_a_run_and_then_has_every_use_that_another_has(
    model, kind, trained, tmp_path, digits, capsys
):
    source, output = trained / model, tmp_path / "fitted"
    files = {file: file.read_bytes() for file in source.rglob("*") if file.is_file()}
    steps = [] if kind == "gaussian" else ["--steps", "200"]
    tool(["fit-prior", str(source), "--prior", kind, *KINDS[kind], *steps, "--output", str(output)])
    assert files == {file: file.read_bytes() for file in source.rglob("*") if file.is_file()}
    before, after = load_run(source), load_run(output)
    said = capsys.readouterr().out
    assert str(output) in said
    assert {name: np.shape(leaf) for name, leaf in jax.tree_util.tree_leaves_with_path(before.params)}.items() <= {
        name: np.shape(leaf) for name, leaf in jax.tree_util.tree_leaves_with_path(after.params)
    }.items()
    test, others = digits.test, ("loss", "reconstruction", "kl")
    again = after.evaluate(test.images)
    assert {name: again[name] for name in others} == pytest.approx(
        {name: after.summary["test"][name] for name in others}, abs=1e-4
    )
    assert again["reconstruction"] == before.evaluate(test.images)["reconstruction"]
    if model == "vae":
        assert after.summary["test"]["kl"] < before.summary["test"]["kl"] - 0.05
        assert f"KL {after.summary['test']['kl']:.2f} ({before.summary['test']['kl']:.2f} before)" in said
    else:
        assert again["kl"] == 0
    # What is drawn lies where the codes do: moments at five standard errors, and a bit for what was learned.
    codes = after.encode(digits.train.images).sample()
    drawn = after.draw(4000, seed=1)
    scale = codes.std(axis=0)
    assert (np.abs(drawn.mean(axis=0) - codes.mean(axis=0)) < (5 / np.sqrt(len(codes)) + 0.3) * scale).all()
    np.testing.assert_allclose(drawn.std(axis=0), scale, rtol=0.25)
    assert after.generate(3).shape == (3, 8, 8, 1)
    found = {file.name for file in (output / "figures").iterdir()}
    assert {"latent_prior.png", "latent_grid.png", "samples.png", "training_curves.png"} <= found
    assert all(good for _, good, _ in check(output)), [said for _, good, said in check(output) if not good]
    with pytest.raises(UsageError, match=r"fitted after training, so it can't be trained on.\nGo on with the run"):
        train(output, digits, dataclasses.replace(before.config, epochs=9), resume=True)
    assert load_run(source).params.keys() == before.params.keys()


def test_a_damaged_fitted_prior_is_seen(trained, tmp_path):
    output = tmp_path / "fitted"
    tool(["fit-prior", str(trained / "vae"), "--output", str(output)])
    config = json.loads((output / "config.json").read_text())
    assert config["schema"] == SCHEMA_VERSION
    assert config["fitted_prior"] == {"kind": "gaussian", "components": 10, "layers": 6}
    for spoilt in ({"kind": "other", "components": 1, "layers": 1}, {"kind": "flow", "components": 0, "layers": 6}):
        (output / "config.json").write_text(json.dumps(config | {"fitted_prior": spoilt}))
        with pytest.raises(UsageError, match="is damaged: fitted_prior is"):
            load_run(output)
    (output / "config.json").write_text(json.dumps(config | {"fitted_prior": {}}))
    with pytest.raises(UsageError, match="other names or shapes"):
        load_run(output)
    (output / "config.json").write_text(json.dumps(config))
    (step,) = (output / "checkpoints").iterdir()
    flip(step / "params")
    with pytest.raises(UsageError, match="Nothing to restore"):
        load_run(output)
    assert not all(good for _, good, _ in check(output))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--prior", "vamp"], "--prior must be one of gaussian, mixture, flow, got 'vamp'"),
        (["--prior-components", "5"], "--prior-components 5 has no effect: it needs --prior mixture"),
        (["--prior", "mixture", "--prior-layers", "5"], "--prior-layers 5 has no effect: it needs --prior flow"),
        (["--steps", "5"], "--steps 5 has no effect: a Gaussian has a closed form"),
    ],
)
def test_flags_of_fit_prior_without_effect_are_refused(flags, words, trained, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        tool(["fit-prior", str(trained / "vae"), *flags, "--output", str(tmp_path / "out")])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith(words)
    assert not (tmp_path / "out").exists()


def test_a_run_whose_codes_do_not_say_enough_is_refused(trained):
    run = load_run(trained / "vae")
    turned = run._replace(model=dataclasses.replace(run.model, posterior=Householder()))
    by_class = run._replace(model=dataclasses.replace(run.model, prior=OfClass(3)))
    for bad, words in (
        (run._replace(metrics=[]), "must have finished an epoch"),
        (turned, "needs --posterior diagonal"),
        (by_class, "needs a prior that is the same for all classes"),
    ):
        with pytest.raises(UsageError, match=words + r"(.|\n)*\n"):
            check_refittable(bad)
    check_refittable(run)


@pytest.mark.slow
@pytest.mark.skipif("VAE_JAX_DATA_DIR" not in os.environ, reason="needs real MNIST: set VAE_JAX_DATA_DIR")
def test_a_learned_prior_lowers_the_loss_on_mnist_at_equal_steps():
    mnist, losses = vae_jax.load_dataset("mnist"), {}
    for name in ("standard", "mixture", "flow"):
        settings = Settings(
            latent_dim=40, binarize="dynamic", steps=4000, prior=name, hidden_sizes=(300, 300), batch_size=128
        )
        model = build_model(settings, mnist.image_shape)
        params = fit(model, mnist.train, mnist.validation, settings).params
        key = jax.random.key(5)
        losses[name] = evaluate(model, params, mnist.test.images, key, samples=4, binarize="dynamic")["loss"]
    assert losses["standard"] < 98  # measured: 97.25
    assert losses["mixture"] < losses["standard"] - 0.5
    assert losses["flow"] < losses["standard"] - 1
