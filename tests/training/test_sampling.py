"""Which images an epoch is made of: how often each is drawn, and that it stays so however the training is cut."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from vae_jax.config import Settings
from vae_jax.data.split import UNKNOWN, Split
from vae_jax.errors import UsageError
from vae_jax.models.autoencoders import build_model
from vae_jax.models.objectives import ELBO
from vae_jax.registry import SAMPLINGS
from vae_jax.training.fit import Hooks, fit, go_on, make_recipe
from vae_jax.training.many import fit_many
from vae_jax.training.program import Progress
from vae_jax.training.sampling import Sampling, drawn, rareness, shares

RNG = np.random.default_rng(0)
IMAGES = (RNG.uniform(size=(50, 6, 5, 1)) ** 3 * 255).astype(np.uint8)
LABELS = np.array([3] * 20 + [UNKNOWN] * 15 + [8] * 10 + [5] * 5, np.int32)
TRAIN, VALIDATION = Split(IMAGES[:42], LABELS[:42]), Split(IMAGES[42:], LABELS[42:])
SETTINGS = Settings(hidden_sizes=(9,), epochs=3, batch_size=8, learning_rate=0.03)
MODEL = build_model(SETTINGS, (6, 5, 1))


@pytest.mark.parametrize("number", [1, 2, 37, 1000])
def test_an_image_is_drawn_as_often_as_its_weight_says_and_of_equal_weights_each_once(number):
    weights = np.random.default_rng(number).gamma(0.3, size=number)
    weights[: number // 3] = 0
    times = 2000 if number < 100 else 50
    every = jax.vmap(drawn, (0, None))(jax.random.split(jax.random.key(number), times), jnp.asarray(shares(weights)))
    counts = np.stack([np.bincount(row, minlength=number) for row in np.asarray(every)])
    wanted = number * weights / weights.sum()
    # At each time it is one of the two whole numbers next to it.
    assert (np.abs(counts - wanted) < 1 + 1e-4).all()
    part = wanted % 1
    error = np.sqrt(part * (1 - part) / times)
    assert (np.abs(counts.mean(axis=0) - wanted) <= 5 * error + 1e-4).all()
    alike = drawn(jax.random.key(1), jnp.asarray(shares(np.full(number, 0.1))))
    np.testing.assert_array_equal(alike, np.arange(number))


def weights_of(name, train=TRAIN, **settings):
    sampling = SAMPLINGS.make(name, dataclasses.replace(SETTINGS, sampling=name, **settings))
    return sampling.weights(
        MODEL, MODEL.init(jax.random.key(0)), train, make_recipe(MODEL, train, SETTINGS).inputs, jax.random.key(1)
    )


def test_weights_are_those_of_the_classes_or_of_what_is_known_or_of_the_histogram():
    of_class = {label: weights_of("balanced")[LABELS[:42] == label].sum() for label in np.unique(LABELS[:42])}
    np.testing.assert_allclose([*of_class.values()], 1)
    weights, known = weights_of("labelled", labelled_share=0.9), LABELS[:42] != UNKNOWN
    np.testing.assert_allclose(weights[known].sum() / weights.sum(), 0.9)
    assert len(np.unique(weights)) == 2
    # As they come where more are known than that, or all.
    np.testing.assert_allclose(weights_of("labelled", labelled_share=0.1), 1)
    np.testing.assert_allclose(weights_of("labelled", Split(IMAGES[:20], LABELS[:20])), 1)
    rare = weights_of("rare")
    assert (rare > 0).all()
    assert rare.max() > 2 * rare.min()
    means = RNG.normal(size=(300, 2)) ** 3
    np.testing.assert_allclose(rareness(means, 7, 0.02), oracles.rareness(means, 7, 0.02), rtol=1e-12)


@pytest.mark.parametrize("name", ["balanced", "labelled"])
def test_weights_by_labels_need_labels(name):
    with pytest.raises(UsageError, match=rf"--sampling {name} needs labels.*\n.*or use --sampling uniform"):
        fit(MODEL, Split(IMAGES[:42]), VALIDATION, dataclasses.replace(SETTINGS, sampling=name))


class Only(Sampling):
    """The images at some places, and how often it was asked."""

    weighs = True

    def __init__(self, *places):
        self.places, self.asked = places, 0

    def weights(self, model, params, train, inputs, key):
        self.asked += 1
        return np.isin(np.arange(len(train)), self.places).astype(np.float64)


def test_a_sampling_of_ones_own_is_asked_each_epoch_and_decides_what_is_seen():
    seen = []

    class Recorder(ELBO):
        def __call__(self, model, params, batch, step, statistics=None):
            jax.debug.callback(lambda *values: seen.append(np.stack(values)), jnp.float32(batch.indices), batch.weights)
            return super().__call__(model, params, batch, step)

    own = Only(3, 11, 40)
    fit(MODEL, TRAIN, VALIDATION, dataclasses.replace(SETTINGS, epochs=2), objective=Recorder(), sampling=own)
    jax.effects_barrier()
    indices, weights = np.concatenate(seen, axis=1)
    assert own.asked == 2
    assert weights.sum() == 84
    np.testing.assert_array_equal(np.unique(indices[weights > 0], return_counts=True), [[3, 11, 40], [28, 28, 28]])


def test_weights_of_another_number_are_refused():
    class Short(Only):
        def weights(self, *_):
            return np.ones(3)

    with pytest.raises(UsageError, match=r"must be \[42\], one an image, got shape \(3,\)"):
        fit(MODEL, TRAIN, VALIDATION, SETTINGS, sampling=Short())


@pytest.mark.parametrize("weights", [[0.0, 0.0], [1.0, -0.1], [1.0, np.nan], [np.inf, 1.0]])
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(UsageError, match="Sampling weights must be finite, none below 0 and not all 0"):
        shares(np.array(weights))


def same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.slow
@pytest.mark.optimised  # without, two programs of the same steps differ in rounding
def test_parameters_do_not_depend_on_where_images_lie_or_how_the_training_was_cut():
    # Of weights that change with the parameters, which within an epoch are no longer those that it began with.
    settings, kept = dataclasses.replace(SETTINGS, sampling="rare", ema_decay=0.9), {}

    def keep(progress):
        kept[int(progress.state.step)] = Progress(*jax.tree.map(jnp.copy, progress[:2]))

    straight = fit(MODEL, TRAIN, VALIDATION, settings)
    cut = dataclasses.replace(settings, checkpoint_every_steps=3)
    go_on(make_recipe(MODEL, TRAIN, cut), TRAIN, VALIDATION, None, [], Hooks(on_part=keep))
    for onward in (settings, dataclasses.replace(settings, device_data="never")):
        found = go_on(make_recipe(MODEL, TRAIN, onward), TRAIN, VALIDATION, kept[9], straight.history[:1], Hooks())
        same(straight.state, found.state)
    assert not np.array_equal(kept[3].state.shares, kept[9].state.shares)
    together = fit_many(MODEL, TRAIN, VALIDATION, [settings, dataclasses.replace(settings, seed=1)])
    for x, y in zip(jax.tree.leaves(together[0].params), jax.tree.leaves(straight.params), strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("changes", [{"classes": (3,), "sampling": "balanced"}])
def test_what_can_not_be_trained_together_is_refused(changes):
    with pytest.raises(UsageError, match="--sampling must be uniform for models trained together on --classes"):
        fit_many(MODEL, TRAIN, VALIDATION, [dataclasses.replace(SETTINGS, **changes)])
