"""The studies of AE against VAE, beta, gradients and sparse codes, as a user runs them, on the embedded digits."""

import json
import threading

import numpy as np
import pytest
from scipy import stats

from experiments import compare, reparametrisation, sparse, sweep
from experiments import study as _study
from experiments.study import interval, markdown_table, trained_together
from vae_jax.cli.command import main, parse
from vae_jax.config import Settings
from vae_jax.errors import RunError, UsageError
from vae_jax.files import locked
from vae_jax.models.evaluation import diagnose
from vae_jax.runs.run import load_run

SMALL = ["--dataset", "digits", "--epochs", "1", "--no-compilation-cache"]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    path = tmp_path_factory.mktemp("studies") / "compare"
    flags = ["--seeds", "2", "--samples", "50", "--hidden-sizes", "16", "--output", str(path)]
    return path, compare.run(parse(compare.Config, [*SMALL, *flags]))


def test_compare_measures_both_models_and_pca_and_draws_them(compared, capsys):
    path, summary = compared
    measured = summary["measured"]
    for key, *_ in compare.ROWS:
        assert all(np.isfinite(measured["vae"][key][0]) for key, *_ in compare.ROWS)
        assert key == "kl" or np.isfinite(measured["ae"][key][0])
    assert {"squared_error", "knn_accuracy", "prior_precision"} <= set(measured["pca"])
    assert measured["pca"]["squared_error"][1] is None
    report = (path / "report.md").read_text()
    assert all(title in report for _, title, *_ in compare.ROWS)
    assert (path / "figures" / "ae_and_vae.png").exists()
    assert json.loads((path / "summary.json").read_text())["seeds"] == {"ae": 2, "vae": 2}


def test_the_models_of_a_study_are_runs_like_any_other(compared, digits):
    run = load_run(compared[0] / "vae-seed1")
    assert (run.config.seed, run.config.model, run.config.hidden_sizes) == (1, "vae", (16,))
    assert run.summary["diagnosis"]
    one = next(
        each for each in compared[1]["each"]["vae"] if each["reconstruction"] == run.summary["test"]["reconstruction"]
    )
    assert one["kl"] == run.summary["test"]["kl"]


def test_compare_reuses_the_runs_it_is_pointed_at(compared, tmp_path, capsys):
    path, summary = compared
    flags = ["--ae", str(path / "ae-seed0"), "--vae", str(path / "vae-seed0"), "--samples", "50"]
    again = compare.run(parse(compare.Config, [*flags, "--output", str(tmp_path / "again")]))
    assert "epoch 1" not in capsys.readouterr().out
    assert again["each"]["vae"][0] == pytest.approx(summary["each"]["vae"][0], rel=1e-5)
    assert {p.name for p in (tmp_path / "again").iterdir()} == {
        *("environment.json", "figures", "report.md", "study.json", "summary.json")
    }


def test_given_runs_are_measured_on_their_own_data_only(compared, tmp_path):
    path, _ = compared
    with pytest.raises(UsageError, match="was trained on"):
        compare.run(parse(compare.Config, ["--dataset", "mnist", "--ae", str(path / "ae-seed0")]))
    with pytest.raises(UsageError, match="another model: VAE"):
        compare.run(parse(compare.Config, ["--ae", str(path / "vae-seed0")]))


def test_runs_stay_locked_until_their_summary_is_written(digits, tmp_path, monkeypatch):
    refused, summarise = [], _study._summarise

    def another(path):
        with pytest.raises(RunError, match="another process"), locked(path):
            pass
        refused.append(path)

    def summarise_while_another_asks(path, dataset):
        thread = threading.Thread(target=another, args=(path,))
        thread.start()
        thread.join()
        summarise(path, dataset)

    monkeypatch.setattr(_study, "_summarise", summarise_while_another_asks)
    trained_together([tmp_path / "a"], [Settings(hidden_sizes=(4,), epochs=1)], digits)
    assert refused == [tmp_path / "a"]
    with locked(tmp_path / "a"):
        pass


def test_only_an_unfinished_run_of_the_same_settings_is_replaced(digits, tmp_path):
    settings = Settings(hidden_sizes=(4,), epochs=1)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="no run"):
        trained_together([tmp_path / "a"], [settings], digits)
    assert (tmp_path / "a" / "mine.txt").exists()


def test_a_study_restores_what_is_finished_and_refuses_what_differs(compared, digits, capsys):
    path, _ = compared
    before = (path / "ae-seed0" / "summary.json").stat().st_mtime_ns
    settings = load_run(path / "ae-seed0").config
    trained_together([path / "ae-seed0"], [settings], digits)
    assert "restored" in capsys.readouterr().out
    with pytest.raises(UsageError, match="--beta"):
        trained_together([path / "ae-seed0"], [Settings(**{**vars(settings), "beta": 3.0})], digits)
    assert (path / "ae-seed0" / "summary.json").stat().st_mtime_ns == before


