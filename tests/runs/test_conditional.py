"""Conditional models: what the networks see of a class, and that it stays with a run all the way."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import vae_jax
from vae_jax.__main__ import tool
from vae_jax.config import Settings
from vae_jax.data.split import Split
from vae_jax.errors import Interrupted, UsageError
from vae_jax.models.autoencoders import build_model
from vae_jax.models.conditions import beside_latent, conditions_of, one_hot
from vae_jax.models.objectives import ELBO
from vae_jax.runs import verify
from vae_jax.runs.preflight import check_trainable
from vae_jax.runs.run import filled, load_run
from vae_jax.training.fit import fit
from vae_jax.training.many import fit_many
from vae_jax.training.recipe import Recipe

SETTINGS = Settings(condition="labels", hidden_sizes=(8,), latent_dim=3, epochs=2, batch_size=64, learning_rate=0.01)
NAMES = tuple(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])


@pytest.fixture(scope="module")
def named(digits):
    return dataclasses.replace(digits, class_names=NAMES)


@pytest.fixture(scope="module")
def model(named):
    return build_model(SETTINGS, named.image_shape, conditions_of(SETTINGS, named))


@pytest.fixture(scope="module")
def run(named, model, tmp_path_factory):
    path = tmp_path_factory.mktemp("conditional") / "run"
    vae_jax.train_run(path, model, SETTINGS, named)
    return load_run(path)


def same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


def test_the_class_is_a_channel_of_the_image_and_more_numbers_of_the_latent():
    # Labels of any numbers; without hidden layers both networks are affine.
    model = build_model(dataclasses.replace(SETTINGS, hidden_sizes=()), (3, 2, 2), (40, -7))
    params = model.init(jax.random.key(0))
    rng, known = np.random.default_rng(0), params["condition"]
    x, z = rng.uniform(size=(5, 3, 2, 2)).astype(np.float32), rng.normal(size=(5, 3)).astype(np.float32)
    labels, places = np.array([40, -7, -7, 40, -7], np.int32), np.array([1, 0, 0, 1, 0])
    pictures, numbers = (np.float64(known[name])[places] for name in ("pictures", "numbers"))
    assert numbers.shape == (5, 2)
    for network, seen, found in (
        ("encoder", np.concatenate([x, pictures[..., None]], axis=-1), model.features(params, x, labels)),
        ("decoder", np.concatenate([z, numbers], axis=-1), model.decode(params, z, labels)),
    ):
        layer = {name: np.float64(leaf) for name, leaf in params[network]["Dense_0"].items()}
        expected = seen.reshape(5, -1) @ layer["kernel"] + layer["bias"]
        np.testing.assert_allclose(np.reshape(found, (5, -1)), expected, rtol=1e-5, atol=1e-5)


def test_at_each_place_of_a_latent_map_the_numbers_of_the_class_follow_its_own():
    settings = Settings(arch="residual", hidden_sizes=(4,), latent_dim=8, condition="labels")
    model = build_model(settings, (8, 8, 1), 3)
    assert (model.places, model.decoded_dim) == (4, 8 + 4 * 3)
    condition = model.init(jax.random.key(0))["condition"]
    z, chosen = jnp.arange(16.0).reshape(2, 8), one_hot(np.array([2, 0]), 2, model.classes)
    maps = np.reshape(beside_latent(condition, chosen, z, model.places), (2, 4, 5))
    np.testing.assert_array_equal(maps[..., :2], z.reshape(2, 4, 2))
    for image, label in enumerate((2, 0)):
        np.testing.assert_array_equal(maps[image, :, 2:], [condition["numbers"][label]] * 4)


def test_a_run_keeps_its_classes_and_gives_the_same_numbers_again(run, named, model):
    assert run.model == model
    assert run.classes == dict(zip(NAMES, range(10), strict=True))
    test, labels = run.summary["test"], named.test.labels
    assert run.evaluate(named.test.images, labels)["loss"] == pytest.approx(test["loss"], rel=1e-6)
    by_name = [NAMES[label] for label in labels]
    assert run.evaluate(named.test.images, by_name)["loss"] == pytest.approx(test["loss"], rel=1e-6)
    # With the wrong classes the bound is worse, so both networks see them.
    assert run.evaluate(named.test.images, (labels + 1) % 10)["loss"] > test["loss"] + 0.1
    assert all(good for _, good, _ in verify.check(run.path))


def test_the_numbers_of_each_class_are_those_of_its_images(run, named):
    each = run.summary["test"]["by_class"]
    assert list(each) == list(NAMES)
    assert sum(one["number"] for one in each.values()) == len(named.test)
    losses = run.losses(named.test.images, named.test.labels)
    total = np.float64(losses.reconstruction) + losses.kl
    for label, one in enumerate(each.values()):
        own = total[named.test.labels == label]
        assert one["loss"] == pytest.approx(own.mean(), rel=1e-6)
        assert one["loss"] == pytest.approx(one["reconstruction"] + one["kl"], rel=1e-6)
        assert one["loss_se"] == pytest.approx(own.std(ddof=1) / len(own) ** 0.5, rel=1e-6)


def test_images_are_made_of_a_class_at_the_same_latents(run):
    in_turn = run.generate(20, seed=3)
    for label, name in ((0, "zero"), (4, "four")):
        alone = run.generate(20, label=name, seed=3)
        np.testing.assert_array_equal(alone, run.generate(20, label=label, seed=3))
        np.testing.assert_allclose(alone[label::10], in_turn[label::10], atol=1e-6)
        assert not np.allclose(alone, run.generate(20, label=9, seed=3), atol=1e-3)


def test_a_conditional_run_goes_on_bit_for_bit(run, named, model, tmp_path):
    with pytest.raises(Interrupted):
        vae_jax.train_run(tmp_path / "run", model, SETTINGS, named, stop=lambda: 15)
    vae_jax.train_run(tmp_path / "run", model, SETTINGS, named, resume=True)
    same(load_run(tmp_path / "run", "latest").params, load_run(run.path, "latest").params)


def test_a_conditional_model_is_the_same_streamed_and_trained_with_others(run, named, model):
    # Bit for bit where XLA optimises, as the tests of streaming have it.
    whole = load_run(run.path, "latest").params
    streamed = fit(model, named.train, named.validation, dataclasses.replace(SETTINGS, device_data="never"))
    together = fit_many(model, named.train, named.validation, [SETTINGS, dataclasses.replace(SETTINGS, seed=1)])
    for other in (streamed, together[0]):
        for x, y in zip(jax.tree.leaves(other.params), jax.tree.leaves(whole), strict=True):
            np.testing.assert_allclose(x, y, rtol=2e-3, atol=1e-4)
    assert np.abs(together[1].params["condition"]["numbers"] - whole["condition"]["numbers"]).max() > 0.1


INFERRED = dataclasses.replace(SETTINGS, condition="inferred", labels=100, classification_weight=5.0)


@pytest.fixture(scope="module")
def inferring(named, tmp_path_factory):
    path = tmp_path_factory.mktemp("inferred") / "run"
    model = build_model(INFERRED, named.image_shape, conditions_of(INFERRED, named))
    with pytest.raises(Interrupted):
        vae_jax.train_run(path, model, INFERRED, named, stop=lambda: 15)
    vae_jax.train_run(path, model, INFERRED, named, resume=True)
    return load_run(path)


def test_a_run_that_infers_classes_needs_few_labels_and_none_afterwards(inferring, named):
    test, images = inferring.summary["test"], named.test.images
    probabilities = inferring.classify(images)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    likeliest = probabilities.argmax(axis=1).astype(np.int32)
    assert test["error_rate"] == pytest.approx((likeliest != named.test.labels).mean())
    assert test["error_rate"] == pytest.approx(inferring.metrics[-1]["validation"]["error_rate"], abs=0.2)
    assert test["error_rate"] < 0.7  # by chance 0.9
    assert inferring.evaluate(images)["loss"] == pytest.approx(test["loss"], rel=1e-6)
    np.testing.assert_array_equal(inferring.encode(images).means, inferring.encode(images, likeliest).means)
    some = np.where(np.arange(len(images)) % 2, -1, named.test.labels)
    np.testing.assert_array_equal(inferring.told(images, some), np.where(some == -1, likeliest, some))
    assert inferring.reconstruct(images[:3]).shape == (3, 8, 8, 1)
    assert not np.allclose(inferring.generate(2, label="zero"), inferring.generate(2, label="one"), atol=1e-3)
    assert all(good for _, good, _ in verify.check(inferring.path))


def test_a_run_with_few_labels_goes_on_bit_for_bit_and_sees_no_others(inferring, named):
    train = named.train.labelled(100, INFERRED.seed)
    other = dataclasses.replace(named, train=train, sha256="")
    assert conditions_of(INFERRED, other) == tuple(range(10))
    alone = fit(inferring.model, other.train, named.validation, dataclasses.replace(INFERRED, labels=None))
    same(alone.params, load_run(inferring.path, "latest").params)
    assert (filled(inferring, other).train.labels != -1).all()


REFUSED = {
    "needs the label of each image": lambda run, x: run.encode(x),
    "knows no class 'cat'": lambda run, x: run.generate(3, label="cat"),
    "must be among those that the model knows": lambda run, x: run.generate(3, label=10),
    "must be integers or words": lambda run, x: run.evaluate(x, [1, 2]),
    "must be among": lambda run, x: run.evaluate(x, [1, 2, 77]),
    r"The model is conditional": lambda run, x: run.decode(np.zeros((2, 3))),
}


@pytest.mark.parametrize("words", REFUSED)
def test_labels_that_are_missing_or_not_known_are_refused(words, run, named):
    with pytest.raises(UsageError, match=words):
        REFUSED[words](run, named.test.images[:3])


def test_labels_without_effect_are_refused(named):
    plain = build_model(Settings(hidden_sizes=(4,)), named.image_shape, 10)
    assert plain.classes == ()
    other = vae_jax.Run("there", plain, plain.init(jax.random.key(0)), Settings(), [], {"name": "x"}, None, 0)
    for call in (lambda: other.generate(2, label=3), lambda: other.decode(np.zeros((1, 2)), [3])):
        with pytest.raises(UsageError, match="has no effect: there was trained without --condition"):
            call()


def test_data_without_the_classes_to_train_on_is_refused_before_training(named, model, tmp_path):
    def without(part, chosen, labels=True):
        split = getattr(named, part).rows(np.flatnonzero(chosen(getattr(named, part).labels)))
        return dataclasses.replace(named, **{part: split if labels else Split(split.images, None)})

    for dataset, words in (
        (without("test", lambda y: y >= 0, labels=False), "needs labels, which the test images of digits have not"),
        (without("train", lambda y: y != 3), r"training images of each class, got three in the validation split only"),
        (without("train", lambda y: y == 3), r"needs at least two classes, got three alone"),
    ):
        with pytest.raises(UsageError, match=words):
            check_trainable(SETTINGS, dataset)
    some = dataclasses.replace(SETTINGS, classes=("three", 7))
    assert conditions_of(some, named) == (3, 7)
    result = fit(
        build_model(some, named.image_shape, (3, 7)),
        named.train,
        named.validation,
        dataclasses.replace(some, classes=(3, 7), epochs=1),
    )
    assert result.params["condition"]["numbers"].shape == (2, 2)
    other = build_model(SETTINGS, named.image_shape, 5)
    with pytest.raises(UsageError, match="among those that the model knows, 0, 1, 2, 3, 4, got"):
        vae_jax.train_run(tmp_path / "run", other, SETTINGS, named)
    assert not (tmp_path / "run").exists()
    for classes in (None, 1, [3], "ab"):
        with pytest.raises(UsageError, match="needs the labels of at least two classes"):
            build_model(SETTINGS, named.image_shape, classes)


def test_a_run_that_infers_is_drawn_of_known_classes_and_trained_by_m2(inferring):
    for drawn in (inferring.generate, inferring.draw):
        with pytest.raises(UsageError, match=r"labels must be among .* got -1"):
            drawn(2, label=-1)
    with pytest.raises(UsageError, match="must be trained by m2, got ELBO"):
        Recipe(inferring.model, INFERRED, 100, ELBO())


def test_commands_take_the_class_that_a_run_infers(inferring, named, tmp_path):
    images, run = named.test.images[:4], str(inferring.path)
    np.savez(tmp_path / "some.npz", images=images)
    tool(["encode", run, str(tmp_path / "some.npz"), "--output", str(tmp_path / "z.npz")])
    taken = inferring.classify(images).argmax(axis=1).astype(np.int32)
    with np.load(tmp_path / "z.npz") as found:
        assert found["classes"].tolist() == [list(inferring.classes)[label] for label in taken]
        np.testing.assert_allclose(found["means"], inferring.encode(images, taken).means, atol=1e-5)
    np.testing.assert_allclose(inferring.encode(images).means, inferring.encode(images, taken).means, atol=1e-5)
    ends = [str(tmp_path / f"{i}.png") for i in (0, 1)]
    for end, image in zip(ends, images, strict=False):
        Image.fromarray(image[..., 0]).save(end)
    tool(["interpolate", run, *ends, "--output", str(tmp_path / "way.png")])
    assert (tmp_path / "way.png").exists()


@pytest.mark.parametrize("condition", ["labels", "inferred"])
def test_a_config_whose_labels_are_damaged_is_refused(condition, run, tmp_path):
    content = json.loads((run.path / "config.json").read_text())
    assert content["dataset"]["labels"] == list(range(10))
    content["settings"]["condition"] = condition
    for labels in (None, [1], [1, 1], ["1", "2"], 10):
        content["dataset"]["labels"] = labels
        (tmp_path / "config.json").write_text(json.dumps(content))
        with pytest.raises(UsageError, match=r"damaged: dataset.labels is"):
            load_run(tmp_path)
