"""Scores against float64 references, the threshold's guarantee, and the study as a user runs it."""

import csv
import dataclasses
import itertools
import json

import jax
import numpy as np
import pytest
from scipy import stats

from experiments import anomaly as study
from experiments.anomaly import figures as plots_anomaly
from experiments.anomaly.measure import PROTOCOLS
from vae_jax.cli.command import main, parse
from vae_jax.cli.score import Calibrate, Score, calibrate, score
from vae_jax.config import Settings
from vae_jax.data.loading import load_dataset
from vae_jax.errors import UsageError
from vae_jax.measures import anomaly
from vae_jax.measures.images import as_rows
from vae_jax.measures.threshold import RECORD, Threshold
from vae_jax.measures.threshold import calibrate as find_threshold
from vae_jax.models.autoencoders import build_model
from vae_jax.runs.checkpoints import Checkpoints
from vae_jax.runs.records import write_config
from vae_jax.runs.run import load_run
from vae_jax.training.program import Progress
from vae_jax.training.recipe import Recipe
from vae_jax.training.step import init_state, zero_metrics

RNG = np.random.default_rng(0)
COMMANDS = {"calibrate": (Calibrate, calibrate), "score": (Score, score)}


def distances(a, b):
    return np.sqrt(((np.float64(a)[:, None] - np.float64(b)[None]) ** 2).sum(-1))


def test_the_mean_distance_to_the_nearest_is_that_of_brute_force_and_merges_over_sets():
    queries, references = RNG.random((7, 5), np.float32), RNG.random((30, 5), np.float32)
    expected = np.sort(distances(queries, references), axis=1)
    np.testing.assert_allclose(anomaly.neighbour_distances(queries, references, 4), expected[:, :4], rtol=1e-5)
    parts = [anomaly.neighbour_distances(queries, part, 4) for part in np.split(references, [2, 13])]
    assert [part.shape[1] for part in parts] == [2, 4, 4]  # a set may have fewer
    np.testing.assert_allclose(anomaly.mean_distance(parts, 4), expected[:, :4].mean(1), rtol=1e-5)
    np.testing.assert_allclose(anomaly.latent_knn(queries, references, 99), expected.mean(1), rtol=1e-5)


def test_the_pca_residual_is_that_of_the_singular_value_decomposition():
    normal, points = RNG.random((40, 12)).astype(np.float32), RNG.random((9, 12)).astype(np.float32)
    mean = np.float64(normal).mean(0)
    rest = np.linalg.svd(np.float64(normal) - mean)[2][3:]
    expected = (((np.float64(points) - mean) @ rest.T) ** 2).sum(1)
    np.testing.assert_allclose(anomaly.pca_residual(normal, points, 3), expected, rtol=1e-4)
    np.testing.assert_allclose(anomaly.pca_residual(normal, points, 99), 0, atol=1e-9)


def test_ink_and_norms():
    images = RNG.integers(0, 256, (5, 3, 4, 1), dtype=np.uint8)
    images[0] = 0
    points = as_rows(images)
    pixels = images.reshape(5, -1) / 255
    np.testing.assert_allclose(points, pixels, rtol=1e-6)
    np.testing.assert_allclose(anomaly.ink(points), pixels.sum(1), rtol=1e-6)
    np.testing.assert_allclose(anomaly.norms(points)[1:], np.sqrt((pixels[1:] ** 2).sum(1)), rtol=1e-6)
    assert anomaly.norms(points)[0] == pytest.approx(1 / 255)
    deviation = np.abs(pixels.sum(1) - np.median(pixels[1:].sum(1)))
    np.testing.assert_allclose(anomaly.ink_deviation(points[1:], points), deviation, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "binarize"), [("vae", "none"), ("ae", "threshold")])
