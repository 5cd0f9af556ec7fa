import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from vae_jax.config import Settings
from vae_jax.errors import UsageError
from vae_jax.models.autoencoders import Autoencoder, VariationalAutoencoder, build_model, count_parameters

KEY = jax.random.key(0)
X = jax.random.uniform(jax.random.key(1), (5, 6, 5, 1))
KEYS = jax.random.split(jax.random.key(2), 5)


def small(**changes):
    settings = Settings(**{"hidden_sizes": (7,), "latent_dim": 3, **changes})
    model = build_model(settings, (6, 5, 1))
    return model, model.init(KEY)


@pytest.mark.parametrize("arch", ["mlp", "conv"])
@pytest.mark.parametrize("likelihood", ["bernoulli", "continuous_bernoulli", "gaussian", "learned_gaussian"])
def test_vae_terms_are_finite_and_add_up(arch, likelihood):
    model, params = small(arch=arch, likelihood=likelihood)

    @jax.jit
    def value_and_gradient(params):
        def total(params):
            terms = model.loss_terms(params, X, KEYS, 0.5)
            return jnp.sum(terms.objective), terms

        return jax.value_and_grad(total, has_aux=True)(params)

    (_, terms), gradient = value_and_gradient(params)
    np.testing.assert_allclose(terms.objective, terms.reconstruction + 0.5 * terms.kl, rtol=1e-5)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(gradient["encoder"]))


@pytest.mark.parametrize("likelihood", ["bernoulli", "squared_error"])
def test_autoencoder_loss_is_that_of_its_reconstruction(likelihood):
    model, params = small(model="ae", likelihood=likelihood)
    assert isinstance(model, Autoencoder)
    terms = model.loss_terms(params, X, KEYS)
    logits = np.asarray(model.decode(params, model.encode(params, X)), np.float64)
    if likelihood == "squared_error":
        expected = ((np.asarray(X) - logits) ** 2).sum((1, 2, 3))
    else:
        expected = -oracles.bernoulli_log_prob(np.asarray(X), logits).sum((1, 2, 3))
    np.testing.assert_allclose(terms.objective, expected, rtol=1e-5)
    assert float(terms.kl.sum()) == 0


def test_latents_are_posterior_means_or_codes_and_generate_has_the_images_shape():
    model, params = small()
    np.testing.assert_array_equal(model.latents(params, X), model.encode(params, X).mean)
    assert model.generate(params, KEY, 4).shape == (4, 6, 5, 1)
    ae, params = small(model="ae")
    assert ae.generate(params, KEY, 4, ae.latents(params, X)).shape == (4, 6, 5, 1)


def test_autoencoder_generates_from_the_gaussian_of_its_codes():
    ae, params = small(model="ae", hidden_sizes=(), latent_dim=1, likelihood="squared_error")
    codes = 3 + 0.5 * jax.random.normal(KEY, (500, 1))
    # The decoder is linear here, so the images' mean and spread are those of the latents.
    weight, bias = params["decoder"]["Dense_0"]["kernel"][0], params["decoder"]["Dense_0"]["bias"]
    images = ae.generate(params, KEY, 4_000, codes).reshape(4_000, -1)
    spread = float(jnp.std(codes)) * jnp.abs(weight)
    assert (np.abs(images.mean(0) - (jnp.mean(codes) * weight + bias)) < 5 * spread / np.sqrt(4_000) + 1e-6).all()
    np.testing.assert_allclose(images.std(0), spread, rtol=5 / np.sqrt(2 * 4_000))


def test_jit_equals_no_jit_and_same_key_same_parameters():
    model, params = small()
    assert isinstance(model, VariationalAutoencoder)
    plain, compiled = model.loss_terms, jax.jit(model.loss_terms)
    for a, b in zip(plain(params, X, KEYS), compiled(params, X, KEYS), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(model.init(KEY)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_parameters_are_drawn_by_one_program_for_each_model(compilations):
    key, other = jax.random.split(KEY)
    model, _ = small(latent_dim=2)
    params, before = model.init(key), len(compilations)
    again = build_model(Settings(hidden_sizes=(7,), latent_dim=2), (6, 5, 1)).init(other)
    assert len(compilations) == before
    assert (again["encoder"]["Dense_0"]["kernel"] != params["encoder"]["Dense_0"]["kernel"]).any()


def test_without_reparametrisation_the_reconstruction_would_give_the_encoder_nothing():
    model, params = small()

    def reconstruction(encoder):
        return jnp.sum(model.loss_terms({**params, "encoder": encoder}, X, KEYS).reconstruction)

    def stopped(encoder):
        z = jax.lax.stop_gradient(model.encode({**params, "encoder": encoder}, X).sample(KEYS))
        return jnp.sum(model.likelihood.reconstruction_loss(model.decode(params, z), X))

    def largest(function):
        return max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(jax.grad(function)(params["encoder"])))

    assert reconstruction(params["encoder"]) == pytest.approx(float(stopped(params["encoder"])))
    assert largest(reconstruction) > 0
    assert largest(stopped) == 0


def test_a_bad_setting_is_refused_and_parameters_are_counted():
    with pytest.raises(UsageError, match="--latent-dim must be an integer of at least 1 and at most 1048576, got 0"):
        build_model(Settings(latent_dim=0), (8, 8, 1))
    _, params = small(hidden_sizes=(), latent_dim=3)
    assert count_parameters(params) == (30 * 6 + 6) + (3 * 30 + 30)


@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_bfloat16_changes_the_networks_arithmetic_and_nothing_else(arch):
    model, params = small(arch=arch, likelihood="learned_gaussian")
    half, half_params = small(arch=arch, likelihood="learned_gaussian", precision="bfloat16")
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(half_params), strict=True):
        np.testing.assert_array_equal(a, b)

    def loss(model):
        def total(params):
            terms = model.loss_terms(params, X, KEYS)
            return jnp.mean(terms.objective), (terms, model.encode(params, X))

        return jax.jit(jax.value_and_grad(total, has_aux=True))(params)

    ((_, expected), gradients), ((_, found), half_gradients) = loss(model), loss(half)
    for a, b in zip(jax.tree.leaves((found, half_gradients)), jax.tree.leaves((expected, gradients)), strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_allclose(a, b, rtol=0.05, atol=0.05 * max(0.1, float(jnp.abs(b).max())))  # 8 bits
    assert not np.array_equal(found[1].mean, expected[1].mean)


@pytest.mark.parametrize(("arch", "number"), [("conv", 64), ("conv", 150), ("patch", 65), ("mlp", 150)])
def test_many_latents_decode_as_one_by_one(arch, number):
    model, params = small(arch=arch, latent_dim=8 if arch == "patch" else 3, model="ae")
    z = jax.random.normal(jax.random.key(3), (number, model.latent_dim))
    images = model.decode_mean(params, z)
    assert images.shape == (number, 6, 5, 1)
    for i in (0, 63, number - 1):
        np.testing.assert_allclose(images[i : i + 1], model.decode_mean(params, z[i : i + 1]), rtol=1e-5)
