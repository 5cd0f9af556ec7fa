import dataclasses
import re
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.config import Settings
from vae_jax.errors import UsageError
from vae_jax.models.autoencoders import Autoencoder, VariationalAutoencoder, build_model
from vae_jax.models.inputs import Inputs
from vae_jax.models.jacobian import decoder_jacobian
from vae_jax.models.objectives import ELBO
from vae_jax.models.shapes import check_model, count_parameters
from vae_jax.registry import ARCHITECTURES

KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 6, 5, 1), dtype=np.uint8)
BATCH = Inputs().batch(jnp.asarray(IMAGES), jnp.arange(5), jax.random.key(2))


def small(**changes):
    model = build_model(Settings(**{"hidden_sizes": (7,), "latent_dim": 3, **changes}), (6, 5, 1))
    return model, model.init(KEY)


@pytest.mark.parametrize("kind", ["vae", "ae"])
def test_the_same_images_are_encoded_the_same_and_others_refused(kind):
    model, params = small(model=kind)
    assert isinstance(model, VariationalAutoencoder if kind == "vae" else Autoencoder)
    posterior = model.encode(params, BATCH.x)
    np.testing.assert_array_equal(model.latents(params, BATCH.x), posterior.mean)
    for same in (IMAGES, jnp.asarray(IMAGES), np.float32(IMAGES) / 255):
        np.testing.assert_allclose(model.latents(params, same), posterior.mean, rtol=1e-5, atol=1e-6)
    for wrong in (IMAGES[..., 0], IMAGES.reshape(5, 5, 6, 1), IMAGES.reshape(5, 30), np.float32(IMAGES)):
        for function in (model.encode, model.latents, model.features):
            with pytest.raises(UsageError, match=r"^images .*must "):
                function(params, wrong)


def test_autoencoder_generates_from_the_gaussian_of_its_codes():
    ae, params = small(model="ae", hidden_sizes=(), latent_dim=1, likelihood="squared_error")
    codes = 3 + 0.5 * jax.random.normal(KEY, (500, 1))
    # The decoder is linear here, so the images' mean and spread are those of the latents.
    weight, bias = params["decoder"]["Dense_0"]["kernel"][0], params["decoder"]["Dense_0"]["bias"]
    images = ae.generate(params, KEY, 4_000, codes=codes).reshape(4_000, -1)
    spread = float(jnp.std(codes)) * jnp.abs(weight)
    assert (np.abs(images.mean(0) - (jnp.mean(codes) * weight + bias)) < 5 * spread / np.sqrt(4_000) + 1e-6).all()
    np.testing.assert_allclose(images.std(0), spread, rtol=5 / np.sqrt(2 * 4_000))
    cool = ae.generate(params, KEY, 4_000, 0.5, codes=codes).reshape(4_000, -1)
    centre = np.asarray(jnp.mean(codes) * weight + bias)
    np.testing.assert_allclose(np.asarray(cool) - centre, 0.5 * (np.asarray(images) - centre), atol=1e-5)


def test_parameters_are_drawn_by_the_key_with_one_program_for_each_model(compilations):
    key, other = jax.random.split(KEY)
    model, _ = small(latent_dim=2)
    params, before = model.init(key), len(compilations)
    again = build_model(Settings(hidden_sizes=(7,), latent_dim=2), (6, 5, 1))
    assert again == model
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(again.init(key)), strict=True):
        np.testing.assert_array_equal(a, b)
    different = again.init(other)["encoder"]["Dense_0"]["kernel"]
    assert len(compilations) == before
    assert (different != params["encoder"]["Dense_0"]["kernel"]).any()


def test_a_bad_setting_is_refused_and_parameters_are_counted():
    with pytest.raises(UsageError, match="--latent-dim must be an integer of at least 1 and at most 1048576, got 0"):
        build_model(Settings(latent_dim=0), (8, 8, 1))
    for shape in ((8, 8), (8, -8, 1), (8.5, 8, 1), "881", None):
        with pytest.raises(UsageError, match="image_shape must be"):
            build_model(Settings(), shape)
    _, params = small(hidden_sizes=(), latent_dim=3)
    assert count_parameters(params) == (30 * 6 + 6) + (3 * 30 + 30)


