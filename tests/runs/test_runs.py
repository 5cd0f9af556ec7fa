import dataclasses
import json
import re
import shutil

import jax
import numpy as np
import optax
import pytest
from damaged import flip

from experiments import mnist
from vae_jax.cli.command import parse
from vae_jax.config import Settings
from vae_jax.errors import RunError, UsageError
from vae_jax.models.autoencoders import build_model
from vae_jax.models.evaluation import evaluate
from vae_jax.models.inputs import Inputs
from vae_jax.models.likelihoods import Gaussian
from vae_jax.models.objectives import ELBO
from vae_jax.models.priors import FullGaussian
from vae_jax.registry import OBJECTIVES, OPTIMIZERS
from vae_jax.runs.checkpoints import Checkpoints
from vae_jax.runs.folders import check_available, fresh_path
from vae_jax.runs.recording import train_run
from vae_jax.runs.records import SCHEMA_VERSION, read_metrics
from vae_jax.runs.run import load_run

SETTINGS = Settings(dataset="digits", hidden_sizes=(16,), epochs=4, batch_size=128, ema_decay=0.9)


def train(path, digits, settings=SETTINGS, **arguments):
    return train_run(path, build_model(settings, digits.image_shape), settings, digits, **arguments)


def evaluate_again(run, digits):
    return run.evaluate(digits.test.images)


@pytest.fixture(scope="session")
def finished(tmp_path_factory, digits):
    path = tmp_path_factory.mktemp("runs") / "straight"
    return path, train(path, digits)


def test_load_run_gives_back_model_parameters_config_and_metrics(finished, digits):
    path, result = finished
    run = load_run(path, "latest")
    for a, b in zip(jax.tree.leaves(run.params), jax.tree.leaves(result.params), strict=True):
        np.testing.assert_array_equal(a, b)
    assert run.config == SETTINGS
    assert run.metrics == result.history == read_metrics(path)
    assert run.dataset["sha256"] == digits.sha256
    others = {name: run.summary["test"][name] for name in ("active_units", "psnr")}
    assert run.summary["test"] == {**evaluate_again(run, digits), **others}
    assert run.model == build_model(SETTINGS, digits.image_shape)
    again = evaluate(run.model, run.params, digits.validation.images, run.evaluation_key, samples=1)
    assert again["loss"] == pytest.approx(run.metrics[-1]["validation"]["loss"], abs=1e-4)


def test_a_prior_fitted_afterwards_is_a_bound_of_its_own(finished, digits):
    run, prior = load_run(finished[0]), FullGaussian()
    codes, images, test = run.encode(digits.train.images), digits.train.images, run.summary["test"]
    fitted = run.with_prior(prior, prior.fit(codes.means, codes.logvars))
    before, after = (each.evaluate(images) for each in (run, fitted))
    assert after["kl"] < before["kl"] - 0.1  # digits do not fill N(0, I) after four epochs
    assert after["reconstruction"] == before["reconstruction"]
    assert (run.summary["test"], fitted.summary) == (test, None)
    assert not np.allclose(fitted.generate(4), run.generate(4))
    same = run.with_prior(prior, prior.init(run.evaluation_key, 2))
    assert same.evaluate(digits.test.images) == pytest.approx(run.evaluate(digits.test.images), rel=1e-5)
    np.testing.assert_allclose(same.generate(4), run.generate(4), atol=1e-5)
    back = fitted.with_prior(run.model.prior, {})
    assert back.evaluate(images) == before
    with pytest.raises(UsageError, match=r"FullGaussian must have the shapes .*\(2, 2\).*, got .*\(3, 3\)"):
        run.with_prior(prior, prior.init(run.evaluation_key, 3))
    ae = run._replace(model=build_model(dataclasses.replace(SETTINGS, model="ae"), digits.image_shape))
    with pytest.raises(UsageError, match=r"has no prior to draw from\.\nFit one: vae-jax fit-prior"):
        ae.draw(3)
    given = ae.with_prior(prior, prior.init(run.evaluation_key, 2))
    assert given.draw(3).shape == (3, 2)


