import json
from collections import Counter

import numpy as np
import pytest
from scipy import optimize
from sklearn import manifold

import vae_jax
from experiments import dimensionality
from experiments.dimensionality.study import _settings
from experiments.study import check_alike, data_of
from vae_jax.cli.command import main, parse
from vae_jax.errors import UsageError
from vae_jax.measures.dimensionality import (
    PrincipalComponents,
    knn_accuracy,
    linear_probe_accuracy,
    neighbour_ranks,
    squared_error,
    trustworthiness,
)

RNG = np.random.default_rng(0)
TRAIN, TEST = RNG.normal(size=(60, 3)).astype(np.float32), RNG.normal(size=(40, 3)).astype(np.float32)
TRAIN_LABELS, TEST_LABELS = (np.digitize(z[:, 0] + 0.5 * z[:, 1], [-0.5, 0.5]) + 3 for z in (TRAIN, TEST))
ARRAYS = (TRAIN, TRAIN_LABELS, TEST, TEST_LABELS)
SMALL = ["--dataset", "digits", "--epochs", "1", "--hidden-sizes", "8", "--latent-dims", "2", "--no-compilation-cache"]


def distances(a, b):
    return np.sqrt(np.sum((np.float64(a)[:, None] - np.float64(b)[None]) ** 2, axis=-1))


def brute_force_knn(train, train_labels, test, test_labels, k):
    hits = 0
    for row, label in zip(distances(test, train), test_labels, strict=True):
        votes = Counter(train_labels[np.argsort(row)[:k]].tolist())
        hits += min(votes, key=lambda name: (-votes[name], name)) == label
    return hits / len(test)


def brute_force_trustworthiness(x, z, k):
    """Venna & Kaski (2001), equation 1, by its words."""
    n, cost = len(x), 0
    in_data, in_code = distances(x, x), distances(z, z)
    for i in range(n):
        by_data, by_code = (sorted((j for j in range(n) if j != i), key=lambda j: d[i, j]) for d in (in_data, in_code))
        cost += sum(by_data.index(j) + 1 - k for j in by_code[:k] if j not in by_data[:k])
    return 1 - 2 / (n * k * (2 * n - 3 * k - 1)) * cost


def brute_force_probe(train, train_labels, test, test_labels):
    """Softmax regression with an L2 penalty of 1/2 ||W||^2 on the weights, not on the biases, by BFGS."""
    mean, scale = np.float64(train).mean(0), np.float64(train).std(0)
    classes, y = np.unique(train_labels, return_inverse=True)
    x, dim = (train - mean) / scale, train.shape[1]

    def logits(theta, x):
        theta = theta.reshape(dim + 1, len(classes))
        return x @ theta[:-1] + theta[-1]

    def loss(theta):
        scores = logits(theta, x)
        log_z = np.log(np.exp(scores).sum(1))
        return np.sum(log_z - scores[np.arange(len(y)), y]) + 0.5 * np.sum(theta.reshape(dim + 1, -1)[:-1] ** 2)

    theta = optimize.minimize(loss, np.zeros((dim + 1) * len(classes))).x
    return np.mean(classes[logits(theta, (test - mean) / scale).argmax(1)] == test_labels)


@pytest.mark.parametrize("k", [1, 2, 5, 60])
def test_knn_is_a_vote_of_the_nearest_train_codes(k):
    assert knn_accuracy(*ARRAYS, k) == pytest.approx(brute_force_knn(*ARRAYS, k))


def test_knn_of_the_train_codes_themselves_is_perfect_and_needs_enough_of_them():
    assert knn_accuracy(TRAIN, TRAIN_LABELS, TRAIN, TRAIN_LABELS, 1) == 1
    for k in (0, 61):
        with pytest.raises(ValueError, match="neighbours"):
            knn_accuracy(*ARRAYS, k)


def test_the_probe_is_softmax_regression_on_standardised_codes():
    noisy = RNG.permutation(TRAIN_LABELS)[:20]
    labels = np.concatenate([noisy, TRAIN_LABELS[20:]])
    found = linear_probe_accuracy(TRAIN, labels, TEST, TEST_LABELS)
    assert found == pytest.approx(brute_force_probe(TRAIN, labels, TEST, TEST_LABELS))
    moved = [(z * np.array([1e-3, 50, 1]) + 7).astype(np.float32) for z in (TRAIN, TEST)]
    assert linear_probe_accuracy(moved[0], labels, moved[1], TEST_LABELS) == pytest.approx(found)
    with pytest.raises(ValueError, match="two classes"):
        linear_probe_accuracy(TRAIN, np.zeros(60, int), TEST, TEST_LABELS)


def test_ranks_count_the_nearer_points():
    ranks = neighbour_ranks(TRAIN)
    for i, row in enumerate(distances(TRAIN, TRAIN)):
        row[i] = -1
        np.testing.assert_array_equal(ranks[i], [np.sum(row < distance) for distance in row])


def test_a_point_is_nearest_to_itself_also_among_duplicates_and_in_every_block(monkeypatch):
    points = np.repeat(TRAIN[:5], 40, axis=0)
    ranks = neighbour_ranks(points)
    np.testing.assert_array_equal(np.diag(ranks), 0)
    np.testing.assert_array_equal(np.sort(ranks, axis=1), np.tile(np.arange(200), (200, 1)))
    monkeypatch.setattr("vae_jax.measures.dimensionality._WORKING_MEMORY", 0.01)
    np.testing.assert_array_equal(np.diag(neighbour_ranks(points)), 0)
    expected = np.argsort(np.argsort(distances(TRAIN[:1], TRAIN)[0]))
    np.testing.assert_array_equal(neighbour_ranks(TRAIN)[0], expected)
    with pytest.raises(ValueError, match="65,535"):
        neighbour_ranks(np.zeros((65_536, 1), np.float32))


