import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.config import Settings
from vae_jax.errors import UsageError
from vae_jax.models.autoencoders import build_model
from vae_jax.models.residual import block_of
from vae_jax.models.shapes import check_model
from vae_jax.registry import ARCHITECTURES

SHAPES = [
    (1, 1, 1),
    (9, 12, 3),
    *(pytest.param(shape, marks=pytest.mark.slow) for shape in [(8, 8, 1), (7, 5, 1), (1, 12, 2)]),
]


def networks(arch, image_shape, features, **settings):
    return ARCHITECTURES.make(arch, Settings(arch=arch, **settings), image_shape, features, 1)


@pytest.mark.parametrize("image_shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("arch", "sizes"),
    [
        *(("mlp", (6, 5)), ("mlp", ()), ("gated", (6, 5)), ("gated", ()), ("conv", (4, 5)), ("conv", (2, 3, 4))),
        ("patch", (4, 4, 3)),
        ("residual", (1, 6)),
    ],
)
def test_any_image_shape_goes_in_and_comes_out(arch, sizes, image_shape):
    check_model(build_model(Settings(model="ae", arch=arch, hidden_sizes=sizes, latent_dim=36), image_shape))


@pytest.mark.parametrize("latent", ["map", pytest.param("vector", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("image_shape", "block", "places"),
    [
        ((1, 784, 1), (1, 64), 13),
        ((33, 17, 3), (4, 4), 45),
        ((64, 64, 3), (4, 4), 256),
        ((3, 65, 1), (3, 8), 9),
        ((500, 300, 3), (32, 32), 160),
    ],
)
def test_a_residual_networks_map_has_at_most_16_places_a_side(image_shape, block, places, latent):
    assert block_of(*image_shape[:2]) == block
    settings = Settings(arch="residual", hidden_sizes=(4,), latent_dim=places, latent=latent)
    check_model(build_model(settings, image_shape))


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


def _mlp_encoder(net, x):
    h = nn.gelu(net.dense("Dense_0", x.reshape(x.shape[0], -1)))
    return net.dense("Dense_2", nn.gelu(net.dense("Dense_1", h)))


def _mlp_decoder(net, z):
    return _mlp_encoder(net, z).reshape(-1, 7, 5, 3)


def _gated_encoder(net, x):
    h = x.reshape(x.shape[0], -1)
    for name in ("Dense_0", "Dense_1"):
        values, gates = jnp.split(net.dense(name, h), 2, axis=1)
        h = values / (1 + jnp.exp(-gates))
    return net.dense("Dense_2", h)


def _gated_decoder(net, z):
    return _gated_encoder(net, z).reshape(-1, 7, 5, 3)


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


def _patches(x):
    padded = jnp.pad(x, ((0, 0), (0, 1), (0, 3), (0, 0)))
    patches = [[padded[:, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].reshape(-1, 48) for j in range(2)] for i in range(2)]
    return jnp.stack([jnp.stack(row, axis=1) for row in patches], axis=1)


def _joined(patches):
    patches = patches.reshape(-1, 2, 2, 4, 4, 3)
    rows = [jnp.concatenate([patches[:, i, j] for j in range(2)], axis=2) for i in range(2)]
    return jnp.concatenate(rows, axis=1)[:, :7, :5]


def _patch_encoder(net, x):
    h = nn.gelu(net.conv("Conv_0", _patches(x)))
    h = h + nn.gelu(net.conv("Conv_1", h))
    return net.dense("Conv_2", h).reshape(x.shape[0], -1)


def _patch_decoder(net, z):
    h = nn.gelu(net.dense("Conv_0", z.reshape(-1, 2, 2, 4)))  # not residual, though as wide as the code
    h = h + nn.gelu(net.conv("Conv_1", h))
    return _joined(net.conv("Conv_2", h))


def _residual_blocks(net, h, names):
    for number in range(2):
        h = net.dense(next(names), h) if number else h  # from one width to the other
        inner = net.dense(next(names), nn.gelu(h))
        inner = net.conv(next(names), nn.gelu(inner))
        h = h + net.dense(next(names), nn.gelu(inner))
    return h


def _residual_encoder(net, x):
    names = (f"Conv_{number}" for number in range(99))
    h = _residual_blocks(net, net.dense(next(names), _patches(x)), names)
    if "DenseFromMaps_0" in net.params["params"]:
        h = net.dense("DenseFromMaps_0", h.reshape(x.shape[0], -1))
        means, logvars = h[:, :8], h[:, 8:]
    else:  # a VAE's: of each place its means, then its log variances
        h = net.dense(next(names), h)
        means, logvars = (part.reshape(x.shape[0], -1) for part in (h[..., :2], h[..., 2:]))
    return jnp.concatenate([means, logvars - 1], axis=1)


def _residual_decoder(net, z):
    names = (f"Conv_{number}" for number in range(99))
    if "DenseToMaps_0" in net.params["params"]:
        h = net.dense("DenseToMaps_0", z).reshape(-1, 2, 2, 6)
    else:
        h = net.dense(next(names), z.reshape(-1, 2, 2, 2))
    h = _residual_blocks(net, h, names)
    return _joined(net.conv(next(names), h))


LAYERS = {
    "mlp": ("mlp", (4, 5), {}, (_mlp_encoder, _mlp_decoder)),
    "gated": ("gated", (4, 5), {}, (_gated_encoder, _gated_decoder)),
    "conv": ("conv", (4, 5), {"dense_size": 3}, (_conv_encoder, _conv_decoder)),
    "conv without dense": ("conv", (4, 5), {"dense_size": 0}, (_conv_encoder_without_dense, _conv_decoder)),
    "patch": ("patch", (4, 4), {}, (_patch_encoder, _patch_decoder)),
    "residual": ("residual", (4, 6), {"latent_dim": 8}, (_residual_encoder, _residual_decoder)),
    "residual to a vector": (
        *("residual", (4, 6), {"latent_dim": 8, "latent": "vector"}),
        (_residual_encoder, _residual_decoder),
    ),
}
OTHERS = [
    pytest.param(name, "others", marks=() if name in ("conv", "residual") else pytest.mark.slow) for name in LAYERS
]


@pytest.mark.parametrize(("name", "device"), [*((name, "the CPU") for name in LAYERS), *OTHERS])
def test_networks_and_their_gradients_are_those_of_plain_layers(name, device, monkeypatch):
    arch, sizes, more, plain = LAYERS[name]
    if device == "others":
        monkeypatch.setattr(jax.lax, "platform_dependent", lambda *args, cpu, default: default(*args))
    rng = np.random.default_rng(0)
    built = networks(arch, (7, 5, 3), 16, hidden_sizes=sizes, **more)
    for network, reference, shape in zip(built, plain, [(3, 7, 5, 3), (3, more.get("latent_dim", 16))], strict=True):
        x = jnp.float32(rng.normal(size=shape))
        shapes = jax.eval_shape(network.init, jax.random.key(0), x)["params"]
        params = jax.tree.map(lambda leaf: jnp.float32(0.3 * rng.normal(size=leaf.shape)), shapes)

        def value_and_gradients(function, params=params, x=x):
            def total(params, x):
                y = function(params, x)
                return jnp.sum(y**2), y

            return jax.tree.leaves(jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))(params, x))

        ours = value_and_gradients(lambda params, x, network=network: network.apply({"params": params}, x))
        theirs = value_and_gradients(lambda params, x, reference=reference: reference(_Plain(params), x))
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * max(1.0, float(jnp.abs(b).max())))


