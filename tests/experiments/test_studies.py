"""The studies as a user runs them, on the embedded digits; what all of them share."""

import dataclasses
import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import ndimage, stats

from experiments import (
    benchmark,
    colour,
    compare,
    debiasing,
    disentangle,
    reparametrisation,
    semi_supervised,
    sparse,
    sweep,
    tables,
)
from experiments.colour.measure import Yardstick, measure, neighbour_correlation
from experiments.colour.report import report
from experiments.compare.study import ROWS
from experiments.debiasing.measure import Groups, summarised, verdict
from experiments.markdown import interval, markdown_table
from experiments.results.uses import USES
from experiments.study import trained_together
from vae_jax.cli.command import main, parse
from vae_jax.config import Settings
from vae_jax.errors import RunError, UsageError
from vae_jax.files import locked
from vae_jax.runs import together
from vae_jax.runs.run import load_run

ROOT = Path(__file__).parents[2]
SMALL = ["--dataset", "digits", "--epochs", "1", "--no-compilation-cache"]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    path = tmp_path_factory.mktemp("studies") / "compare"
    flags = ["--seeds", "2", "--samples", "50", "--hidden-sizes", "16", "--output", str(path)]
    return path, compare.run(parse(compare.Config, [*SMALL, *flags]))


def test_compare_measures_both_models_and_pca_and_draws_them(compared, capsys):
    path, summary = compared
    measured = summary["measured"]
    keys = {key for key, *_ in ROWS}
    assert all(np.isfinite(measured["vae"][key][0]) for key in keys)
    assert all(np.isfinite(measured["ae"][key][0]) for key in keys - {"kl"})
    assert {"squared_error", "knn_accuracy", "prior_precision"} <= set(measured["pca"])
    assert measured["pca"]["squared_error"][1] is None
    report = (path / "report.md").read_text()
    assert all(title in report for _, title, *_ in ROWS)
    saved = json.loads((path / "summary.json").read_text())
    assert saved["seeds"] == {"ae": 2, "vae": 2}
    assert saved["figures"] == [str(path / "figures" / "ae_and_vae.png")]
    assert Path(saved["figures"][0]).exists()
    flags = saved["flags"]
    assert (flags["seeds"], flags["samples"], flags["hidden_sizes"], flags["ae"]) == (2, 50, [16], [])
    assert not {"dataset", "output"} & set(flags)


def test_the_models_of_a_study_are_runs_like_any_other(compared, digits):
    run = load_run(compared[0] / "vae-seed1")
    assert (run.config.seed, run.config.model, run.config.hidden_sizes) == (1, "vae", (16,))
    assert run.summary["diagnosis"]
    one, test = compared[1]["each"]["vae"][1], run.summary["test"]
    assert (one["reconstruction"], one["kl"]) == (test["reconstruction"], test["kl"])


