import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from vae_jax.config import Settings, objective_name
from vae_jax.errors import UsageError
from vae_jax.models.autoencoders import build_model
from vae_jax.models.correlation import Sample, TotalCorrelation, decomposition
from vae_jax.models.inputs import Inputs
from vae_jax.models.likelihoods import SquaredError
from vae_jax.models.objectives import (
    ELBO,
    Sparse,
    _largest_by_bits,
    importance_weighted_bound,
    keep_largest,
    kl_penalty,
    l1_penalty,
)
from vae_jax.models.priors import StandardNormal
from vae_jax.registry import OBJECTIVES
from vae_jax.training.recipe import Recipe

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 3, 3, 1), dtype=np.uint8)
WEIGHTS = jnp.float32([1, 1, 1, 1, 1, 0])
BATCH = Inputs().batch(jnp.asarray(IMAGES), jnp.arange(6), jax.random.key(2), WEIGHTS)


def built(**changes):
    model = build_model(Settings(**changes | {"hidden_sizes": ()}), (3, 3, 1))
    return model, model.init(jax.random.key(1))


def terms_of(objective, model, params, step=0.0):
    statistics = objective.statistics(model, params, BATCH)
    assert (statistics is None) != objective.couples
    return objective(model, params, BATCH, jnp.float32(step), statistics)


def kl_oracle(mean, target):
    mean = np.float64(mean)
    return np.sum(target * np.log(target / mean) + (1 - target) * np.log((1 - target) / (1 - mean)))


@pytest.mark.parametrize(
    ("step", "warmup", "expected"), [(0, 0, 2.0), (0, 10, 0.0), (5, 10, 1.0), (10, 10, 2.0), (99, 10, 2.0)]
)
def test_the_weight_of_the_kl_rises_linearly_to_beta(step, warmup, expected):
    objective = ELBO(2.0, warmup)
    assert float(objective.weight(jnp.float32(step))) == pytest.approx(expected)
    terms = terms_of(objective, *built(), step)
    np.testing.assert_allclose(terms.objective, terms.reconstruction + expected * terms.kl, rtol=1e-5)


def test_free_bits_have_the_mean_of_the_paper():
    # Its gradient is tested with that of a step in chunks, in test_training.
    model, params = built(latent_dim=5)
    terms, plain = (terms_of(ELBO(2.0, 0, bits), model, params) for bits in (0.35, 0.0))
    each = np.asarray(model.encode(params, BATCH.x).kl_per_dimension()[:5], np.float64).mean(axis=0)
    assert each.min() < 0.35 < each.max()
    penalty = np.mean((terms.objective - terms.reconstruction)[:5])
    np.testing.assert_allclose(penalty, 2 * np.maximum(0.35, each).sum(), rtol=1e-5)
    np.testing.assert_array_equal(terms.kl, plain.kl)


class Other(StandardNormal):
    per_dimension = False


@pytest.mark.parametrize(
    ("own", "changes", "given", "words"),
    [
        ({"prior": Other()}, {"free_bits": 0.1}, None, "--free-bits must be 0 for the prior Other, .* got 0.1"),
        ({"prior": Other()}, {}, ELBO(1.0, 0, 0.2), "--free-bits must be 0 for the prior Other, .* got 0.2"),
        (
            {"likelihood": SquaredError()},
            {"iwae_samples": 5, "likelihood": "gaussian"},
            None,
            "--iwae-samples must be 0 for VAE and SquaredError",
        ),
    ],
    ids=["free bits of the settings", "free bits of an objective", "IWAE without a likelihood"],
)
def test_a_model_that_a_setting_has_no_meaning_for_is_refused_before_anything_is_trained(own, changes, given, words):
    settings = Settings(hidden_sizes=(), **changes)
    model = build_model(settings, (3, 3, 1))
    Recipe(model, settings, 6, given)
    with pytest.raises(UsageError, match=words) as error:
        Recipe(dataclasses.replace(model, **own), settings, 6, given)
    assert len(str(error.value).splitlines()) == 2
    if given:  # and by an objective that is used alone
        with pytest.raises(UsageError, match=words):
            terms_of(given, dataclasses.replace(model, **own), model.init(jax.random.key(1)))


def test_a_sparse_penalty_that_is_none_is_refused():
    with pytest.raises(UsageError, match="l1 or kl, got 'topk'"):
        Sparse("topk")


@pytest.mark.parametrize(
    ("changes", "penalty"),
    [
        ({"sparsity": "l1", "code_activation": "relu"}, lambda code: np.abs(code).sum(axis=1)),
        (
            {"sparsity": "kl", "code_activation": "sigmoid", "sparsity_target": 0.25},
            lambda code: np.full(6, kl_oracle(code[:5].mean(axis=0), 0.25)),
        ),
        ({"sparsity": "topk", "sparsity_target": 0.25}, lambda code: np.zeros(6)),
    ],
    ids=["l1", "kl", "topk"],
)
def test_the_objective_of_a_sparse_code_is_reconstruction_plus_penalty(changes, penalty):
    settings = Settings(model="ae", latent_dim=8, **changes)
    if settings.sparsity != "topk":
        settings = dataclasses.replace(settings, sparsity_weight=0.3)
    model, params = built(**vars(settings))
    terms = terms_of(OBJECTIVES.make(objective_name(settings), settings), model, params)
    code = np.asarray(model.encode(params, BATCH.x).mean)
    np.testing.assert_allclose(terms.objective - terms.reconstruction, 0.3 * penalty(code), rtol=1e-3, atol=1e-4)
    assert settings.sparsity != "topk" or (np.count_nonzero(code, axis=1) == 2).all()