def test_a_tilde_in_a_path_is_the_home_of_the_user(finished, digits, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    train("~/own", digits, dataclasses.replace(SETTINGS, epochs=1))
    assert [path.name for path in tmp_path.iterdir()] == ["own"]
    assert load_run("~/own").path == tmp_path / "own"
    assert parse(mnist.Config, ["--run-dir", "~/own", "--resume"]).run_dir == tmp_path / "own"


def test_what_a_run_was_not_trained_with_is_refused(finished, digits, tmp_path):
    path, _ = finished
    model = build_model(SETTINGS, digits.image_shape)
    assert load_run(path, model=model).step == load_run(path).step
    other = dataclasses.replace(model, likelihood=Gaussian(0.5))
    with pytest.raises(
        UsageError, match=r"with the model .*Bernoulli\(\).*, got .*Gaussian\(sigma=0.5\).*\nGive the same"
    ):
        load_run(path, model=other)
    own, settings = Inputs(binarize="threshold"), dataclasses.replace(SETTINGS, epochs=1)
    train(tmp_path, digits, settings, inputs=own, objective=ELBO(0.5))
    with pytest.raises(UsageError, match=r"with the inputs Inputs\(binarize='threshold'\), got Inputs\(\)\.\n"):
        load_run(tmp_path, inputs=Inputs())
    more = dataclasses.replace(settings, epochs=2)
    with pytest.raises(UsageError, match=r"with the objective ELBO\(beta=0.5\), got ELBO\(\)\.\n"):
        train(tmp_path, digits, more, inputs=own, objective=ELBO(), resume=True)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["described"]  # as of a run that was trained before it was recorded
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_run(tmp_path, inputs=Inputs()).inputs == Inputs()
    assert len(train(tmp_path, digits, more, inputs=own, objective=ELBO(0.5), resume=True).history) == 2


def test_a_run_is_read_without_the_names_that_only_training_needs(digits, tmp_path):
    OPTIMIZERS.register("gone", optax.sgd)
    OBJECTIVES.register("gone", lambda settings: ELBO(settings.beta), uses=("beta",))
    settings = dataclasses.replace(SETTINGS, epochs=1, optimizer="gone", objective="gone", learning_rate=1e-3)
    train(tmp_path, digits, settings)
    OPTIMIZERS.unregister("gone")
    OBJECTIVES.unregister("gone")
    model = build_model(SETTINGS, digits.image_shape)
    for run in (load_run(tmp_path), load_run(tmp_path, model=model)):
        assert evaluate_again(run, digits)["loss"] == pytest.approx(run.summary["test"]["loss"], abs=1e-4)
        assert run.config == settings
    with pytest.raises(UsageError, match=r"--(optimizer|objective) must be one of .* got 'gone'"):
        train(tmp_path, digits, settings, resume=True)


def test_the_directory_is_as_designed(finished):
    path, _ = finished
    assert {"config.json", "environment.json", "metrics.jsonl", "checkpoints"} <= {p.name for p in path.iterdir()}
    environment = json.loads((path / "environment.json").read_text())
    assert {"python", "jax", "jaxlib", "flax", "optax", "device", "cores", "XLA_FLAGS"} <= set(environment)
    config = json.loads((path / "config.json").read_text())
    assert config["schema"] == SCHEMA_VERSION
    assert set(config["settings"]) == {field.name for field in dataclasses.fields(Settings)}


def test_a_directory_in_use_is_refused_and_left_alone(finished, digits, tmp_path):
    path, _ = finished
    before = {p: p.stat().st_mtime_ns for p in path.rglob("*")}
    with pytest.raises(UsageError, match=r"a finished run.*\n.*--resume"):
        train(path, digits)
    assert before == {p: p.stat().st_mtime_ns for p in path.rglob("*")}
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="files that are no run"):
        train(tmp_path, digits)
    with pytest.raises(UsageError, match="is a file"):
        check_available(tmp_path / "notes.txt")
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(UsageError, match="a finished run"):
        check_available(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latent_dim": 3}, "--latent-dim is 3"),
        ({"seed": 5}, "--seed is 5"),
        ({"batch_size": 64}, "--batch-size is 64"),
    ],
    ids=str,
)
def test_resuming_under_other_settings_is_refused_by_name(finished, digits, changes, message):
    with pytest.raises(UsageError, match=message) as error:
        train(finished[0], digits, dataclasses.replace(SETTINGS, **changes), resume=True)
    assert len(str(error.value).splitlines()) == 2


