import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.config import Settings, check_settings
from vae_jax.errors import UsageError
from vae_jax.measures.sparsity import atoms, measure_sparsity
from vae_jax.models.autoencoders import build_model
from vae_jax.models.objectives import _largest_by_bits, keep_largest, kl_penalty, l1_penalty

RNG = np.random.default_rng(0)
CODE = np.float32(RNG.uniform(0.01, 0.99, size=(6, 4)))
WEIGHTS = np.float32([1, 1, 1, 1, 1, 0])


def kl_oracle(code, target, weights):
    mean = np.average(np.float64(code), axis=0, weights=weights)
    return np.sum(target * np.log(target / mean) + (1 - target) * np.log((1 - target) / (1 - mean)))


def test_penalties_are_the_textbook_formulas():
    np.testing.assert_allclose(l1_penalty(jnp.float32(CODE - 0.5)), np.abs(CODE - 0.5).sum(axis=1), rtol=1e-6)
    penalty = kl_penalty(jnp.asarray(CODE), 0.1, jnp.asarray(WEIGHTS))
    np.testing.assert_allclose(penalty, np.full(6, kl_oracle(CODE, 0.1, WEIGHTS)), rtol=1e-5)
    constant = jnp.full((3, 4), 0.1)
    np.testing.assert_allclose(kl_penalty(constant, 0.1, jnp.ones(3)), 0, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_the_kl_penalty_and_its_gradient_are_finite_where_units_saturate(value):
    code = jnp.full((3, 4), value)
    value_and_grad = jax.value_and_grad(lambda c: jnp.sum(kl_penalty(c, 0.05, jnp.ones(3))))
    assert all(np.all(np.isfinite(v)) for v in value_and_grad(code))


@pytest.mark.parametrize(("share", "kept"), [(0.01, 1), (0.5, 2), (0.74, 3), (0.99, 4)])
def test_keep_largest_keeps_the_largest_by_magnitude(share, kept):
    code = np.float32(RNG.normal(size=(5, 4)))
    result = np.asarray(keep_largest(jnp.asarray(code), share))
    for row, own in zip(code, result, strict=True):
        order = np.argsort(-np.abs(row))
        expected = np.zeros(4, np.float32)
        expected[order[:kept]] = row[order[:kept]]
        np.testing.assert_array_equal(own, expected)


@pytest.mark.parametrize("rank", [1, 2, 7, 33])
@pytest.mark.parametrize("decimals", [None, 1, 0], ids=["any", "ties", "mostly ties"])
def test_the_value_of_a_rank_found_by_bits_is_that_of_top_k(rank, decimals):
    size = np.abs(RNG.normal(size=(9, 33)))
    size = size * 10.0 ** RNG.integers(-30, 30, size.shape) if decimals is None else np.round(size, decimals)
    size = jnp.float32(size).at[0].set(0.0)
    np.testing.assert_array_equal(_largest_by_bits(size, rank), jax.lax.top_k(size, rank)[0][:, -1:])


def test_measures_by_hand():
    codes = np.float32([[1, 0, 0, 0], [0, 2, 0, 0], [1, 1, 1, 0]])
    found = measure_sparsity(codes)
    assert found.active_share == pytest.approx(5 / 12)
    assert found.mean_activation == pytest.approx(0.5)
    assert found.dead == 1
    assert found.hoyer == pytest.approx((1 + 1 + (2 - np.sqrt(3))) / 3)
    zeros = measure_sparsity(np.zeros((3, 4), np.float32))
    assert zeros == (0.0, 0.0, 0.0, 4)
    assert measure_sparsity(np.ones((3, 4), np.float32)).hoyer == pytest.approx(0)


def test_atoms_of_a_linear_decoder_are_its_rows():
    model = build_model(Settings(model="ae", hidden_sizes=(), latent_dim=3), (2, 2, 1))
    params = model.init(jax.random.key(0))
    codes = np.float32([[2, 0, -1], [4, 0, -3], [0, 0, 0]])
    rows = np.asarray(params["decoder"]["Dense_0"]["kernel"]).reshape(3, 2, 2, 1)
    expected = rows * np.float32([3, 0, -2]).reshape(3, 1, 1, 1)
    np.testing.assert_allclose(atoms(model, params, codes), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sparsity", ["l1", "kl", "topk"])
def test_each_objective_is_reconstruction_plus_penalty(sparsity):
    activation = "sigmoid" if sparsity == "kl" else "relu"
    settings = Settings(
        model="ae", hidden_sizes=(), latent_dim=8, sparsity=sparsity, sparsity_target=0.25, code_activation=activation
    )
    model = build_model(settings, (3, 3, 1))
    params, x = model.init(jax.random.key(1)), jnp.float32(RNG.uniform(size=(5, 3, 3, 1)))
    terms = model.loss_terms(params, x, penalty_weight=0.3)
    code = np.asarray(model.encode(params, x))
    penalty = {"l1": np.abs(code).sum(axis=1), "topk": 0.0}.get(sparsity)
    penalty = kl_oracle(code, 0.25, np.ones(5)) if penalty is None else penalty
    np.testing.assert_allclose(terms.objective - terms.reconstruction, 0.3 * penalty, rtol=1e-3, atol=1e-4)
    if sparsity == "topk":
        assert np.count_nonzero(code, axis=1).max() <= 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sparsity": "kl"}, "--code-activation sigmoid"),
        ({"sparsity": "kl", "code_activation": "relu"}, "code in \\(0, 1\\)"),
        ({"sparsity": "l1", "model": "vae"}, "--model ae"),
        ({"code_activation": "relu", "model": "vae"}, "--model ae"),
        ({"sparsity": "kl", "code_activation": "sigmoid", "sparsity_target": 1.0}, "--sparsity-target"),
        ({"sparsity": "l2"}, "--sparsity"),
        ({"corruption": "masking", "corruption_level": 2.0}, "--corruption-level"),
    ],
)
def test_settings_outside_their_domain(changes, words):
    with pytest.raises(UsageError, match=words):
        check_settings(Settings(**{"model": "ae", **changes}))