@pytest.mark.slow
def test_compare_reuses_the_runs_it_is_pointed_at(compared, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("experiments.compare.study.compared", lambda *_: Figure())  # it has been drawn once
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
    refused, finish = [], together.finish_run

    def another(path):
        with pytest.raises(RunError, match="another process"), locked(path):
            pass
        refused.append(path)

    def finish_while_another_asks(path, dataset, **options):
        thread = threading.Thread(target=another, args=(path,))
        thread.start()
        thread.join()
        return finish(path, dataset, **options)

    monkeypatch.setattr(together, "finish_run", finish_while_another_asks)
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_sparse_codes_are_sparser_and_their_dictionaries_drawn(tmp_path):
    flags = ["--units", "70", "--output", str(tmp_path / "s")]
    summary = sparse.run(parse(sparse.Config, [*SMALL, *flags]))
    models = summary["models"]
    assert set(models) == {"none", "l1", "kl", "topk"}
    assert models["topk"]["active_share"] <= 4 / 70
    assert models["topk"]["hoyer"] > models["none"]["hoyer"]
    assert (tmp_path / "s" / "figures" / "dictionaries.png").exists()


@pytest.mark.slow
def test_disentangle_measures_gaps_and_dci_of_runs_that_are_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("experiments.disentangle.measure.FITTED", 200)
    flags = ["--dataset", "dsprites-1000", "--models", "vae", "beta-tcvae", "--seeds", "2", "--no-compilation-cache"]
    flags += ["--steps", "4", "--hidden-sizes", "8", "--latent-dim", "3", "--output", str(tmp_path / "d")]
    summary = disentangle.run(parse(disentangle.Config, flags))
    assert set(summary["models"]) == set(summary["gaps"]) == {"vae", "beta-tcvae"}
    for name, runs in summary["models"].items():
        for seed, numbers in enumerate(runs):
            run = load_run(tmp_path / "d" / f"{name}-seed{seed}")
            assert (run.config.objective, run.config.tc_weight) == (("tc", 6.0) if "tc" in name else (None, 6.0))
            assert numbers["loss"] == run.summary["test"]["loss"]
            assert all(0 <= numbers[key] <= 1 for key in ("mig", "mig_20", "disentanglement", "completeness"))
        gaps = np.mean([numbers["mig"] for numbers in runs])
        assert gaps == pytest.approx(np.mean(summary["gaps"][name]))
    drawn = {Path(path).name for path in summary["figures"]}
    assert drawn == {"mig.png", "traversals_vae.png", "traversals_beta-tcvae.png"}
    assert "| beta-TCVAE |" in (tmp_path / "d" / "report.md").read_text()
    capsys.readouterr()
    with pytest.raises(UsageError, match="known factors and at least 100 test images, got digits"):
        disentangle.run(parse(disentangle.Config, ["--dataset", "digits"]))
    with pytest.raises(UsageError, match="got dsprites-100 with 20 test images"):
        disentangle.run(parse(disentangle.Config, ["--dataset", "dsprites-100"]))
    with pytest.raises(UsageError, match="both say"):
        disentangle.run(parse(disentangle.Config, [*flags, "--epochs", "2"]))


@pytest.mark.slow
def test_colour_measures_both_priors_and_trains_for_as_many_steps_as_it_began_with(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("vae_jax.cli.session.seconds_per_step", lambda *_: 30.0)
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(80, 8, 8, 3)), (0, 3, 3, 0))
    images = np.uint8(np.clip(128 + 400 * smooth, 0, 255))
    np.savez(tmp_path / "cifar10.npz", x_train=images[:60], y_train=np.arange(60) % 2, x_test=images[60:])
    flags = ["--dataset", str(tmp_path / "cifar10.npz"), "--models", "vae-map", "--hidden-sizes", "4"]
    flags += ["--beta", "0.9", "--samples", "10", "--output", str(tmp_path / "c"), "--minutes"]
    (vae,) = colour.run(parse(colour.Config, [*flags, "1"]))["models"]["vae-map"]
    assert vae["steps"] == 2
    run = load_run(tmp_path / "c" / "vae-map-seed0")
    assert run.config.beta == 0.9
    assert vae["bits_per_dim, N(0, I)"] == run.summary["test"]["bits_per_dim"]
    gain = (vae["kl, N(0, I)"] - vae["kl, fitted Gaussian"]) / (8 * 8 * 3 * np.log(2))
    assert gain > 0.01
    assert vae["bits_per_dim, N(0, I)"] - vae["bits_per_dim, fitted Gaussian"] == pytest.approx(gain, rel=1e-3)
    assert vae["psnr"] == pytest.approx(run.summary["test"]["psnr"], abs=1e-3)
    assert [each.name for each in (tmp_path / "c" / "figures").iterdir()] == ["vae-map.png"]
    words = (tmp_path / "c" / "report.md").read_text()
    assert "prior fitted afterwards: Gaussian" in words
    assert "no objects" in words
    assert "V2" not in words  # of 32 x 32 pixels
    capsys.readouterr()
    with pytest.raises(UsageError, match=r"--minutes is 2, but .* was begun with 1"):
        colour.run(parse(colour.Config, [*flags, "2"]))
    with pytest.raises(UsageError, match="both say"):
        colour.run(parse(colour.Config, [*flags, "1", "--steps", "2"]))
    (tmp_path / "c" / "steps.json").write_text("[]")
    with pytest.raises(UsageError, match="damaged"):
        colour.run(parse(colour.Config, [*flags, "1"]))
    np.savez(tmp_path / "few.npz", x_train=images, x_test=images[:9])
    with pytest.raises(UsageError, match=r"at least 10 test images .*, got 9 test images"):
        colour.run(parse(colour.Config, ["--dataset", str(tmp_path / "few.npz"), *flags[2:], "1"]))
    assert "epoch" not in capsys.readouterr().out


def test_colour_draws_an_autoencoders_samples_from_the_gaussian_alone(compared, digits):
    found = measure(load_run(compared[0] / "ae-seed0"), digits, Yardstick.of(digits, 50))
    assert [*found.samples] == ["fitted Gaussian"]
    assert not any("bits" in name or "N(0, I)" in name for name in found.numbers)
    assert found.samples["fitted Gaussian"].shape == found.reconstructions.shape == (36, 8, 8, 1)


def test_colour_says_of_samples_what_their_neighbours_say():
    rng = np.random.default_rng(0)
    apart = rng.uniform(size=(400, 8, 8, 3))
    assert abs(neighbour_correlation(apart)) < 5 / np.sqrt(400 * 24 * 3)
    assert neighbour_correlation(np.uint8(255 * np.broadcast_to(apart[:, :1, :1], apart.shape))) == pytest.approx(1)
    walk = [rng.normal(size=4000)]
    for _ in range(3):  # along a row neighbours have 0.6, and rows are alike
        walk.append(0.6 * walk[-1] + 0.8 * rng.normal(size=4000))
    rows = np.broadcast_to(np.stack(walk, axis=1)[:, None, :, None], (4000, 4, 4, 1))
    assert neighbour_correlation(rows) == pytest.approx((1 + 0.6) / 2, abs=0.02)
    numbers = {f"{name}, {of}": 0.1 for name in ("layout", "precision") for of in ("N(0, I)", "fitted Gaussian")}
    text = report("CIFAR-10", {"vae-map": [numbers | {"layout, fitted Gaussian": 0.6}]}, {"layout": 0.7}, (9, 9), True)
    lines = text.splitlines()
    assert [sum(words in line for line in lines) for words in ("a mosaic", "hang together")] == [1, 1]
    assert "N(0, I): a mosaic" in text
    assert "4.70" in text
    assert "Precision can't tell" not in text
    numbers["precision, N(0, I)"] = 0.96
    assert "it gives one 0.96" in report("CIFAR-10", {"vae-map": [numbers]}, {"layout": 0.7}, (9, 9), False)