def test_a_models_scores_are_those_of_its_own_parts(kind, binarize):
    settings = Settings(model=kind, latent_dim=3, hidden_sizes=(4,), binarize=binarize)
    model = build_model(settings, (4, 5, 1))
    params = model.init(jax.random.key(0))
    images = RNG.integers(0, 256, (6, 4, 5, 1), dtype=np.uint8)
    scores = anomaly.model_scores(model, params, images, jax.random.key(1), samples=2, binarize=binarize)
    assert {*scores, anomaly.LATENT_KNN} == {*anomaly.MODEL_SCORES[kind]}
    x = np.float64(images) / 255
    x = x if binarize == "none" else np.float64(x >= 0.5)
    rebuilt = np.float64(model.decode_mean(params, model.latents(params, np.float32(x))))
    error, energy = (((x - y) ** 2).sum((1, 2, 3)) for y in (rebuilt, 0))
    np.testing.assert_allclose(scores["squared_error"], error, rtol=1e-4)
    np.testing.assert_allclose(scores["scaled_error"], error / np.sqrt(energy), rtol=1e-4)
    np.testing.assert_allclose(scores["relative_error"], error / energy, rtol=1e-4)
    if kind == "vae":
        posterior = model.encode(params, np.float32(x))
        np.testing.assert_allclose(scores["kl"], posterior.kl(), rtol=1e-4)
        np.testing.assert_allclose(scores["negative_elbo"], scores["reconstruction"] + scores["kl"])
    empty = anomaly.model_scores(model, params, 0 * images, jax.random.key(1), samples=2, binarize=binarize)
    assert all(np.isfinite(values).all() for values in empty.values())


def test_detection_counts_pairs_and_averages_precision():
    scores = np.array([0.1, 0.4, 0.4, 0.8, 0.7, 0.2])
    anomalous = np.array([False, True, False, True, False, False])
    pairs = itertools.product(scores[anomalous], scores[~anomalous])
    auroc = np.mean([float(a > b) + 0.5 * (a == b) for a, b in pairs])
    found = anomaly.detection(scores, anomalous)
    # From the top: 0.8 is an anomaly (1 of 1), and 0.4 is one of two images with that score (2 of 4).
    assert found == pytest.approx((auroc, (1 / 1 + 2 / 4) / 2))
    assert anomaly.mean_detection([found, anomaly.Detection(1.0, 1.0)]).auroc == pytest.approx((auroc + 1) / 2)
    with pytest.raises(ValueError, match="both"):
        anomaly.detection(scores, np.zeros(6, bool))


@pytest.mark.parametrize(("number", "rate", "rank"), [(99, 0.01, 99), (99, 0.29, 71), (100, 0.01, 100), (19, 0.1, 18)])
def test_the_threshold_is_the_order_statistic_of_split_conformal_prediction(number, rate, rank):
    scores = RNG.permutation(number).astype(float)
    assert find_threshold(scores, rate) == rank - 1
    # The chance that a new score exceeds the one of that rank is that of a Beta distribution's mean.
    chance = stats.beta(number + 1 - rank, rank).mean()
    assert rate - 1 / (number + 1) < chance <= rate + 1e-12


def test_false_alarms_are_as_rare_as_promised_for_a_skewed_score_and_with_ties():
    number, rate, repeats = 39, 0.1, 4000
    for draw in (lambda size: RNG.lognormal(0, 3, size), lambda size: RNG.integers(0, 30, size).astype(float)):
        calibration, new = draw((repeats, number)), draw(repeats)
        alarms = new > [find_threshold(scores, rate) for scores in calibration]
        assert alarms.mean() <= rate + 5 * np.sqrt(rate * (1 - rate) / repeats)


@pytest.mark.parametrize(
    ("scores", "rate", "message"),
    [
        (np.zeros(98), 0.01, "at least 99 validation images, got 98.\n.*at least 0.0102"),
        (np.zeros(9), 1.0, "between 0 and 1, got 1.0"),
        (np.zeros(9), float("nan"), "between 0 and 1"),
        (np.array([1.0, np.nan]), 0.5, "finite"),
    ],
)
def test_a_threshold_that_can_not_be_is_refused(scores, rate, message):
    with pytest.raises(UsageError, match=message):
        find_threshold(scores, rate)


THRESHOLD = Threshold("squared_error", 1.5, 0.01, 100, 16, 5, 7)


def test_a_threshold_is_read_as_it_was_written(tmp_path):
    assert Threshold.read(tmp_path) is None
    THRESHOLD.write(tmp_path)
    assert Threshold.read(tmp_path) == THRESHOLD


