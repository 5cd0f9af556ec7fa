import jax
import numpy as np
import pytest
from scipy import linalg

from vae_jax.config import Settings
from vae_jax.measures.features import fit_features
from vae_jax.measures.latent_space import (
    decoder_gain,
    distance_from_prior,
    excess_flips,
    frechet_distance,
    nearest_distance,
    path_stretch,
    robust_spread,
    sample_quality,
)
from vae_jax.models.autoencoders import build_model

RNG = np.random.default_rng(0)


def test_decoder_gain_of_a_linear_decoder_is_that_of_its_matrix():
    model = build_model(Settings(hidden_sizes=(), latent_dim=2, likelihood="gaussian"), (3, 3, 1))
    params = model.init(jax.random.key(0))
    weight = np.float64(params["decoder"]["Dense_0"]["kernel"])
    z = np.float32(RNG.normal(size=(130, 2)))
    np.testing.assert_allclose(decoder_gain(model, params, z), np.full(130, np.linalg.norm(weight, 2)), rtol=1e-5)
    unit = np.array([0.1, 3.0])
    expected = np.linalg.norm(unit[:, None] * weight, 2)
    np.testing.assert_allclose(decoder_gain(model, params, z, unit), np.full(130, expected), rtol=1e-5)


def test_robust_spread_is_the_standard_deviation_of_a_normal_whatever_lies_far_out():
    z = RNG.normal(size=(20_000, 2)) * [0.5, 3.0]
    np.testing.assert_allclose(robust_spread(z), [0.5, 3.0], rtol=0.03)
    z[:100] = 1e6
    np.testing.assert_allclose(robust_spread(z), [0.5, 3.0], rtol=0.03)


def test_path_stretch_of_known_paths():
    angle = np.linspace(0, np.pi, 1001)
    half_circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    line = np.linspace(0, 1, 1001)[:, None] * np.array([[3.0, 4.0]])
    closed = np.concatenate([line[:501], line[499::-1]])
    stretch = path_stretch(np.stack([half_circle, line, closed]))
    np.testing.assert_allclose(stretch, [np.pi / 2, 1, 1], rtol=1e-5)


def test_excess_flips_by_hand():
    paths = np.array([[0, 0, 1, 1], [0, 1, 0, 1], [2, 3, 2, 2], [4, 4, 4, 4]])
    assert excess_flips(paths) == (1.0, 4 / 6)
    assert excess_flips(paths[3:]) == (0.0, 0.0)


def test_nearest_distance_is_brute_force():
    a, b = RNG.normal(size=(20, 3)), RNG.normal(size=(30, 3))
    expected = np.linalg.norm(a[:, None] - b[None], axis=-1).min(axis=1)
    np.testing.assert_allclose(nearest_distance(a, b), expected)


def test_quality_of_real_data_is_95_percent_and_of_noise_nothing():
    train, test, more = RNG.normal(size=(3000, 2)), RNG.normal(size=(1000, 2)), RNG.normal(size=(1000, 2))
    good = sample_quality(more, train, test)
    assert good.precision == pytest.approx(0.95, abs=0.025)
    assert good.recall == pytest.approx(0.95, abs=0.025)
    far = sample_quality(more + 50, train, test)
    assert (far.precision, far.recall) == (0, 0)
    assert far.frechet == pytest.approx(5000, rel=0.02)
    point = sample_quality(np.zeros((1000, 2)), train, test)
    assert point.precision == 1
    assert point.recall < 0.1


def test_frechet_distance_is_the_textbook_formula():
    a, b = RNG.normal(size=(50, 4)) @ RNG.normal(size=(4, 4)), RNG.normal(size=(60, 4)) + 1
    s, t = np.cov(a.T), np.cov(b.T)
    shift = a.mean(0) - b.mean(0)
    expected = shift @ shift + np.trace(s + t - 2 * np.real(linalg.sqrtm(s @ t)))
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("mean", "sigma", "latent"), [(0, 1, 1), (0, 0.5, 3), (2, 1, 2), (1, 3, 2), (0, 0, 4)])
def test_distance_from_the_prior_of_gaussians(mean, sigma, latent):
    z = mean + sigma * RNG.normal(size=(20_000, latent))
    expected = np.sqrt(mean**2 + (sigma - 1) ** 2)  # |m|^2 / latent = mean^2
    assert distance_from_prior(z) == pytest.approx(expected, abs=0.06 if expected else 0.02, rel=0.06)


def test_features_separate_the_classes_and_repeat(digits):
    images, labels = digits.train.images, digits.train.labels
    features = fit_features(images, labels, sizes=(64, 32))
    again = fit_features(images, labels, sizes=(64, 32))
    np.testing.assert_array_equal(features.layers[1][0], again.layers[1][0])
    test = features(digits.test.images)
    nearest = np.linalg.norm(test[:, None] - features(images)[None], axis=-1).argmin(axis=1)
    assert np.mean(labels[nearest] == digits.test.labels) > 0.9
    np.testing.assert_allclose(np.linalg.norm(test, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(features(digits.test.images / np.float32(255)), test, atol=1e-5)


def test_without_labels_features_keep_distances_of_the_principal_plane(digits):
    images = digits.train.images
    features = fit_features(images, None, sizes=(64,))
    rows = images.reshape(len(images), -1) / 255.0
    a, b = features(images[:20]), features(images[20:40])
    np.testing.assert_allclose(
        np.linalg.norm(a - b, axis=1), np.linalg.norm(rows[:20] - rows[20:40], axis=1), rtol=1e-4
    )
