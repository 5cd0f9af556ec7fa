import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.errors import UsageError
from vae_jax.networks import make_networks

SHAPES = [(8, 8, 1), (7, 5, 1), (1, 1, 1), (9, 12, 3)]


@pytest.mark.parametrize("image_shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("arch", "sizes"),
    [("mlp", (6, 5)), ("mlp", ()), ("conv", (4, 5)), ("conv", (2, 3, 4)), ("patch", (4, 4, 3))],
)
def test_any_image_shape_goes_in_and_comes_out(arch, sizes, image_shape):
    features, latent = (36, 36) if arch == "patch" else (4, 2)
    encoder, decoder = make_networks(arch, image_shape, sizes, 3, "relu", features, learned_sigma=False)
    key, x, z = jax.random.key(0), jnp.ones((2, *image_shape)), jnp.ones((2, latent))
    code, _ = jax.eval_shape(encoder.init_with_output, key, x)
    logits, _ = jax.eval_shape(decoder.init_with_output, key, z)
    assert code.shape == (2, features)
    assert logits.shape == (2, *image_shape)


@pytest.mark.parametrize("arch", ["mlp", "conv", "patch"])
def test_networks_are_deterministic_and_see_every_pixel(arch):
    encoder, _ = make_networks(arch, (7, 5, 3), (4, 5), 3, "tanh", 4, learned_sigma=False)
    x = jax.random.uniform(jax.random.key(1), (2, 7, 5, 3))
    params = encoder.init(jax.random.key(0), x)
    features = jax.jit(encoder.apply)
    np.testing.assert_array_equal(features(params, x), features(params, x))
    jacobian = jax.jit(jax.jacobian(lambda x: encoder.apply(params, x).sum()))(x)
    assert (np.abs(jacobian) > 0).all()


def test_the_default_conv_networks_are_the_keras_tutorials():
    encoder, decoder = make_networks("conv", (28, 28, 1), (32, 64), 16, "relu", 4, learned_sigma=False)
    count = lambda module, x: sum(  # noqa: E731
        leaf.size for leaf in jax.tree.leaves(jax.eval_shape(module.init, jax.random.key(0), x))
    )
    # 69,076 and 65,089 parameters by the tutorial's model summaries, here with mean and log variance in one layer.
    assert count(encoder, jnp.ones((1, 28, 28, 1))) == 69_076
    assert count(decoder, jnp.ones((1, 2))) == 65_089


@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_a_decoder_with_fourier_features_is_one_without_on_latent_sines_and_cosines(arch):
    args = (arch, (7, 5, 1), (4, 5), 3, "tanh", 4, False)
    (_, waves), (_, plain) = make_networks(*args, fourier_features=6), make_networks(*args)
    z = jax.random.normal(jax.random.key(1), (3, 2))
    logits, params = waves.init_with_output(jax.random.key(0), z)
    params = dict(params["params"])
    phases = np.float64(z) @ np.float64(params.pop("frequencies"))
    seen = jnp.asarray(np.concatenate([z, np.sin(phases), np.cos(phases)], axis=1), jnp.float32)
    np.testing.assert_allclose(logits, plain.apply({"params": params}, seen), atol=1e-5)


def test_learned_sigma_is_one_scalar_behind_the_mean():
    _, decoder = make_networks("mlp", (2, 2, 3), (4,), 0, "tanh", 4, learned_sigma=True)
    parameters, params = decoder.init_with_output(jax.random.key(0), jnp.ones((2, 2)))
    assert parameters.shape == (2, 2, 2, 6)
    assert params["params"]["log_sigma"].shape == ()
    assert float(jnp.ptp(parameters[..., 3:])) == 0


def test_patches_keep_their_places():
    encoder, decoder = make_networks("patch", (9, 12, 3), (), 0, "tanh", 18, learned_sigma=False)
    x, z, key = jnp.ones((1, 9, 12, 3)), jnp.ones((1, 18)), jax.random.key(0)
    codes = lambda x: encoder.init_with_output(key, x)[0][0]  # noqa: E731
    image = lambda z: decoder.init_with_output(key, z)[0][0].sum(axis=-1)  # noqa: E731
    by_pixel, by_code = jax.jit(lambda x, z: (jax.jacobian(codes)(x), jax.jacobian(image)(z)))(x, z)
    # Without a hidden layer a code knows its own patch only; the decoder's 3x3 convolution takes it to those beside it.
    for place in range(9):
        row, column = 4 * (place // 3), 4 * (place % 3)
        own, near = np.zeros((2, 9, 12), bool)
        own[row : row + 4, column : column + 4] = True
        near[max(row - 4, 0) : row + 8, max(column - 4, 0) : column + 8] = True
        np.testing.assert_array_equal(np.any(by_pixel[2 * place : 2 * place + 2, 0], axis=(0, 3)), own)
        np.testing.assert_array_equal(np.any(by_code[:, :, 0, 2 * place : 2 * place + 2], axis=-1), near)


def test_a_latent_that_can_not_be_shared_out_among_the_patches_is_refused():
    with pytest.raises(UsageError, match="--latent-dim must be a multiple of 49"):
        make_networks("patch", (28, 28, 1), (4,), 0, "relu", 50, learned_sigma=False)
