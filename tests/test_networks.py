import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.networks import make_networks

SHAPES = [(8, 8, 1), (7, 5, 1), (1, 1, 1), (9, 12, 3)]


@pytest.mark.parametrize("image_shape", SHAPES, ids=str)
@pytest.mark.parametrize(("arch", "sizes"), [("mlp", (6, 5)), ("mlp", ()), ("conv", (4, 5)), ("conv", (2, 3, 4))])
def test_any_image_shape_goes_in_and_comes_out(arch, sizes, image_shape):
    encoder, decoder = make_networks(arch, image_shape, sizes, 3, "relu", 4, learned_sigma=False)
    key, x, z = jax.random.key(0), jnp.ones((2, *image_shape)), jnp.ones((2, 2))
    features, _ = jax.eval_shape(encoder.init_with_output, key, x)
    logits, _ = jax.eval_shape(decoder.init_with_output, key, z)
    assert features.shape == (2, 4)
    assert logits.shape == (2, *image_shape)


@pytest.mark.parametrize("arch", ["mlp", "conv"])
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


def test_learned_sigma_is_one_scalar_behind_the_mean():
    _, decoder = make_networks("mlp", (2, 2, 3), (4,), 0, "tanh", 4, learned_sigma=True)
    parameters, params = decoder.init_with_output(jax.random.key(0), jnp.ones((2, 2)))
    assert parameters.shape == (2, 2, 2, 6)
    assert params["params"]["log_sigma"].shape == ()
    assert float(jnp.ptp(parameters[..., 3:])) == 0