class Decoder(nn.Module):
    """Gives images of any shape; with a layer that a model can't have, if one is named."""

    shape: tuple[int, int, int]
    layer: str = ""

    @nn.compact
    def __call__(self, z):
        h = nn.Dense(int(np.prod(self.shape)))(z)
        if self.layer == "BatchNorm":
            h = nn.BatchNorm(use_running_average=False)(h)
        if self.layer == "Dropout":
            h = nn.Dropout(0.5, deterministic=False)(h)
        return h.reshape(-1, *self.shape)


@pytest.mark.parametrize(
    ("own", "words"),
    [
        *(
            (
                {"decoder": Decoder(shape)},
                rf"decoder must give \(8, 8, 1\) for images .*Bernoulli, got {re.escape(str(shape))}",
            )
            for shape in [(1, 1, 1), (8, 1, 1), (8, 8, 2), (8, 8), (64,)]  # which would broadcast
        ),
        ({"latent_dim": 2}, r"encoder must give \[batch, 4\] for 2 latents, got \(6,\)"),
        *(({"decoder": Decoder((8, 8, 1), layer)}, layer) for layer in ("BatchNorm", "Dropout")),
        ({"decoder": Decoder([8, 8, 1])}, "must be hashable: give tuples"),
    ],
    ids=str,
)
def test_networks_that_fit_no_model_are_refused_in_at_most_two_lines(own, words):
    model = build_model(Settings(hidden_sizes=(4,), latent_dim=3), (8, 8, 1))
    check_model(dataclasses.replace(model, decoder=Decoder((8, 8, 1))))
    with pytest.raises(UsageError, match=words) as error:
        check_model(dataclasses.replace(model, **own))
    assert len(str(error.value).splitlines()) <= 2


def test_bfloat16_changes_the_networks_arithmetic_and_nothing_else():
    model, params = small(arch="conv", likelihood="learned_gaussian")
    half, half_params = small(arch="conv", likelihood="learned_gaussian", precision="bfloat16")
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(half_params), strict=True):
        np.testing.assert_array_equal(a, b)

    def loss(model):
        def total(params):
            terms = ELBO()(model, params, BATCH, jnp.float32(0))
            return jnp.mean(terms.objective), (terms, model.encode(params, BATCH.x))

        return jax.jit(jax.value_and_grad(total, has_aux=True))(params)

    ((_, expected), gradients), ((_, found), half_gradients) = loss(model), loss(half)
    for a, b in zip(jax.tree.leaves((found, half_gradients)), jax.tree.leaves((expected, gradients)), strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_allclose(a, b, rtol=0.05, atol=0.05 * max(0.1, float(jnp.abs(b).max())))  # 8 bits
    assert not np.array_equal(found[1].mean, expected[1].mean)


@pytest.mark.parametrize("arch", list(ARCHITECTURES))
def test_many_latents_decode_as_one_by_one_also_exported_for_any_number(arch):
    model, params = small(arch=arch, latent_dim=8, model="ae")
    z, decode = np.random.default_rng(0).normal(size=(150, 8)).astype(np.float32), jax.jit(model.decode_mean)
    images = np.asarray(decode(params, z))
    assert images.shape == (150, 6, 5, 1)
    for i in (0, 63, 64, 149):
        np.testing.assert_allclose(images[i : i + 1], decode(params, z[i : i + 1]), rtol=1e-5)
    latents = jax.ShapeDtypeStruct((*jax.export.symbolic_shape("batch"), 8), jnp.float32)
    exported = jax.export.export(jax.jit(model.decode_mean))(params, latents)
    for number in (1, 150):
        np.testing.assert_allclose(exported.call(params, z[:number]), images[:number], rtol=1e-5, atol=1e-6)
    # Also how an image changes with each dimension of its latent, by central differences.
    step = 1e-2 * np.eye(8, dtype=np.float32)
    ahead, back = (np.reshape(decode(params, z[:1] + way * step), (8, -1)) for way in (1, -1))
    found = jax.jit(partial(decoder_jacobian, model))(params, z[0])
    np.testing.assert_allclose(found, (ahead - back).T / 2e-2, atol=1e-3)
    assert np.abs(found).max() > 1e-2