def test_sweep_trains_every_beta_and_dimension(tmp_path):
    flags = ["--beta", "0", "4", "--latent-dim", "1", "3", "--hidden-sizes", "16", "--output", str(tmp_path / "s")]
    summary = sweep.run(parse(sweep.Config, [*SMALL, *flags]))
    assert {dim: [p["beta"] for p in points] for dim, points in summary["points"].items()} == {1: [0, 4], 3: [0, 4]}
    for points in summary["points"].values():
        for point in points:
            assert point["loss"] == pytest.approx(point["reconstruction"] + point["kl"])
            assert point["diagnosis"]
    assert (tmp_path / "s" / "figures" / "sweep.png").exists()
    assert "beta 4" in (tmp_path / "s" / "report.md").read_text()


def test_the_pathwise_gradient_has_the_smallest_variance_and_a_plain_sample_none(tmp_path):
    flags = ["--images", "4", "--draws", "500", "--output", str(tmp_path / "r")]
    summary = reparametrisation.run(parse(reparametrisation.Config, [*SMALL[2:], *flags]))
    variance, error = summary["relative_variance"], summary["relative_error_of_the_mean"]
    assert variance["plain"] == 0 < variance["pathwise"] < variance["score"]
    assert error["plain"] == pytest.approx(1)
    assert error["pathwise"] < min(0.3, error["score"])
    assert (tmp_path / "r" / "figures" / "gradient_variance.png").exists()


def test_sparse_codes_are_sparser_and_their_dictionaries_drawn(tmp_path):
    flags = ["--units", "70", "--output", str(tmp_path / "s")]
    summary = sparse.run(parse(sparse.Config, [*SMALL, *flags]))
    models = summary["models"]
    assert set(models) == {"none", "l1", "kl", "topk"}
    assert models["topk"]["active_share"] <= 4 / 70
    assert models["topk"]["hoyer"] > models["none"]["hoyer"]
    assert (tmp_path / "s" / "figures" / "dictionaries.png").exists()


def test_interval_is_students():
    values = [1.0, 2.0, 4.0]
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    mean, half = interval(values)
    assert (mean - half, mean + half) == pytest.approx((low, high))
    assert interval([5.0]) == (5.0, None)


def test_a_markdown_table_is_aligned():
    table = markdown_table(["model", "loss"], [["AE", "1.5"], ["longer name", "120.25"]])
    assert len({len(line) for line in table.splitlines()}) == 1
    assert table.splitlines()[1] == "|-------------|-------:|"


@pytest.mark.parametrize(
    ("kl", "sigma", "beta", "words"),
    [
        ([1.0, 2.0], 0.5, 1.0, "All 2 dimensions are active."),
        ([1.0], 0.5, 1.0, "1 dimension is active."),
        ([0.0] * 18 + [3.0] * 2, 0.5, 1.0, "18 of 20 dimensions are inactive"),
        ([0.0, 1.0], 0.5, 1.0, "1 of 2 dimension is inactive"),
        ([0.0, 0.0], 1.0, 4.0, "collapsed to the prior"),
        ([9.0, 9.0], 0.001, 0.0, "shrunk to points"),
    ],
)
def test_the_diagnosis_in_words(kl, sigma, beta, words):
    text = diagnose(np.array(kl), sigma, beta)
    assert words in text
    assert ("Try" in text or "try" in text) == ("inactive" in words or "prior" in words or "points" in words)


BAD = [
    (compare, ["--seeds", "0"], "--seeds", "0"),
    (compare, ["--latent-dim", "0"], "--latent-dim", "0"),
    (compare, ["--ae", "nowhere"], "nowhere", "run directory"),
    (compare, ["--dataset", "digits", "--batch-size", "5000"], "--batch-size", "5000"),
    (sweep, ["--beta", "-1"], "--beta", "-1"),
    (sweep, ["--beta", "1", "1"], "--beta", "different"),
    (sweep, ["--latent-dim", "x"], "--latent-dim", "x"),
    (sparse, ["--sparsity-target", "1"], "--sparsity-target", "1"),
    (sparse, ["--units", "1"], "--units", "1"),
    (reparametrisation, ["--draws", "1"], "--draws", "1"),
]


@pytest.mark.parametrize(
    ("module", "flags", "first", "second"), BAD, ids=lambda v: " ".join(v) if type(v) is list else ""
)
def test_bad_flags_end_in_two_lines_and_write_nothing(module, flags, first, second, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(module.Config, module.run, flags)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert len(error.strip().splitlines()) <= 2
    assert first in error
    assert second in error
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_holds_something_else_is_refused_and_left_alone(compared, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="something else"):
        sweep.run(parse(sweep.Config, [*SMALL, "--output", str(tmp_path)]))
    with pytest.raises(UsageError, match="the study compare"):
        sweep.run(parse(sweep.Config, [*SMALL, "--output", str(compared[0])]))
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
