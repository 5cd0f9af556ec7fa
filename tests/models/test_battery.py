"""Whatever is registered, in every pair that can stand together: each model through one battery of tests."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from scipy import special

from vae_jax.combinations import check_settings
from vae_jax.config import Settings
from vae_jax.errors import UsageError
from vae_jax.models.autoencoders import build_model
from vae_jax.models.inputs import Inputs
from vae_jax.models.layers import applied
from vae_jax.models.shapes import check_model
from vae_jax.registry import ARCHITECTURES, LIKELIHOODS, OBJECTIVES, POSTERIORS, PRIORS

SHAPE = (5, 4, 3)
IMAGES = np.random.default_rng(0).integers(0, 256, (6, *SHAPE), dtype=np.uint8)
LABELS = np.array([7, -2, 4, 4, 7, 4], np.int32)
BATCH = Inputs().batch(jnp.asarray(IMAGES), jnp.arange(6), jax.random.key(1), labels=jnp.asarray(LABELS))
NAMES = {
    "model": ("vae", "ae"),
    "arch": ARCHITECTURES,
    "likelihood": LIKELIHOODS,
    "objective": OBJECTIVES,
    "prior": PRIORS,
    "posterior": POSTERIORS,
    "condition": ("none", "labels", "inferred"),
}
MORE = {
    "vae": {"beta": 0.7},
    "householder": {"reflections": 2},
    "sparse": {"sparsity": "l1", "sparsity_weight": 0.3},
    "iwae": {"beta": 1.0, "importance_samples": 3, "importance_groups": 2, "elbo_share": 0.3},
    "dreg": {"beta": 1.0, "importance_samples": 3, "importance_groups": 2},
    "m2": {"classification_weight": 2.0},
    "tc": {"beta": 1.0, "tc_weight": 3.0},
    "mixture": {"prior_components": 3},
    "vamp": {"prior_components": 3},
    "flow": {"prior_layers": 2},
}
SETTINGS = Settings()
APART = {"likelihood", "prior"}
"""What never meets: one is of the latent, the other of the image."""


def settings_of(names):
    """Small, with what the names ask for; None where they can't stand together."""
    more = {key: value for name in names.values() for key, value in MORE.get(name, {}).items()}
    own = {"conv": {"dense_size": 3}, "residual": {"hidden_sizes": (4,)}}.get(names["arch"], {})
    settings = Settings(**{"hidden_sizes": (4, 5), "latent_dim": 4, **own, **names, **more})
    try:
        check_settings(settings)
    except UsageError:
        return None
    return settings


def pairs_of(case):
    """The names that stand together; an architecture sees of a likelihood the number of parameters, others the kind."""
    likelihood = LIKELIHOODS.make(case["likelihood"], SETTINGS, SHAPE)
    yield case["likelihood"], type(likelihood)
    arch = case["arch"].replace("gated", "mlp")  # whose hidden layers differ, and nothing that others see
    seen = case | {"likelihood": likelihood.kind, "arch": arch}
    yield from (pair for pair in itertools.combinations(seen.items(), 2) if not {field for field, _ in pair} >= APART)
    yield arch, likelihood.parameters
    yield "arch", case["arch"]


def in_pairs(cases):
    """Few of the cases, in which every two names that stand together in one of them still do."""
    pairs = [set(pairs_of(case)) for case in cases]
    missing = set().union(*pairs)
    while missing:
        best = max(range(len(cases)), key=lambda i: len(pairs[i] & missing))
        missing -= pairs[best]
        yield cases[best]


EVERY = [dict(zip(NAMES, names, strict=True)) for names in itertools.product(*NAMES.values())]
EVERY = [names for names in EVERY if (names["objective"] == "m2") == (names["condition"] == "inferred")]  # to be quick
CASES = sorted(in_pairs([names for names in EVERY if settings_of(names)]), key=lambda names: names["arch"])


def with_every_name(cases):
    """Few of them that name everything but each likelihood, whose formulas have tests of their own."""
    names = [{item for item in case.items() if item[0] != "likelihood"} for case in cases]
    missing = set().union(*names)
    while missing:
        best = max(range(len(cases)), key=lambda i: len(names[i] & missing))
        missing -= names[best]
        yield cases[best]


QUICK = list(with_every_name(CASES))
"""The other pairs are slow ones."""


def test_the_cases_are_few_and_name_everything():
    assert len(CASES) < 40
    for field, names in NAMES.items():
        assert {case[field] for case in CASES} == set(names)