def test_resuming_with_other_data_is_refused(finished, digits):
    with pytest.raises(UsageError, match="differs from the one"):
        train(finished[0], dataclasses.replace(digits, sha256="0" * 64), resume=True)


def test_a_damaged_directory_gives_one_line_and_a_remedy(finished, tmp_path):
    with pytest.raises(UsageError, match="not a run directory"):
        load_run(tmp_path)
    good = json.loads((finished[0] / "config.json").read_text())
    dataset = good["dataset"]
    bad = [
        "{",
        "[]",
        json.dumps({**good, "schema": 99}),
        json.dumps({**good, "settings": {**good["settings"], "latent_dim": 0}}),
        json.dumps({**good, "settings": {"latent_dim": [2]}}),
        json.dumps({**good, "settings": {**good["settings"], "likelihood": "squared_error"}}),
        json.dumps({**good, "settings": {**good["settings"], "colour": 1}}),
        json.dumps({**good, "dataset": None}),
        json.dumps({**good, "dataset": {k: v for k, v in dataset.items() if k != "sha256"}}),
        *(json.dumps({**good, "dataset": {**dataset, "image_shape": s}}) for s in (None, "8x8", [8, 8], [-8, 8, 1])),
        json.dumps({**good, "settings": None}),
    ]
    for content in bad:
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(UsageError, match=r"config\.json") as error:
            load_run(tmp_path)
        assert len(str(error.value).splitlines()) <= 2


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.jsonl", b"1\n"),
        ("metrics.jsonl", b"\xff\xfe"),
        ("summary.json", b"[1]"),
        ("summary.json", b'{"test": {}}'),
        ("summary.json", b"{"),
    ],
)
def test_a_damaged_record_is_named(finished, tmp_path, name, content):
    shutil.copytree(finished[0], tmp_path / "run")
    (tmp_path / "run" / name).write_bytes(content)
    with pytest.raises(UsageError, match=name) as error:
        load_run(tmp_path / "run")
    assert len(str(error.value).splitlines()) <= 2


def test_a_flipped_byte_is_found_and_the_other_checkpoint_is_used(finished, digits, tmp_path):
    path = shutil.copytree(finished[0], tmp_path / "run")
    steps = [int(row["step"]) for row in finished[1].history]
    flip(path / "checkpoints" / str(steps[-1]) / "params")
    with pytest.warns(UserWarning, match=f"checkpoint {steps[-1]} of .* is damaged.*: using checkpoint {steps[-2]} in"):
        run = load_run(path, "latest")
    shutil.rmtree(path / "checkpoints" / str(steps[-1]))
    for a, b in zip(jax.tree.leaves(run.params), jax.tree.leaves(load_run(path, "latest").params), strict=True):
        np.testing.assert_array_equal(a, b)
    for folder in (path / "checkpoints").iterdir():
        flip(folder / "record")
    with pytest.raises(UsageError, match="Nothing to restore: checkpoint") as error:
        load_run(path)
    assert len(str(error.value).splitlines()) == 2


def test_arrays_of_another_shape_than_the_config_are_named(finished, tmp_path, capfd):
    shutil.copytree(finished[0], tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["settings"]["latent_dim"] = 3
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="other names or shapes"):
        load_run(tmp_path / "run")
    assert capfd.readouterr().err == ""


