"""Every prior that has a density: it integrates to 1, and its samples are drawn from it."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from vae_jax.config import Settings
from vae_jax.errors import UsageError
from vae_jax.models.autoencoders import build_model
from vae_jax.models.distributions import DiagonalGaussian
from vae_jax.models.fitted import Whitened
from vae_jax.models.flows import Flow
from vae_jax.models.mixtures import Mixture, OfClass
from vae_jax.models.priors import FullGaussian
from vae_jax.registry import PRIORS

KEY = jax.random.key(0)
SHAPE, CLASSES = (3, 4, 1), (2, 5, 9)


def made(name, latent_dim, scale=1.0):
    """A model with that prior, and parameters other than those that it begins with."""
    more = {"prior_components": 4} if "prior_components" in PRIORS[name].uses else {}
    conditional = {"condition": "labels"} if name == "class" else {}
    settings = Settings(hidden_sizes=(5,), latent_dim=latent_dim, prior=name, **more, **conditional)
    model = build_model(settings, SHAPE, CLASSES)
    rng = np.random.default_rng(3)

    def drawn(leaf):
        inputs = leaf.shape[-2] if leaf.ndim > 1 else 1
        return np.float32(scale * rng.normal(size=leaf.shape) / np.sqrt(inputs))

    params = jax.tree.map(drawn, jax.eval_shape(model.init, KEY))
    return model, params, np.array([5], np.int32) if conditional else None


def of_each(labels, number):
    return None if labels is None else np.repeat(labels, number)


EVERY = [(name, dim) for name, dim in itertools.product(PRIORS, (1, 2)) if (name, dim) != ("flow", 1)]


@pytest.mark.parametrize(("name", "latent_dim"), EVERY)
def test_a_density_integrates_to_1_and_its_samples_are_where_it_says(name, latent_dim):
    model, params, labels = made(name, latent_dim)
    number = 20_000
    given = model.prior_params(params, of_each(labels, number))
    z = np.asarray(jax.jit(model.prior.sample, static_argnums=2)(given, KEY, (number, latent_dim)))
    points = 1201 if latent_dim == 1 else 301
    low, high = z.min(axis=0) - z.std(axis=0), z.max(axis=0) + z.std(axis=0)
    axes, cells = np.linspace(low, high, points, retstep=True)
    grid = np.stack(np.meshgrid(*axes.T, indexing="ij"), axis=-1).reshape(-1, latent_dim)
    log_p = jax.jit(model.log_prior)(params, jnp.float32(grid), of_each(labels, len(grid)))
    mass = np.exp(np.float64(log_p)) * np.prod(cells)
    assert mass.sum() == pytest.approx(1, abs=2e-3)
    # Moments, and the shares in the quarters of the plane (halves of the line), cut between two places of the grid.
    mean = mass @ grid
    error = np.sqrt(mass @ (grid - mean) ** 2 / number)
    assert (np.abs(z.mean(axis=0) - mean) < 5 * error + 2e-3).all()
    cut = axes[np.abs(axes - mean).argmin(axis=0), np.arange(latent_dim)] + cells / 2
    of_grid, of_samples = ((points > cut) @ (2 ** np.arange(latent_dim)) for points in (grid, z))
    for quarter in range(2**latent_dim):
        share = mass[of_grid == quarter].sum()
        assert abs((of_samples == quarter).mean() - share) < 5 * np.sqrt(share * (1 - share) / number) + 2e-3
    # Entropy, of the density and of the samples.
    own = np.float64(jax.jit(model.log_prior)(params, jnp.asarray(z), of_each(labels, number)))
    kept = mass > 0
    entropy = -mass[kept] @ np.float64(log_p)[kept]
    assert abs(-own.mean() - entropy) < 5 * own.std() / np.sqrt(number) + 4e-3


@pytest.mark.parametrize("name", list(PRIORS))
def test_a_temperature_of_0_draws_next_to_nothing_apart_and_samples_depend_on_the_key(name):
    model, params, labels = made(name, 3)
    given = model.prior_params(params, of_each(labels, 64))
    draw = jax.jit(model.prior.sample, static_argnums=2)
    one, same, other = (draw(given, key, (64, 3)) for key in (KEY, KEY, jax.random.key(1)))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)
    cold = np.asarray(draw(given, KEY, (64, 3), 0.0))
    assert len(np.unique(cold.round(4), axis=0)) <= 4  # the mixtures' means


def test_a_mixture_is_scipys():
    prior, rng = Mixture(5), np.random.default_rng(0)
    params = {"mean": rng.normal(size=(5, 3)), "logvar": rng.normal(size=(5, 3)), "logits": rng.normal(size=5)}
    params = jax.tree.map(jnp.float32, params)
    z = jnp.float32(3 * rng.normal(size=(50, 3)))
    weights = np.exp(np.float64(params["logits"]))
    expected = oracles.mixture_log_prob(
        z, np.float64(params["mean"]), np.exp(np.float64(params["logvar"]) / 2), weights / weights.sum()
    )
    np.testing.assert_allclose(prior.log_prob(params, z), expected, rtol=1e-5, atol=1e-5)
    start = prior.init(KEY, 4000)
    assert np.var(start["mean"]) + np.exp(start["logvar"]).mean() == pytest.approx(1, abs=0.01)


def test_vamp_is_the_mean_of_the_posteriors_of_its_pseudo_inputs_worked_out_once():
    model, params, _ = made("vamp", 3)
    z = 2 * jax.random.normal(KEY, (20, 3))
    q = model.encode(params, params["prior"]["pseudo_inputs"])
    expected = oracles.mixture_log_prob(z, np.float64(q.mean), np.exp(np.float64(q.logvar) / 2), np.full(4, 0.25))
    np.testing.assert_allclose(model.log_prior(params, z), expected, rtol=1e-5, atol=1e-5)
    prepared = model.prepared(params)
    assert prepared["prior"].keys() == {"mean", "logvar", "logits"}
    assert model.prepared(prepared)["prior"] is prepared["prior"]
    np.testing.assert_allclose(model.log_prior(prepared, z), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("latent_dim", [2, 7])
def test_a_flow_has_the_log_determinant_of_its_jacobian_and_an_inverse(latent_dim):
    model, params, _ = made("flow", latent_dim)
    flow, z = model.prior, 2 * jax.random.normal(KEY, (30, latent_dim))
    white, volume = jax.jit(flow.whitened)(params["prior"], z)
    np.testing.assert_allclose(jax.jit(flow.unwhitened)(params["prior"], white), z, rtol=1e-5, atol=1e-5)
    with jax.enable_x64(True):
        exact = jax.tree.map(jnp.float64, jax.tree.map(np.asarray, params["prior"]))
        few = jnp.float64(np.asarray(z[:3]))
        jacobian = jax.jit(jax.vmap(jax.jacfwd(lambda one: flow.whitened(exact, one[None])[0][0])))(few)
        expected = np.linalg.slogdet(np.asarray(jacobian))[1]
    np.testing.assert_allclose(volume[:3], expected, rtol=1e-4, atol=1e-4)
    changed = np.abs(np.asarray(jacobian)).max(axis=0) > 1e-6
    assert changed.all()  # every dimension has a part in every other


def test_a_flow_begins_next_to_the_identity_and_needs_two_dimensions():
    flow = Flow(6)
    z = jax.random.normal(KEY, (200, 8))
    close = flow.log_prob(flow.init(KEY, 8), z) - PRIORS.make("standard", Settings()).log_prob({}, z)
    assert float(jnp.abs(close).max()) < 1
    with pytest.raises(UsageError, match=r"--prior flow needs a --latent-dim of at least 2, got 1\.\nUse"):
        build_model(Settings(latent_dim=1, prior="flow"), SHAPE)


def test_the_gaussian_of_a_class_has_a_closed_form():
    prior, rng = OfClass(3), np.random.default_rng(0)
    params = {name: jnp.float32(rng.normal(size=(3, 2))) for name in ("mean", "logvar")}
    q = DiagonalGaussian(*(jnp.float32(rng.normal(size=(3, 2))) for _ in range(2)))
    own = prior.of_examples(params, jnp.eye(3)[jnp.array([2, 0, 2])])
    expected = [
        oracles.kl_to_gaussian(
            np.float64(m), np.exp(np.float64(s) / 2), params["mean"][k], np.diag(np.exp(params["logvar"][k]))
        )
        for m, s, k in zip(q.mean, q.logvar, (2, 0, 2), strict=True)
    ]
    np.testing.assert_allclose(prior.kl(own, q), expected, rtol=1e-4)
    with pytest.raises(UsageError, match=r"--prior class needs --condition labels, got --condition none"):
        build_model(Settings(prior="class"), SHAPE)


def test_a_prior_of_whitened_latents_is_that_of_the_latents_by_the_change_of_variables():
    rng, base = np.random.default_rng(0), Mixture(3)
    prior = Whitened(base)
    codes = np.float32(rng.normal(size=(500, 2)) @ [[30, 0], [20, 1e-2]] + 100)
    moments = FullGaussian.fit(codes)
    own = base.init(KEY, 2)
    params = {**moments, "base": own}
    white = (codes[:20] - np.asarray(moments["mean"])) @ np.float64(moments["whitening"]).T
    volume = np.linalg.slogdet(np.float64(moments["whitening"]))[1]
    expected = np.asarray(base.log_prob(own, jnp.float32(white))) + volume
    np.testing.assert_allclose(prior.log_prob(params, jnp.asarray(codes[:20])), expected, rtol=1e-4, atol=1e-3)
    drawn = np.asarray(prior.sample(params, KEY, (2000, 2)))
    back = (drawn - np.asarray(moments["mean"])) @ np.float64(moments["whitening"]).T
    np.testing.assert_allclose(back, base.sample(own, KEY, (2000, 2)), atol=2e-3)