@pytest.mark.optimised
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="The products run on the CPU only.")
@pytest.mark.parametrize(
    ("arch", "sizes", "maps"),
    [
        pytest.param("conv", (4, 6), ["4,4,4", "2,2,6", "4,4,6", "8,8,4"], marks=pytest.mark.slow),
        ("patch", (5, 6, 6), ["2,2,5", "2,2,6"]),
        pytest.param("residual", (10, 14), ["2,2,10", "2,2,14", "2,2,5", "2,2,7"], marks=pytest.mark.slow),
    ],
)
def test_no_network_transposes_a_map_between_convolutions_on_the_cpu(arch, sizes, maps):
    # What makes the products fast: the batch stays last, forward and backward, also around the activations.
    encoder, decoder = networks(arch, (8, 8, 1), 12, hidden_sizes=sizes, dense_size=3, latent_dim=12)

    def loss(params, x, z):
        return jnp.sum(encoder.apply(params[0], x) ** 2) + jnp.sum(decoder.apply(params[1], z) ** 2)

    x, z = jax.ShapeDtypeStruct((16, 8, 8, 1), jnp.float32), jax.ShapeDtypeStruct((16, 12), jnp.float32)
    params = [jax.eval_shape(net.init, jax.random.key(0), of) for net, of in ((encoder, x), (decoder, z))]
    program = jax.jit(jax.grad(loss)).lower(params, x, z).compile().as_text()
    for shape in maps:
        height, width, channels = map(int, shape.split(","))
        assert f"f32[{channels},{height},{width},16]{{3,2,1,0}}" in program, shape
        assert f"f32[16,{shape}]{{3,2,1,0}}" not in program, shape
        assert f"f32[16,{height * width * channels}]" not in program, shape


