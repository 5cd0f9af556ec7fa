"""What a likelihood and a prior have of their own begins at the training images, whichever way these are trained on."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

from vae_jax.config import Settings
from vae_jax.data.dataset import Split
from vae_jax.models.autoencoders import build_model
from vae_jax.training.fit import fit
from vae_jax.training.many import fit_many
from vae_jax.training.recipe import Recipe
from vae_jax.training.start import MOST_IMAGES, fitted_own

RNG = np.random.default_rng(0)
IMAGES = (RNG.uniform(size=(60, 4, 4, 3)) ** 3 * 255).astype(np.uint8)
IMAGES[::2] //= 4
LABELS = np.arange(60, dtype=np.int32) % 2
TRAIN, VALIDATION = Split(IMAGES[:50], LABELS[:50]), Split(IMAGES[50:], LABELS[50:])
SETTINGS = Settings(hidden_sizes=(5,), epochs=1, batch_size=10, likelihood="discretized_logistic")
STILL = optax.sgd(0.0)
LEARNED = dataclasses.replace(SETTINGS, likelihood="learned_gaussian")


def recipe_of(settings):
    return Recipe(build_model(settings, (4, 4, 3)), settings, 50)


def test_the_learned_sigma_begins_at_the_deviation_of_what_the_loss_compares_with():
    def sigma(train, **changes):
        return float(
            np.exp(fitted_own(recipe_of(dataclasses.replace(LEARNED, **changes)), train)["decoder"]["log_sigma"])
        )

    assert sigma(TRAIN) == pytest.approx(np.std(TRAIN.images / 255), rel=1e-5)
    assert sigma(TRAIN, corruption="gaussian", corruption_level=5.0) == pytest.approx(sigma(TRAIN))
    assert sigma(TRAIN, binarize="threshold") == pytest.approx(np.std(TRAIN.images >= 128), rel=1e-5)
    share = np.mean(TRAIN.images) / 255
    assert sigma(TRAIN, binarize="dynamic") == pytest.approx(np.sqrt(share * (1 - share)), rel=0.05)
    assert sigma(Split(np.zeros_like(IMAGES), None)) == pytest.approx(1 / 255)
    many = Split(np.repeat(np.uint8([0, 255]), 1500).reshape(-1, 1, 1, 1) * np.ones((1, 4, 4, 3), np.uint8), None)
    assert len(many) > MOST_IMAGES
    assert sigma(many) == pytest.approx(0.5)  # evenly spaced
    assert fitted_own(recipe_of(Settings()), TRAIN) == {}


@pytest.mark.parametrize(
    "way",
    ["on the device", *(pytest.param(way, marks=pytest.mark.slow) for way in ("streamed", "many devices", "together"))],
)
def test_training_begins_there_and_other_data_is_no_new_program(way, missing):
    changes = {"streamed": {"device_data": "never"}, "many devices": {"parallel": "jit"}}.get(way, {})
    settings = dataclasses.replace(SETTINGS, ema_decay=0.5, prior="vamp", prior_components=4, **changes)
    model, other = build_model(settings, (4, 4, 3)), Split(255 - TRAIN.images, LABELS[:50])

    def trained(train, seed):
        member = dataclasses.replace(settings, seed=seed)
        if way == "together":
            still = [dataclasses.replace(member, learning_rate=rate) for rate in (1e-12, 2e-12)]
            return fit_many(model, train, VALIDATION, still)[1]
        return fit(model, train, VALIDATION, member, optimizer=STILL)

    for train, seed in ((TRAIN, 0), (other, 1)):
        missing.clear()
        result, wanted = trained(train, seed), fitted_own(recipe_of(settings), train)
        for params in (result.state.params, result.state.ema_params):
            for room, values in wanted.items():
                for name, value in values.items():
                    np.testing.assert_allclose(params[room][name], value, rtol=1e-6, atol=1e-6)
        assert train is TRAIN or not missing


@pytest.mark.parametrize(("number", "classes"), [(4, ()), (60, ()), (5, (0, 1)), (70, (0, 1))])
def test_pseudo_inputs_are_training_images_of_the_classes_in_turn(number, classes):
    settings = dataclasses.replace(SETTINGS, prior="vamp", prior_components=number)
    settings = dataclasses.replace(settings, condition="labels" if classes else "none")
    recipe = Recipe(build_model(settings, (4, 4, 3), classes), settings, 50)
    found = np.asarray(fitted_own(recipe, TRAIN)["prior"]["pseudo_inputs"])
    pixels = np.float32(TRAIN.images) / 255
    same = np.abs(found[:, None] - pixels[None]).max(axis=(2, 3, 4)) < 1e-6
    places = same.argmax(axis=1)
    assert same.any(axis=1).all()
    assert len(np.unique(places)) == min(number, 50)
    assert {"prior"} <= fitted_own(recipe, TRAIN).keys() <= {"prior", "decoder"}
    if classes:
        np.testing.assert_array_equal(TRAIN.labels[places], recipe.model.prior.labels)


def test_members_of_other_classes_begin_at_their_own_images():
    members = [dataclasses.replace(LEARNED, classes=(label,), learning_rate=1e-12) for label in (0, 1)]
    results = fit_many(build_model(LEARNED, (4, 4, 3)), TRAIN, VALIDATION, members)
    for label, result in enumerate(results):
        wanted = np.log(np.std(TRAIN.of_classes((label,)).images / 255))
        assert float(result.params["decoder"]["log_sigma"]) == pytest.approx(wanted, abs=1e-5)


def test_what_has_no_parameters_of_its_own_begins_as_it_did():
    settings = dataclasses.replace(SETTINGS, likelihood="bernoulli")
    result = fit(build_model(settings, (4, 4, 3)), TRAIN, VALIDATION, settings, optimizer=STILL)
    start = build_model(settings, (4, 4, 3)).init(jax.random.split(jax.random.key(0), 4)[0])
    assert jax.tree.structure(result.params) == jax.tree.structure(start)
    for a, b in zip(jax.tree.leaves(result.params), jax.tree.leaves(start), strict=True):
        np.testing.assert_array_equal(a, b)
