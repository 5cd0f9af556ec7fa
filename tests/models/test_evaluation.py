import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from vae_jax.config import Settings
from vae_jax.errors import UsageError
from vae_jax.models import evaluation
from vae_jax.models.autoencoders import build_model
from vae_jax.models.evaluation import decode_latents, encode_images, evaluate, image_losses, importance_weighted_nll

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
    prior = oracles.gaussian_log_prob(z, 0.0, 1.0).sum(axis=1)
    elbo = model.likelihood.log_prob(model.decode(params, z), x) + jnp.float32(prior) - posterior.log_prob(z)
    ours = importance_weighted_nll(model, params, IMAGES, KEY, samples=1)
    assert ours == pytest.approx(-float(elbo.mean()), rel=1e-5)


def test_what_is_no_probability_has_no_importance_weighted_bound():
    for changes in ({"model": "ae"}, {"model": "ae", "likelihood": "squared_error"}):
        model, params = model_and_params(sigma=0.1, **changes)
        with pytest.raises(UsageError, match="which give no probability of an image"):
            importance_weighted_nll(model, params, IMAGES, KEY, samples=2)


def test_a_key_is_one_key_of_either_kind():
    model, params = model_and_params()
    old = jax.random.key_data(KEY)
    assert evaluate(model, params, IMAGES, old) == evaluate(model, params, IMAGES, KEY)
    for key in (0, None, jax.random.split(KEY)):
        with pytest.raises(UsageError, match="key must be one key"):
            evaluate(model, params, IMAGES, key)


@pytest.mark.parametrize("binarize", ["none", "threshold", "dynamic"])
def test_the_batch_size_does_not_change_the_result(monkeypatch, binarize):
    model, params = model_and_params(likelihood="learned_gaussian", sigma=0.1)
    results = []
    for size in (500, 7):
        monkeypatch.setattr("vae_jax.models.autoencoders.ROWS", size)
        results.append(evaluate(model, params, IMAGES, KEY, samples=2, binarize=binarize))
    assert results[0] == pytest.approx(results[1], rel=1e-6)
    assert results[0]["loss"] == pytest.approx(results[0]["reconstruction"] + results[0]["kl"])


@pytest.mark.parametrize("kind", ["vae", "ae"])
def test_images_are_encoded_in_order_and_an_autoencoder_has_no_variance_and_no_kl(kind):
    model, params = model_and_params(model=kind)
    means, logvars = encode_images(model, params, IMAGES, KEY)
    posterior = model.encode(params, jnp.float32(IMAGES) / 255)
    np.testing.assert_allclose(means, posterior.mean, rtol=1e-5, atol=1e-6)
    result = evaluate(model, params, IMAGES, KEY, samples=2)
    if kind == "vae":
        np.testing.assert_allclose(logvars, posterior.logvar, rtol=1e-5, atol=1e-6)
        assert result["kl"] == pytest.approx(float(posterior.kl().mean()), rel=1e-5)
    else:
        assert logvars is None
        assert result["kl"] == 0
        assert result["loss"] == result["reconstruction"]


def test_noise_is_seen_by_the_encoder_only_and_another_level_is_no_new_program(compilations):
    model, params = model_and_params(model="ae")
    clean = evaluate(model, params, IMAGES, KEY)
    found = []
    for level in (0.0, 0.2, 0.4):
        found.append(evaluate(model, params, IMAGES, KEY, corruption="gaussian", corruption_level=level)["loss"])
        if not level:
            compilations.clear()
    assert not compilations
    assert found[0] == pytest.approx(clean["loss"], rel=1e-6)
    assert len(set(found)) == 3


@pytest.mark.parametrize("place", [np.asarray, jnp.asarray], ids=["host", "device"])
def test_another_number_of_images_is_no_new_program(place, monkeypatch):
    monkeypatch.setattr("vae_jax.models.autoencoders.ROWS", 4)
    monkeypatch.setattr(evaluation, "BATCHES", 3)
    model, params = model_and_params()
    assert model.rows == 4
    each = image_losses(model, params, place(IMAGES), KEY, samples=2)
    # Fewer than a batch are filled up to a power of two; more, whatever their number, go in pieces of three batches.
    programs = [evaluation._some_batches._cache_size()]
    for number in (5, 12, 13, 39):
        some = image_losses(model, params, place(IMAGES[:number]), KEY, samples=2)
        programs.append(evaluation._some_batches._cache_size())
        for values, of_all in zip(some, each, strict=True):
            np.testing.assert_allclose(values, of_all[:number], rtol=1e-6)
    assert programs == [programs[0]] * 5
    for number in (3, 4, 1):
        np.testing.assert_allclose(
            image_losses(model, params, place(IMAGES[:number]), KEY, samples=2)[2], each.bound[:number], rtol=1e-6
        )
    assert evaluation._some_batches._cache_size() == programs[0] + 2


def test_latents_are_decoded_as_at_once_by_one_program_whatever_their_number(compilations):
    model, params = model_and_params()
    z = np.random.default_rng(0).normal(size=(501, model.latent_dim)).astype(np.float32)
    decode_latents(model, params, z[:3])
    compilations.clear()
    for number in (1, 501):
        found = decode_latents(model, params, z[:number])
        assert not compilations
        np.testing.assert_allclose(found, model.decode_mean(params, z[:number]), atol=1e-6)
        compilations.clear()
