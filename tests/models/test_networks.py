import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.errors import UsageError
from vae_jax.models.networks import make_networks

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


class _Plain:
    """The layers as Flax has them, by the name of their parameters."""

    def __init__(self, params):
        self.params = {"params": params}

    def dense(self, name, x):
        weight = self.params["params"][name]
        y = x @ weight["kernel"].reshape(-1, weight["bias"].size)
        return y + jnp.broadcast_to(weight["bias"], y.shape)

    def conv(self, name, x, stride=1, kind=nn.Conv):
        *sides, _, channels = self.params["params"][name]["kernel"].shape
        layer = kind(channels, tuple(sides), (stride, stride))
        return layer.apply({"params": self.params["params"][name]}, x)


def _conv_encoder(net, x):
    h = nn.gelu(net.conv("Conv_0", x, 2))
    h = nn.gelu(net.conv("Conv_1", h, 2)).reshape(x.shape[0], -1)
    return net.dense("Dense_0", nn.gelu(net.dense("DenseFromMaps_0", h)))


def _conv_encoder_without_dense(net, x):
    h = nn.gelu(net.conv("Conv_0", x, 2))
    return net.dense("DenseFromMaps_0", nn.gelu(net.conv("Conv_1", h, 2)).reshape(x.shape[0], -1))


def _conv_decoder(net, z):
    h = nn.gelu(net.dense("DenseToMaps_0", z)).reshape(-1, 2, 2, 5)
    h = nn.gelu(net.conv("ConvTranspose_0", h, 2, nn.ConvTranspose))[:, :, :3]
    h = nn.gelu(net.conv("ConvTranspose_1", h, 2, nn.ConvTranspose))[:, :7, :5]
    return net.conv("Conv_0", h)


def _patch_encoder(net, x):
    padded = jnp.pad(x, ((0, 0), (0, 1), (0, 3), (0, 0)))
    patches = [[padded[:, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].reshape(-1, 48) for j in range(2)] for i in range(2)]
    h = nn.gelu(net.conv("Conv_0", jnp.stack([jnp.stack(row, axis=1) for row in patches], axis=1)))
    h = h + nn.gelu(net.conv("Conv_1", h))
    return net.dense("Conv_2", h).reshape(x.shape[0], -1)


def _patch_decoder(net, z):
    h = nn.gelu(net.dense("Conv_0", z.reshape(-1, 2, 2, 4)))  # not residual, though as wide as the code
    h = h + nn.gelu(net.conv("Conv_1", h))
    patches = net.conv("Conv_2", h).reshape(-1, 2, 2, 4, 4, 3)
    rows = [jnp.concatenate([patches[:, i, j] for j in range(2)], axis=2) for i in range(2)]
    return jnp.concatenate(rows, axis=1)[:, :7, :5]


@pytest.mark.parametrize("device", ["the CPU", "others"])
@pytest.mark.parametrize(
    ("arch", "sizes", "dense_size", "plain"),
    [
        ("conv", (4, 5), 3, (_conv_encoder, _conv_decoder)),
        ("conv", (4, 5), 0, (_conv_encoder_without_dense, _conv_decoder)),
        ("patch", (4, 4), 3, (_patch_encoder, _patch_decoder)),
    ],
    ids=["conv", "conv without dense", "patch"],
)
def test_networks_are_those_of_plain_layers(arch, sizes, dense_size, plain, device, monkeypatch):
    if device == "others":
        monkeypatch.setattr(jax.lax, "platform_dependent", lambda *args, cpu, default: default(*args))
    networks = make_networks(arch, (7, 5, 3), sizes, dense_size, "gelu", 16, learned_sigma=False)
    rng = np.random.default_rng(0)
    for network, reference, shape in zip(networks, plain, [(3, 7, 5, 3), (3, 16)], strict=True):
        x = jnp.float32(rng.normal(size=shape))
        shapes = jax.eval_shape(network.init, jax.random.key(0), x)["params"]
        params = jax.tree.map(lambda leaf: jnp.float32(0.3 * rng.normal(size=leaf.shape)), shapes)
        ours = jax.jit(lambda params, x, network=network: network.apply({"params": params}, x))(params, x)
        theirs = jax.jit(lambda params, x, reference=reference: reference(_Plain(params), x))(params, x)
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


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