def keys_of(objective):
    """Of all latents of all examples that the objective draws, [latents, batch]."""
    if objective.latents == 1:
        return BATCH.keys[None]
    return jax.vmap(jax.vmap(jax.random.fold_in, (0, None)), (None, 0))(BATCH.keys, jnp.arange(objective.latents))


def before_reflections(posterior, z):
    """The posterior and the latents, [latents, batch, latent], where its dimensions are independent."""
    if posterior.independent:
        return posterior, np.float64(z)
    turns = [oracles.reflections(vectors) for vectors in posterior.vectors]
    return posterior.base, np.einsum("bij,lbi->lbj", turns, np.float64(z))


def log_posterior(posterior, z):
    """Log density of latents, [latents, batch]."""
    before, z_before = before_reflections(posterior, z)
    return oracles.gaussian_log_prob(z_before, before.mean, np.exp(np.float64(before.logvar) / 2)).sum(axis=-1)


def log_prior(model, params, z):
    """Log density of latents under the prior by SciPy, but for that of a flow, which has its own test."""
    own = model.prior_params(params, BATCH.labels if model.classes else None)
    if "constants" in own:
        return np.asarray(model.log_prior(params, jnp.float32(z)))
    if "logits" not in own:
        own = own or {"mean": np.float32(0), "logvar": np.float32(0)}
        return oracles.gaussian_log_prob(z, own["mean"], np.exp(np.float64(own["logvar"]) / 2)).sum(axis=-1)
    weights = np.exp(np.float64(own["logits"]))
    given = np.float64(own["mean"]), np.exp(np.float64(own["logvar"]) / 2), weights / weights.sum()
    return oracles.mixture_log_prob(z, *given)


def divergence(model, params, posterior, z):
    """KL divergence of posteriors from the prior, in the way of the model: exact, or estimated from the latents."""
    if model.estimates_kl:
        log_q = log_posterior(posterior, z)
        return np.mean([log_q[i] - log_prior(model, params, z[i]) for i in range(len(z))], axis=0)
    before, _ = before_reflections(posterior, z)  # which N(0, I) does not see
    own = model.prior_params(params, BATCH.labels if model.classes else None)
    own = own or {name: np.zeros((6, 4)) for name in ("mean", "logvar")}
    centres, variances = np.float64(own["mean"]), np.exp(np.float64(own["logvar"]))
    sigma = np.exp(np.float64(before.logvar) / 2)
    each = zip(np.float64(before.mean), sigma, centres, map(np.diag, variances), strict=True)
    return np.array([oracles.kl_to_gaussian(*one) for one in each])


def surprise(model, params):
    """Minus the log probability of each example's class by the classifier, from its values in float64."""
    scores = np.float64(applied(model.classifier, params["classifier"], BATCH.inputs, "float32"))
    return -special.log_softmax(scores, axis=1)[np.arange(6), np.searchsorted(model.classes, LABELS)]


def objective_of(settings, model, params, posterior, z, losses, kl):
    """What is minimised of each example, by the formulas: from the losses of its latents, [latents, batch]."""
    if settings.objective == "m2":
        return losses[0] + settings.beta * kl + settings.classification_weight * surprise(model, params)
    if settings.objective == "elbo":
        return losses[0] + settings.beta * kl
    if settings.objective == "sparse":
        return losses[0] + settings.sparsity_weight * np.abs(posterior.mean).sum(axis=1)
    if settings.objective == "tc":
        sigmas = np.exp(np.float64(posterior.logvar) / 2)
        joint, dimensions = oracles.minibatch_weighted(z[0], posterior.mean, sigmas, images=1)
        return losses[0] + kl + (settings.tc_weight - 1) * (joint - dimensions.sum(axis=1))
    log_weights = np.stack([log_prior(model, params, each) for each in z]) - log_posterior(posterior, z) - losses
    bounds = [oracles.importance_weighted_bound(log_weights[group::2]) for group in range(2)]
    return -(1 - settings.elbo_share) * np.mean(bounds, axis=0) - settings.elbo_share * np.mean(log_weights, axis=0)


