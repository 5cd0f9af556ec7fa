import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from vae_jax.config import Settings
from vae_jax.models.autoencoders import build_model
from vae_jax.models.distributions import DiagonalGaussian
from vae_jax.models.evaluation import active_units, encode_images, evaluate, importance_weighted_nll

KEY = jax.random.key(0)
SHAPE = (2, 3, 1)
IMAGES = np.random.default_rng(0).integers(0, 256, (40, *SHAPE), dtype=np.uint8)


def model_and_params(**changes):
    settings = {"hidden_sizes": (), "latent_dim": 2, "likelihood": "gaussian", "sigma": 0.3, **changes}
    model = build_model(Settings(**settings), SHAPE)
    return model, model.init(jax.random.key(3))


@pytest.fixture(scope="module")
def linear():
    """A linear decoder with Gaussian pixels, whose evidence has a closed form; the encoder is too wide."""
    model, params = model_and_params()
    weight = np.random.default_rng(1).normal(size=(2, 6)) * 0.3
    bias = np.full(6, 0.5)
    params["decoder"]["Dense_0"] = {"kernel": jnp.float32(weight), "bias": jnp.float32(bias)}
    mean, covariance = oracles.linear_gaussian_posterior(bias, weight.T, bias, 0.3)
    gain = covariance @ weight / 0.3**2
    raw = 15 * np.arctanh(np.log(2 * np.diag(covariance)) / 15)
    kernel = np.concatenate([gain.T, np.zeros((6, 2))], axis=1)
    params["encoder"]["Dense_0"] = {
        "kernel": jnp.float32(kernel),
        "bias": jnp.float32(np.concatenate([mean - gain @ bias, raw])),
    }
    x = IMAGES.reshape(40, 6) / 255.0
    evidence = oracles.linear_gaussian_log_evidence(x, weight.T, bias, 0.3)
    return model, params, float(evidence.mean())


def test_elbo_is_below_the_exact_evidence_and_the_importance_weighted_bound_reaches_it(linear):
    model, params, evidence = linear
    elbo = -evaluate(model, params, IMAGES, KEY, samples=200)["loss"]
    bounds = [-importance_weighted_nll(model, params, IMAGES, KEY, samples=k) for k in (1, 8, 2000)]
    assert elbo < evidence - 0.1
    assert bounds == sorted(bounds)
    assert bounds[0] == pytest.approx(elbo, abs=0.3)
    assert bounds[-1] == pytest.approx(evidence, abs=0.01)


def test_iwae_with_one_sample_is_the_elbo_of_the_same_draw(linear):
    model, params, _ = linear
    # One-sample bound = ELBO with the KL of the draw in place of its closed form.
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.split(jax.random.fold_in(KEY, i))[1], 0))(jnp.arange(40))
    x = jnp.float32(IMAGES) / 255
    posterior = model.encode(params, x)
    z = posterior.sample(keys)
    prior = DiagonalGaussian(jnp.zeros((40, 2)), jnp.zeros((40, 2)))
    elbo = model.likelihood.log_prob(model.decode(params, z), x) + prior.log_prob(z) - posterior.log_prob(z)
    ours = importance_weighted_nll(model, params, IMAGES, KEY, samples=1)
    assert ours == pytest.approx(-float(elbo.mean()), rel=1e-5)
    # Equal in expectation to the bound with the closed form.
    draws = [
        importance_weighted_nll(model, params, IMAGES, jax.random.key(i), samples=1)
        - evaluate(model, params, IMAGES, jax.random.key(i), samples=1)["loss"]
        for i in range(40)
    ]
    assert abs(np.mean(draws)) < 5 * np.std(draws) / np.sqrt(len(draws))


@pytest.mark.parametrize("binarize", ["none", "threshold", "dynamic"])
def test_the_batch_size_does_not_change_the_result(monkeypatch, binarize):
    model, params = model_and_params(likelihood="bernoulli")
    results = []
    for size in (500, 7):
        monkeypatch.setattr("vae_jax.models.evaluation.ROWS", size)
        results.append(evaluate(model, params, IMAGES, KEY, samples=2, binarize=binarize))
    assert results[0] == pytest.approx(results[1], rel=1e-6)
    assert results[0]["loss"] == pytest.approx(results[0]["reconstruction"] + results[0]["kl"])


def test_autoencoder_is_evaluated_without_kl_and_encoded_without_variance():
    model, params = model_and_params(model="ae")
    result = evaluate(model, params, IMAGES, KEY)
    assert result["kl"] == 0
    assert result["loss"] == result["reconstruction"]
    codes, logvars = encode_images(model, params, IMAGES, KEY)
    assert logvars is None
    np.testing.assert_allclose(codes, model.encode(params, jnp.float32(IMAGES) / 255), rtol=1e-5, atol=1e-6)


def test_encode_images_gives_the_posterior_in_order():
    model, params = model_and_params()
    means, logvars = encode_images(model, params, IMAGES, KEY)
    posterior = model.encode(params, jnp.float32(IMAGES) / 255)
    np.testing.assert_allclose(means, posterior.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(logvars, posterior.logvar, rtol=1e-5, atol=1e-6)


def test_active_units_are_those_whose_means_vary():
    means = np.random.default_rng(0).normal(size=(1000, 3)) * [1.0, 0.05, 0.2]
    np.testing.assert_array_equal(active_units(np.float32(means)), [True, False, True])