def test_a_row_is_never_lost_when_the_end_comes_between_row_and_checkpoint(digits, tmp_path, monkeypatch):
    save = Checkpoints.save

    def stop_after(self, progress, loss):
        save(self, progress, loss)
        if progress.state.step == 22:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", stop_after)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, digits)
    monkeypatch.undo()
    train(tmp_path, digits, resume=True)
    assert [row["epoch"] for row in read_metrics(tmp_path)] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("method", "given", "words"),
    [
        *[
            ("decode", {"codes": codes}, "finite numbers [n, 2]")
            for codes in ([0.0, 0.0], [[0, 0, 0]], [[0, np.nan]], "ab", None)
        ],
        *[("generate", {"number": n}, "integer of at least 1") for n in (0, 2.5, True, "3", 10**12)],
        *[
            ("generate", {"number": 3, "temperature": value}, "temperature must be a finite number of at least 0")
            for value in (-1, np.nan, np.inf, "1")
        ],
    ],
)
def test_what_is_no_code_and_no_number_is_refused(finished, method, given, words):
    with pytest.raises(UsageError, match=re.escape(words)):
        getattr(load_run(finished[0]), method)(**given)


def test_codes_are_what_numpy_makes_of_them_and_a_number_may_be_numpys(finished):
    run = load_run(finished[0])
    np.testing.assert_array_equal(run.decode([[1, -1]]), run.decode(np.array([[1.0, -1.0]])))
    np.testing.assert_array_equal(run.generate(np.int64(3)), run.generate(3))
    with pytest.raises(UsageError, match="got 'Best'"):
        load_run(finished[0], "Best")


def test_a_run_whose_checkpoints_are_gone_is_not_trained_over(finished, digits, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(UsageError, match="no finished checkpoint"):
        train(tmp_path / "run", digits, dataclasses.replace(SETTINGS, epochs=5), resume=True)
    assert read_metrics(tmp_path / "run") == finished[1].history


def test_a_run_that_early_stopping_ended_is_finished(digits, tmp_path):
    settings = dataclasses.replace(SETTINGS, patience=1, learning_rate=1e-9, epochs=9, warmup_fraction=0.0)
    train(tmp_path, digits, settings)
    with pytest.raises(UsageError, match=r"finished run.*\n.*--patience"):
        train(tmp_path, digits, settings, resume=True)


def test_a_full_disk_while_saving_is_a_run_error(digits, tmp_path, monkeypatch):
    import orbax.checkpoint as ocp

    def refuse(*_, **__):
        raise ValueError(f"Error writing {300 * 'a'}: [No space left on device]\nand a long story")

    monkeypatch.setattr(ocp.AsyncCheckpointer, "save", refuse)
    with pytest.raises(RunError, match=r"checkpoints: No space left on device\.\n.*--resume"):
        train(tmp_path, digits)


def test_a_nan_keeps_the_last_good_checkpoint(digits, tmp_path, monkeypatch):

    from vae_jax.training import fit as fitting

    check = fitting.check_finite

    def fail_in_the_third_epoch(metrics, first_step):
        if first_step == 2 * 11:
            metrics = metrics._replace(kl=np.full_like(metrics.kl, np.nan))
        check(metrics, first_step)

    monkeypatch.setattr(fitting, "check_finite", fail_in_the_third_epoch)
    with pytest.raises(RunError, match="kl is not finite at step 23"):
        train(tmp_path, digits)
    assert load_run(tmp_path, "latest").step == 22


def test_a_directory_that_cannot_be_written_is_a_run_error(digits, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="can't be written"):
        train(tmp_path / "file" / "run", digits)


def test_fresh_path_is_new_each_time(tmp_path):
    first = fresh_path("digits-vae-z2", tmp_path / "runs")
    second = fresh_path("digits-vae-z2", tmp_path / "runs")
    check_available(second)
    assert (first.name, second.name) == ("digits-vae-z2", "digits-vae-z2-2")