def test_groups_are_thinned_in_training_and_the_worst_of_them_is_told(digits):
    for by, thinned in (("class", 8), ("ink", 3)):
        groups = Groups.of(by, digits, 8)
        unfair = groups.unfair(digits, 0.02)
        before, after = (np.bincount(groups.places(one.train)) for one in (digits, unfair))
        assert groups.thinned == thinned
        assert after[thinned] == round(0.02 * before[thinned])
        np.testing.assert_array_equal(np.delete(after, thinned), np.delete(before, thinned))
        assert unfair.test is digits.test
        assert unfair.sha256 != digits.sha256
    ink = digits.test.images.mean(axis=(1, 2, 3))
    places = Groups.of("ink", digits, 0).places(digits.test)
    assert ink[places == 3].min() >= ink[places == 2].max()
    each = {"squared error": [3.0, 1.0, 2.0], "probe": [0.9, 0.5, 0.7], "fair probe": [0.9, 0.8, 0.7]}
    better = each | {"squared error": [1.0, 1.0, 1.0]}
    found = summarised({"uniform": [each] * 2, "rare": [better] * 2}, dataclasses.replace(groups, thinned=1))
    assert found["squared error"]["uniform"] == {
        **{"mean of the groups": (2.0, 0.0), "thinned group": (1.0, 0.0), "worst group": (3.0, 0.0)}
    }
    assert found["probe"]["rare"]["worst group"] == (0.5, 0.0)
    words = [verdict(found[name], name) for name in ("squared error", "probe")]
    assert words == ["better outside the intervals", "no difference outside the intervals"]


@pytest.mark.slow
@pytest.mark.parametrize("study", [debiasing, semi_supervised], ids=lambda study: study.__name__)
def test_studies_of_few_labels_and_of_unfair_ones_run_and_draw(study, tmp_path):
    flags = {debiasing: ["--seeds", "2"], semi_supervised: ["--seeds", "2", "--numbers", "50", "--steps", "20"]}[study]
    summary = study.run(parse(study.Config, [*SMALL, *flags, "--hidden-sizes", "8", "--output", str(tmp_path / "out")]))
    assert (tmp_path / "out" / "report.md").read_text().startswith("# ")
    assert all(Path(figure).exists() for figure in summary["figures"])
    if study is semi_supervised:
        errors = summary["errors"][50]
        assert errors["m2"][1] == load_run(tmp_path / "out/runs/m2-50-seed1").summary["test"]["error_rate"]
        assert errors["alone"][0] != errors["alone"][1]
    else:
        assert {*summary["numbers"]} == {"class", "ink"}


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


def each_flag():
    """Every flag of every study but paths, names of data and switches: none of them takes -1."""
    others = [benchmark, colour, debiasing, disentangle, semi_supervised, tables]
    for study in [use.study for use in USES] + others:
        for field in dataclasses.fields(study.Config):
            if not any(word in str(field.type) for word in ("bool", "Path")) and field.name != "dataset":
                yield study, f"--{field.name.replace('_', '-')}"


@pytest.mark.parametrize(("study", "flag"), [*each_flag()], ids=lambda v: v if isinstance(v, str) else v.__name__[12:])
def test_a_value_outside_the_domain_of_a_flag_is_refused_in_two_lines(study, flag, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(study.Config, study.run, [flag, "-1"])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert len(error.strip().splitlines()) <= 2
    assert flag in error
    assert "-1" in error
    assert list(tmp_path.iterdir()) == []


def test_help_of_every_study_imports_no_jax():
    code = """
import runpy, sys
for name in NAMES:
    sys.argv[1:] = ["--help"]
    runpy.run_module(f"experiments.{name}", None, "__main__")
assert not {"jax", "matplotlib", "sklearn"} & sys.modules.keys()
"""
    others = ["benchmark", "colour", "debiasing", "disentangle", "semi_supervised", "tables", "results"]
    names = [*(use.name for use in USES), *others]
    program = [sys.executable, "-c", code.replace("NAMES", repr(names))]
    result = subprocess.run(program, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("usage: ") == len(names)


def test_an_output_that_holds_something_else_is_refused_and_left_alone(compared, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="something else"):
        sweep.run(parse(sweep.Config, [*SMALL, "--output", str(tmp_path)]))
    with pytest.raises(UsageError, match="the study compare"):
        sweep.run(parse(sweep.Config, [*SMALL, "--output", str(compared[0])]))
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