def check_gradient(loss, params, gradient, value, summed):
    """Along each leaf's own gradient, by central differences that change the loss by half a thousandth or so.

    A loss that is `summed` over classes is rounded more.
    """
    leaves, tree = jax.tree.flatten(params)
    rounding = (5e-6 if summed else 1e-6) * abs(value)  # of the loss, in float32
    for place, slope in enumerate(jax.tree.leaves(gradient)):
        norm = np.linalg.norm(slope)
        step = min(0.01, 5e-4 * max(1.0, abs(value)) / norm)
        ends = []
        for way in (step, -step):
            moved = [leaf + way / norm * slope if i == place else leaf for i, leaf in enumerate(leaves)]
            ends.append(np.float64(loss(tree.unflatten(moved))))
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(norm, rel=0.02, abs=float(1e-3 + rounding / step)), (
            place
        )


def is_optimised(names):
    """As users get it, few of dense layers: the others take too long, and layers on maps all the more."""
    return names["arch"] == "mlp" and names["likelihood"] in ("bernoulli", "learned_gaussian")


def marks_of(names):
    slow = [pytest.mark.slow] * (names not in QUICK)
    return [*slow, *([pytest.mark.optimised] * is_optimised(names))]


@pytest.mark.parametrize(
    "names",
    [pytest.param(names, marks=marks_of(names)) for names in CASES],
    ids=lambda names: "-".join(names.values()),
)
def test_a_model_is_right_by_the_formulas_and_its_gradient_by_differences_and_finite_at_the_extremes(names):
    settings = settings_of(names)
    model, objective = build_model(settings, SHAPE, LABELS), OBJECTIVES.make(settings.objective, settings)
    check_model(model)
    rng, shapes = np.random.default_rng(1), jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.float32(0.4 * rng.normal(size=leaf.shape)), shapes)

    def mean(params, batch):
        terms = objective(model, params, batch, jnp.float32(3), objective.statistics(model, params, batch))
        return jnp.mean(terms.objective), terms

    def everything(params, batch):
        value = jax.value_and_grad(mean, has_aux=True)(params, batch)
        posterior = model.encode(params, batch.inputs, batch.labels)
        z = jax.vmap(posterior.sample)(keys_of(objective))
        every = jax.vmap(lambda z: model.decode(params, z, batch.labels))(z)
        decoded = every[0]
        given = {} if model.stochastic else {"codes": posterior.mean}
        made = [
            model.likelihood.mean(decoded),
            model.generate(params, jax.random.key(2), 6, labels=batch.labels, **given),
        ]
        if model.likelihood.kind != "none":
            made.append(model.likelihood.sample(jax.random.key(3), decoded))
            return *value, posterior, z, every, made, model.likelihood.log_prob(decoded, made[-1])
        return *value, posterior, z, every, made

    compiled = jax.jit(everything)
    found = compiled(params, BATCH)
    (value, terms), gradient, posterior, z, every, made, *_ = found
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))
    # That which dreg gives the encoder is not the value's own, see test_importance.
    others = {"encoder", "condition"} if settings.objective == "dreg" else set()
    own, free = ({name: of for name, of in tree.items() if name not in others} for tree in (gradient, params))
    check_gradient(lambda free: compiled(params | free, BATCH)[0][0], free, own, float(value), model.infers)

    x = np.asarray(BATCH.x)
    losses = np.stack(
        [oracles.reconstruction_loss(settings.likelihood, decoded, x).sum(axis=(1, 2, 3)) for decoded in every]
    )
    np.testing.assert_allclose(terms.reconstruction, losses.mean(axis=0), rtol=1e-5, atol=1e-5)
    kl = np.zeros(6)
    if model.stochastic:
        kl = divergence(model, params, posterior, z) + (np.log(3) if model.infers else 0)
    np.testing.assert_allclose(terms.kl, kl, rtol=1e-4, atol=1e-4)
    expected = objective_of(settings, model, params, posterior, z, losses, kl)
    np.testing.assert_allclose(terms.objective, expected, rtol=1e-5, atol=1e-4)
    assert float(value) == pytest.approx(float(np.mean(terms.objective)), rel=1e-5, abs=1e-6)
    for images in made:
        assert images.shape == (6, *SHAPE)
        if "bernoulli" in settings.likelihood or model.likelihood.levels:
            assert 0 <= np.min(images) < np.max(images) <= 1

    times = 3 if settings.arch == "residual" else 30  # which is deeper
    far = jax.tree.map(lambda leaf: times * leaf, params)  # outputs of some thousands
    for of, pixel in itertools.product((params, far), (0.0, 100 / 255, 1.0)):
        same = jnp.full_like(BATCH.x, pixel)
        for leaf in jax.tree.leaves(compiled(of, BATCH._replace(x=same, inputs=same))):
            assert np.isfinite(leaf).all(), pixel
