"""Classes of which only some are known: the bounds of M2 by their formulas, in training and in evaluation."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from vae_jax.config import Settings
from vae_jax.data.split import UNKNOWN, Split
from vae_jax.errors import UsageError
from vae_jax.models.autoencoders import build_model
from vae_jax.models.evaluation import class_probabilities, encode_images, error_rate, image_losses, likeliest
from vae_jax.models.inputs import Inputs
from vae_jax.models.objectives import ELBO
from vae_jax.models.semi_supervised import M2
from vae_jax.models.shapes import check_model

CLASSES = (-5, 2, 40)
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (7, 3, 2, 1), dtype=np.uint8)
LABELS = np.array([40, UNKNOWN, -5, UNKNOWN, 2, 2, UNKNOWN], np.int32)
BATCH = Inputs().batch(jnp.asarray(IMAGES), jnp.arange(7), jax.random.key(2), labels=jnp.asarray(LABELS))
PLACES = np.array([2, -1, 0, -1, 1, 1, -1])


@pytest.fixture(scope="module")
def affine():
    model = build_model(Settings(condition="inferred", hidden_sizes=(), latent_dim=2), (3, 2, 1), CLASSES)
    check_model(model)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return model, jax.tree.map(lambda leaf: jnp.float32(0.7 * RNG.normal(size=leaf.shape)), shapes)


def noise_of(keys):
    return np.stack([np.float64(jax.random.normal(key, (2,))) for key in keys])


def test_the_bounds_of_known_and_of_unknown_classes_are_those_of_the_paper(affine):
    model, params = affine
    terms = M2(2.0, 10, classification_weight=3.0)(model, params, BATCH, jnp.float32(5))
    reconstruction, kl, log_q = oracles.m2_terms(params, BATCH.x, noise_of(BATCH.keys), PLACES)
    np.testing.assert_allclose(terms.reconstruction, reconstruction, rtol=1e-5)
    np.testing.assert_allclose(terms.kl, kl, rtol=1e-5)
    surprise = np.where(PLACES < 0, 0, -log_q[np.arange(7), PLACES])
    np.testing.assert_allclose(terms.objective, reconstruction + 0.5 * 2 * kl + 3 * surprise, rtol=1e-5)


def test_until_its_head_start_ends_the_classifier_learns_from_known_classes_alone(affine):
    model, params = affine

    def gradient_of(labels, step):
        batch = BATCH._replace(labels=jnp.asarray(labels))
        return jax.grad(lambda p: jnp.sum(M2(head_start_steps=5)(model, p, batch, jnp.float32(step)).objective))(params)

    early, late = (jax.jit(gradient_of)(np.full(7, UNKNOWN, np.int32), step) for step in (4, 5))
    for leaf, later in zip(*map(jax.tree.leaves, (early["classifier"], late["classifier"])), strict=True):
        np.testing.assert_array_equal(leaf, 0)
        assert np.abs(later).max() > 0.01
    np.testing.assert_allclose(early["decoder"]["Dense_0"]["bias"], late["decoder"]["Dense_0"]["bias"], rtol=1e-5)
    assert np.abs(gradient_of(np.full(7, 2, np.int32), 0)["classifier"]["Dense_0"]["bias"]).max() > 0.01


def test_with_a_classifier_that_is_sure_the_bound_is_that_of_a_known_class(affine):
    model, params = affine
    sure = params | {"classifier": {"Dense_0": {"kernel": jnp.zeros((6, 3)), "bias": jnp.float32([0, 200, 0])}}}
    guessed, told = (
        M2()(model, sure, BATCH._replace(labels=jnp.full(7, label, jnp.int32)), jnp.float32(0))
        for label in (UNKNOWN, 2)
    )
    for a, b in zip(guessed, told, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    # And that is the conditional model's own, with -log p(y) more.
    alone = ELBO()(model, sure, BATCH._replace(labels=jnp.full(7, 2, jnp.int32)), jnp.float32(0))
    np.testing.assert_allclose(told.kl, alone.kl + np.log(3), rtol=1e-6)
    np.testing.assert_allclose(told.reconstruction, alone.reconstruction, rtol=1e-6)


def test_what_is_not_known_is_summed_over_in_evaluation(affine):
    model, params = affine
    key = jax.random.key(4)
    losses = image_losses(model, params, IMAGES, key, samples=1, labels=LABELS)
    keys = [jax.random.fold_in(jax.random.split(jax.random.fold_in(key, i))[1], 0) for i in range(7)]
    reconstruction, kl, _ = oracles.m2_terms(params, np.float64(IMAGES) / 255, noise_of(keys), PLACES)
    np.testing.assert_allclose(losses.reconstruction, reconstruction, rtol=1e-5)
    np.testing.assert_allclose(losses.kl, kl, rtol=1e-5)
    # log p(x) is above the sum over the classes of bounds of log p(x, y), and that above the bound with the classifier.
    unknown = image_losses(model, params, IMAGES, key, samples=4000)
    of_class = [image_losses(model, params, IMAGES, key, samples=4000, labels=np.full(7, y)).bound for y in CLASSES]
    np.testing.assert_allclose(unknown.bound, np.logaddexp.reduce(of_class), rtol=1e-5)
    assert (unknown.bound > -(unknown.reconstruction + unknown.kl)).all()


def test_images_are_encoded_with_the_likeliest_class_where_none_is_known(affine):
    model, params = affine
    key = jax.random.key(4)
    probabilities = class_probabilities(model, params, IMAGES, key)
    *_, log_q = oracles.m2_terms(params, np.float64(IMAGES) / 255, np.zeros((7, 2)), PLACES)
    np.testing.assert_allclose(probabilities, np.exp(log_q), rtol=1e-4)
    taken = np.array(CLASSES, np.int32)[log_q.argmax(axis=1)]
    np.testing.assert_array_equal(likeliest(probabilities, CLASSES), taken)
    mixed = np.where(LABELS == UNKNOWN, taken, LABELS)
    assert len(np.unique(taken)) > 1
    for given, told in ((LABELS, mixed), (None, taken)):
        found, wanted = (encode_images(model, params, IMAGES, key, labels=labels)[0] for labels in (given, told))
        np.testing.assert_array_equal(found, wanted)
    rate = error_rate(taken, LABELS)
    wrong = (taken != LABELS)[LABELS != UNKNOWN]
    assert rate == {"error_rate": wrong.mean(), "error_rate_se": pytest.approx((wrong.std() ** 2 / 4) ** 0.5)}
    assert error_rate(taken, np.full(7, UNKNOWN, np.int32)) == {}


def test_a_model_without_a_classifier_is_refused(affine):
    plain = build_model(Settings(condition="labels", hidden_sizes=(), latent_dim=2), (3, 2, 1), CLASSES)
    with pytest.raises(UsageError, match="m2 needs --condition inferred"):
        M2().check(plain)
    with pytest.raises(UsageError, match="infers no classes"):
        class_probabilities(plain, plain.init(jax.random.key(0)), IMAGES, jax.random.key(0))
    with pytest.raises(UsageError, match="labels must be among those that the model knows, -5, 2, 40, got -1"):
        image_losses(plain, plain.init(jax.random.key(0)), IMAGES, jax.random.key(0), labels=LABELS)


def test_so_many_labels_are_kept_as_many_of_each_class_by_the_seed():
    labels = np.array([3] * 9 + [7] * 5 + [UNKNOWN] * 4, np.int32)
    split = Split(np.zeros((18, 1, 1, 1), np.uint8), labels)
    found = [split.labelled(6, seed).labels for seed in (0, 0, 1)]
    for some in found:
        assert [(some == label).sum() for label in (3, 7, UNKNOWN)] == [3, 3, 12]
        assert (labels[some != UNKNOWN] == some[some != UNKNOWN]).all()
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])
    assert split.labelled(None, 0) is split
    for number in (3, 12):
        with pytest.raises(
            UsageError, match=f"--labels must be a multiple of the 2 classes, at most 5 of each, got {number}"
        ):
            split.labelled(number, 0)
    with pytest.raises(UsageError, match="--labels 4 needs labels"):
        Split(split.images).labelled(4, 0)