@pytest.mark.parametrize("k", [1, 5, 12])
def test_trustworthiness_is_that_of_venna_and_kaski_and_of_scikit_learn(k):
    x = RNG.normal(size=(50, 8)).astype(np.float32)
    z = x[:, :2] + RNG.normal(size=(50, 2)).astype(np.float32)
    found = trustworthiness(neighbour_ranks(x), z, k)
    assert found == pytest.approx(brute_force_trustworthiness(x, z, k), abs=1e-12)
    assert found == pytest.approx(manifold.trustworthiness(x, z, n_neighbors=k), abs=1e-12)


def test_trustworthiness_is_1_where_all_neighbours_are_kept_and_needs_enough_points():
    ranks = neighbour_ranks(TRAIN)
    assert trustworthiness(ranks, 3 * TRAIN + 1) == 1
    assert trustworthiness(ranks, RNG.permutation(TRAIN)) < 0.7
    for k in (0, 30):
        with pytest.raises(ValueError, match="neighbours"):
            trustworthiness(ranks, TRAIN, k)


def test_squared_error_sums_over_pixels_and_averages_over_images():
    a, b = RNG.uniform(size=(2, 3, 4, 5, 1)).astype(np.float32)
    wanted = np.mean([np.linalg.norm(x.astype(np.float64) - y) ** 2 for x, y in zip(a, b, strict=True)])
    assert squared_error(a, b) == pytest.approx(wanted)


@pytest.mark.parametrize("most_exact", [6, 5])  # by the covariance matrix, and for more features than that
def test_principal_components_are_those_of_the_singular_value_decomposition(most_exact, monkeypatch):
    monkeypatch.setattr("vae_jax.measures.dimensionality._MOST_EXACT", most_exact)
    points = RNG.uniform(size=(30, 6)).astype(np.float32)
    centred = points - points.mean(0, dtype=np.float64)
    _, values, directions = np.linalg.svd(centred)
    for dim in (1, 2, 4):
        pca = PrincipalComponents.fit(points, 4).first(dim)
        codes = pca.encode(points)
        np.testing.assert_allclose(np.abs(codes), np.abs(centred @ directions[:dim].T), atol=1e-5)
        np.testing.assert_allclose(pca.variances, values[:dim] ** 2 / 29, rtol=1e-4)
        error = np.sum((points - pca.decode(codes)) ** 2)
        assert error == pytest.approx(np.sum(values[dim:] ** 2), rel=1e-4)
    assert len(PrincipalComponents.fit(points, 100).components) == 6


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    path = tmp_path_factory.mktemp("dimensionality") / "study"
    return path, dimensionality.run(parse(dimensionality.Config, [*SMALL, "--output", str(path)]))


def test_the_study_writes_its_report_numbers_and_figures(study):
    path, summary = study
    assert {p.name for p in path.iterdir()} == {
        *("study.json", "environment.json", "summary.json", "report.md", "figures", "runs")
    }
    assert [(row["method"], row["latent_dim"]) for row in summary["rows"]] == [("AE", 2), ("VAE", 2), ("PCA", 2)]
    numbers = {"knn_1", "knn_5", "linear_probe", "trustworthiness", "squared_error"}
    assert all(numbers <= set(row) for row in summary["rows"])
    report = (path / "report.md").read_text()
    assert "| PCA " in report
    assert "1,295 train images" in report
    assert "published" not in report  # other data than the published numbers'


def test_by_default_the_plane_trains_longer_and_its_decoder_sees_waves(digits):
    found = [_settings(dimensionality.Config(), "ae", dim, digits) for dim in (2, 8)]
    assert [(s.epochs, s.fourier_features) for s in found] == [(60, 64), (20, 0)]
    given = _settings(dimensionality.Config(epochs=3, fourier_features=0), "vae", 2, digits)
    assert (given.epochs, given.fourier_features) == (3, 0)


def test_finished_runs_are_evaluated_as_they_are(study, tmp_path, capsys):
    path, summary = study
    main(
        dimensionality.Config,
        dimensionality.run,
        ["--run", str(path / "runs" / "vae-z2"), "--output", str(tmp_path / "out"), "--trust-images", "100"],
    )
    again = json.loads((tmp_path / "out" / "summary.json").read_text())["rows"]
    assert [row["method"] for row in again] == ["VAE", "PCA"]
    assert again[0]["knn_5"] == summary["rows"][1]["knn_5"]
    assert "first 100 test images" in capsys.readouterr().out
    assert not (tmp_path / "out" / "runs").exists()


@pytest.mark.slow
def test_data_without_labels_has_no_accuracies(tmp_path, capsys):
    np.savez(tmp_path / "mine.npz", images=RNG.integers(0, 256, (60, 4, 5, 3), dtype=np.uint8))
    flags = ["--dataset", str(tmp_path / "mine.npz"), *SMALL[2:], "--output", str(tmp_path / "out")]
    summary = dimensionality.run(parse(dimensionality.Config, flags))
    assert all(set(row) <= {"method", "latent_dim", "squared_error", "run"} for row in summary["rows"])
    output = capsys.readouterr().out
    assert "no accuracy" in output
    assert "more than 24 test images" in output
    assert not (tmp_path / "out" / "figures" / "accuracy.png").exists()


def test_runs_of_different_data_are_refused(study, tmp_path):
    run = vae_jax.load_run(study[0] / "runs" / "ae-z2")
    other = run._replace(dataset={**run.dataset, "sha256": "0", "name": "other"})
    with pytest.raises(UsageError, match=r"ae-z2 has another data than .*: other \(0\) and digits"):
        check_alike([run, other], {"data": data_of})