def test_the_default_conv_networks_are_the_keras_tutorials():
    encoder, decoder = networks("conv", (28, 28, 1), 4)
    count = lambda module, x: sum(  # noqa: E731
        leaf.size for leaf in jax.tree.leaves(jax.eval_shape(module.init, jax.random.key(0), x))
    )
    # 69,076 and 65,089 parameters by the tutorial's model summaries, here with mean and log variance in one layer.
    assert count(encoder, jnp.ones((1, 28, 28, 1))) == 69_076
    assert count(decoder, jnp.ones((1, 2))) == 65_089


@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_a_decoder_with_fourier_features_is_one_without_on_latent_sines_and_cosines(arch):
    (_, plain), (_, waves) = (
        networks(arch, (7, 5, 1), 4, hidden_sizes=(4, 5), fourier_features=number) for number in (0, 6)
    )
    z = jax.random.normal(jax.random.key(1), (3, 2))
    logits, params = waves.init_with_output(jax.random.key(0), z)
    params = dict(params["params"])
    phases = np.float64(z) @ np.float64(params.pop("frequencies"))
    seen = jnp.asarray(np.concatenate([z, np.sin(phases), np.cos(phases)], axis=1), jnp.float32)
    np.testing.assert_allclose(logits, plain.apply({"params": params}, seen), atol=1e-5)


def test_patches_keep_their_places():
    encoder, decoder = networks("patch", (9, 12, 3), 18, hidden_sizes=())
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
        build_model(Settings(model="ae", arch="patch", latent_dim=50), (28, 28, 1))
    for given, near in ((2, "49"), (50, "49 or 98")):
        with pytest.raises(UsageError, match=rf"multiple of 49 .* got {given}\.\nUse {near}, or --latent vector\.$"):
            build_model(Settings(arch="residual", latent_dim=given), (28, 28, 1))


@pytest.mark.parametrize("kind", ["vae", "ae"])
def test_what_a_residual_encoder_says_at_first_and_how_little_its_blocks_add(kind):
    model = build_model(Settings(kind, "residual", (64, 64), latent_dim=8), (8, 8, 3))
    params = jax.jit(model.encoder.init)(jax.random.key(0), grey := jnp.full((1, 8, 8, 3), 0.5))["params"]
    said = jax.jit(model.encode)({"encoder": params}, grey)
    np.testing.assert_allclose(said.mean, np.zeros((1, 8)), atol=1e-5)
    if kind == "vae":
        np.testing.assert_allclose(said.logvar, -np.ones((1, 8)), atol=2e-3)  # bounded smoothly
    for name, inputs, gain in (("Conv_0", 48, 4**2), ("Conv_2", 9 * 32, 1), ("Conv_3", 32, 0.25 / 2)):
        kernel = params[name]["kernel"]
        assert np.var(kernel) == pytest.approx(gain / inputs, rel=5 * (2 / kernel.size) ** 0.5), name