def test_penalties_are_the_textbook_formulas():
    code = np.float32(RNG.uniform(0.01, 0.99, size=(6, 4)))
    np.testing.assert_allclose(l1_penalty(jnp.float32(code - 0.5)), np.abs(code - 0.5).sum(axis=1), rtol=1e-6)
    np.testing.assert_allclose(kl_penalty(jnp.asarray(code[0]), 0.1), kl_oracle(code[0], 0.1), rtol=1e-5)
    np.testing.assert_allclose(kl_penalty(jnp.full(4, 0.1), 0.1), 0, atol=1e-6)
    for saturated in (0.0, 1.0):
        value_and_gradient = jax.value_and_grad(kl_penalty)(jnp.full(4, saturated), 0.05)
        assert all(np.isfinite(part).all() for part in value_and_gradient)


@pytest.mark.parametrize(("share", "kept"), [(0.01, 1), (0.5, 2), (0.74, 3), (0.99, 4)])
def test_keep_largest_keeps_the_largest_by_magnitude(share, kept):
    code = np.float32(RNG.normal(size=(5, 4)))
    ranks = np.argsort(np.argsort(-np.abs(code), axis=1), axis=1)
    np.testing.assert_array_equal(keep_largest(jnp.asarray(code), share), np.where(ranks < kept, code, 0))


@pytest.mark.parametrize("rank", [1, 2, 7, 33])
@pytest.mark.parametrize("decimals", [None, 1, 0], ids=["any", "ties", "mostly ties"])
def test_the_value_of_a_rank_found_by_bits_is_that_of_top_k(rank, decimals):
    size = np.abs(RNG.normal(size=(9, 33)))
    size = size * 10.0 ** RNG.integers(-30, 30, size.shape) if decimals is None else np.round(size, decimals)
    size = jnp.float32(size).at[0].set(0.0)
    np.testing.assert_array_equal(_largest_by_bits(size, rank), jax.lax.top_k(size, rank)[0][:, -1:])


def test_importance_weighted_bound_is_log_mean_exp_and_survives_extremes():
    log_weights = RNG.normal(size=(7, 3)) * 3 - 100
    expected = np.log(np.mean(np.exp(log_weights + 100), axis=0)) - 100
    np.testing.assert_allclose(importance_weighted_bound(jnp.float32(log_weights)), expected, rtol=1e-5)
    assert np.isfinite(importance_weighted_bound(jnp.float32([[-1e4], [1e4]]))).all()
    np.testing.assert_array_equal(importance_weighted_bound(jnp.float32([[-3.0, 2.0]])), [-3.0, 2.0])


def drawn(covariance, number, sigma):
    """Latents near means of which both together are normal with this covariance, as float32."""
    rng = np.random.default_rng(4)
    means = rng.multivariate_normal(np.zeros(len(covariance)), covariance - sigma**2 * np.eye(len(covariance)), number)
    z = means + sigma * rng.normal(size=means.shape)
    return Sample(*map(jnp.float32, (z, means, np.full(means.shape, 2 * np.log(sigma)))))


def test_the_kl_is_information_and_total_correlation_and_what_single_dimensions_cost():
    sample = drawn(np.diag([1.0, 2.0, 0.3]) + 0.2, 7, 0.4)
    sigmas = np.exp(np.float64(sample.logvar) / 2)
    weights = jnp.float32([1, 1, 1, 1, 1, 1, 0])
    found = decomposition(sample, weights)
    for images in (1, 100):  # the paper's estimates of a data set of that size are as many nats away
        joint, dimensions = oracles.minibatch_weighted(*(part[:6] for part in (sample.z, sample.mean, sigmas)), images)
        away = np.log(images)
        own = oracles.gaussian_log_prob(sample.z, sample.mean, sigmas).sum(axis=1)
        prior = oracles.gaussian_log_prob(sample.z, 0, 1).sum(axis=1)
        for part, expected in (
            (found.information, own[:6] - joint - away),
            (found.correlation, joint - dimensions.sum(axis=1) - 2 * away),
            (found.dimensions, dimensions.sum(axis=1) + 3 * away - prior[:6]),
        ):
            np.testing.assert_allclose(part[:6], expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(sum(found)[:6], (own - prior)[:6], rtol=1e-4, atol=1e-4)


def test_the_total_correlation_of_a_gaussian_is_half_the_log_determinant_of_its_correlations():
    covariance = np.array([[1.5, 0.9], [0.9, 0.8]])
    exact = -0.5 * np.log(1 - 0.9**2 / (1.5 * 0.8))
    sample = drawn(covariance, 1500, 0.4)
    each = np.asarray(decomposition(sample, jnp.ones(1500)).correlation, np.float64)
    # Five standard errors of the mean, and the bias of a mixture of 1,500 components.
    assert each.mean() == pytest.approx(exact, abs=5 * each.std() / np.sqrt(1500) + 0.01)
    apart = np.asarray(decomposition(drawn(np.diag([1.5, 0.8]), 1500, 0.4), jnp.ones(1500)).correlation, np.float64)
    assert abs(apart.mean()) < 5 * apart.std() / np.sqrt(1500) + 0.01 < exact / 3


def test_a_total_correlation_of_weight_1_is_the_elbo_and_needs_several_independent_dimensions():
    model, params = built(latent_dim=3)
    terms, plain = (terms_of(objective, model, params) for objective in (TotalCorrelation(1.0), ELBO()))
    for a, b in zip(terms, plain, strict=True):
        np.testing.assert_allclose(a[:5], b[:5], rtol=1e-6)
    for changes in ({"latent_dim": 1}, {"model": "ae"}, {"latent_dim": 3, "posterior": "householder"}):
        with pytest.raises(UsageError, match=r"--objective tc needs --model vae.*\ngot "):
            TotalCorrelation().check(build_model(Settings(**changes), (3, 3, 1)))