@pytest.mark.parametrize(
    "change",
    [
        *({"threshold": value} for value in (None, "1", float("nan"), True)),
        *({"score": "luck"}, {"false_alarm_rate": 1.0}, {"samples": 0}, {"step": 1.5}, {"more": 1}),
        *(b"", b"[]", b"{}", b"\xff"),
    ],
    ids=str,
)
def test_a_damaged_threshold_is_refused(change, tmp_path):
    content = change if isinstance(change, bytes) else json.dumps(dataclasses.asdict(THRESHOLD) | change).encode()
    (tmp_path / RECORD).write_bytes(content)
    with pytest.raises(UsageError, match=r"(?s)damaged.*calibrate"):
        Threshold.read(tmp_path)


def test_the_extremes_are_chosen_from_both_kinds():
    scores, anomalous = np.array([3.0, 1, 2, 5, 4]), np.array([False, False, False, True, True])
    least, alarms, misses, most = plots_anomaly.choose_extremes(scores, anomalous, 2)
    assert [*least, *alarms] == [1, 2, 0, 2]
    assert [*misses, *most] == [4, 3, 3, 4]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three classes of 6x6 images: a bright third at the top, in the middle or below, under noise."""
    labels = np.arange(420) % 3
    images = RNG.integers(0, 60, (420, 6, 6), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2 * label : 2 * label + 2] += 150
    path = tmp_path_factory.mktemp("anomaly") / "stripes.npz"
    np.savez(path, images=images, labels=labels)
    return path


@pytest.fixture(scope="module")
def finished(data):
    path = data.parent / "study"
    flags = ["--dataset", str(data), "--output", str(path), "--epochs", "10", "--reverse-epochs", "2"]
    flags += ["--false-alarm-rate", "0.1", "--no-compilation-cache", "--protocol", "one_class"]
    return path, flags, study.run(parse(study.Config, flags))


def test_the_study_finds_stripes_and_leaves_report_numbers_figures_and_thresholds(finished):
    path, _, summary = finished
    found = summary["protocols"]["one_class"]
    assert found["mean"][found["score"]]["auroc"] > 0.95
    assert found["mean"]["pixel_knn"]["auroc"] > 0.95
    assert set(found["classes"]) == {"0", "1", "2"}
    report = (path / "report.md").read_text()
    for word in ("Protocol A", "pixel k-NN", "scaled PCA residual", "ink", "mean", "false alarms"):
        assert word in report
    assert "published" not in report  # those are of MNIST
    for figure in ("auroc", "most_least_anomalous"):
        assert (path / "figures" / f"{figure}_one_class.png").exists()
    known = Threshold.read(path / "runs" / "class-1")
    assert known.score == found["score"]
    assert known.threshold == found["classes"]["1"]["alarm"]["threshold"]


def test_the_study_takes_its_runs_over(finished, capsys):
    _, flags, first = finished
    assert study.run(parse(study.Config, flags))["protocols"] == first["protocols"]
    output = capsys.readouterr().out
    assert "epoch" not in output
    assert "restored" in output
    with pytest.raises(UsageError, match="--epochs"):
        study.run(parse(study.Config, [*flags, "--epochs", "3"]))


@pytest.mark.slow
def test_the_study_goes_on_with_the_other_protocol(finished, capsys):
    path, flags, first = finished
    summary = study.run(parse(study.Config, [*flags, "--protocol", "both"]))
    assert summary["protocols"]["one_class"] == first["protocols"]["one_class"]
    assert json.loads((path / "summary.json").read_text())["protocols"] == summary["protocols"]
    assert "without-0 to without-2: epoch 2/2" in capsys.readouterr().out
    assert load_run(path / "runs" / "without-1").config.classes == (0, 2)
    assert Threshold.read(path / "runs" / "without-1").score == summary["protocols"]["reverse"]["score"]
    assert "Reverse protocol" in (path / "report.md").read_text()


@pytest.mark.parametrize(("name", "normal"), [("one_class", (3,)), ("reverse", (1, 7))])
def test_what_each_protocol_takes_for_normal(name, normal):
    assert PROTOCOLS[name].normal(3, (1, 3, 7)) == normal


def read_rows(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def command(arguments):
    main(study.Config, study.run, arguments, COMMANDS)


def test_own_images_are_scored_into_a_csv(finished, data, tmp_path, capsys):
    run = finished[0] / "runs" / "class-0"
    command(["score", str(run), str(data), "--output", str(tmp_path / "mine.csv")])
    output = capsys.readouterr().out
    assert str(tmp_path / "mine.csv") in output
    known = Threshold.read(run)
    rows = read_rows(tmp_path / "mine.csv")
    assert list(rows[0]) == ["index", "scaled_error", "threshold", "anomaly", "label"]
    assert [int(row["index"]) for row in rows] == list(range(420))
    for row in rows:
        assert row["anomaly"] == str(int(float(row["scaled_error"]) > float(row["threshold"])))
        assert float(row["threshold"]) == pytest.approx(known.threshold, rel=1e-8)
    alarms = np.array([row["anomaly"] == "1" for row in rows])
    labels = np.array([int(row["label"]) for row in rows])
    assert f"{alarms.sum()} of 420 images" in output
    assert alarms[labels > 0].mean() > 0.5 > alarms[labels == 0].mean()


def test_calibrating_by_another_score_changes_what_is_scored(finished, data, tmp_path, capsys):
    run = finished[0] / "runs" / "class-2"
    command(["calibrate", str(run), "--score", "latent_knn", "--false-alarm-rate", "0.2"])
    known = Threshold.read(run)
    assert (known.score, known.validation_images) == (
        "latent_knn",
        len(load_dataset(str(data)).validation.of_classes((2,))),
    )
    assert "at most 20.00%" in capsys.readouterr().out
    np.savez(tmp_path / "mine.npz", images=np.zeros((2, 6, 6), np.uint8))
    command(["score", str(run), str(tmp_path / "mine.npz")])
    rows = read_rows(tmp_path / "mine-scores.csv")
    assert list(rows[0]) == ["index", "latent_knn", "threshold", "anomaly"]


@pytest.fixture(scope="module")
def plain(data):
    """An autoencoder of the same images as it is before training, without a threshold."""
    settings = Settings(model="ae", latent_dim=2, hidden_sizes=(4,), dataset=str(data))
    dataset, path = load_dataset(str(data)), data.parent / "ae"
    path.mkdir()
    write_config(path, settings, dataset)
    state = init_state(Recipe(build_model(settings, dataset.image_shape), settings, 100))
    with Checkpoints(path, writing=True) as checkpoints:
        checkpoints.save(Progress(state, zero_metrics(1)), 0.0)
    return path


def test_a_run_without_a_threshold_is_calibrated_first(plain, data, tmp_path, capsys):
    with pytest.raises(SystemExit):
        command(["score", str(plain), str(data), "--output", str(tmp_path / "mine.csv")])
    output = capsys.readouterr()
    assert "no threshold yet" in output.out
    assert "--false-alarm-rate 0.01 needs at least 99" in output.err  # there are 33
    assert "vae_jax calibrate" in output.err  # `score` has no such flag
    command(["calibrate", str(plain), "--false-alarm-rate", "0.1"])
    command(["score", str(plain), str(data), "--output", str(tmp_path / "mine.csv")])
    assert Threshold.read(plain).score == "relative_error"


def test_a_threshold_of_another_step_is_refused(plain, data, tmp_path, capsys):
    dataclasses.replace(THRESHOLD, step=10**6).write(plain)
    with pytest.raises(SystemExit):
        command(["score", str(plain), str(data), "--output", str(tmp_path / "mine.csv")])
    (plain / RECORD).unlink()
    assert "is of step 1000000" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "first", "second"),
    [
        (["--dataset", "unlabelled.npz"], "labels", "score RUN"),
        (["--dataset", "one.npz"], "at least two classes", "1 in train"),
        (["calibrate", "AE", "--score", "kl"], "--score", "relative_error"),
        (["score", "AE", "odd.npz"], "6, 6, 1", "(20, 5, 6)"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_bad_input_ends_in_two_lines_and_exit_code_2_and_writes_nothing(
    arguments, first, second, plain, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    images = np.zeros((20, 6, 6), np.uint8)
    np.savez("unlabelled.npz", images=images)
    np.savez("one.npz", images=images, labels=np.zeros(20, int))
    np.savez("odd.npz", images=images[:, 1:])
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(SystemExit) as stop:
        command([str(plain) if argument == "AE" else argument for argument in arguments])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert len(error.strip().splitlines()) <= 2
    assert first in error
    assert second in error
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert not (plain / RECORD).exists()
