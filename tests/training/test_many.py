import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.config import Settings
from vae_jax.data.dataset import Dataset, Split
from vae_jax.errors import RunError, UsageError
from vae_jax.models.autoencoders import build_model
from vae_jax.models.evaluation import evaluate
from vae_jax.registry import PRIORS
from vae_jax.runs.run import load_run
from vae_jax.runs.together import train_runs
from vae_jax.training import streaming
from vae_jax.training.fit import fit
from vae_jax.training.many import fit_many, spread
from vae_jax.training.recipe import RATES
from vae_jax.training.step import Keys

RNG = np.random.default_rng(0)
IMAGES = (RNG.uniform(size=(50, 6, 5, 1)) ** 3 * 255).astype(np.uint8)
LABELS = np.arange(50, dtype=np.int32) % 3
TRAIN, VALIDATION = Split(IMAGES[:42], LABELS[:42]), Split(IMAGES[42:], LABELS[42:])
SETTINGS = Settings(hidden_sizes=(9,), epochs=2, batch_size=8, learning_rate=0.01)


def variants(settings, **changes):
    number = len(next(iter(changes.values())))
    return [dataclasses.replace(settings, **{k: v[i] for k, v in changes.items()}) for i in range(number)]


def assert_each_is_as_if_alone(members):
    model = build_model(members[0], (6, 5, 1), (0, 1, 2))
    results = fit_many(model, TRAIN, VALIDATION, members)
    assert len(results) == len(members)
    for member, result in zip(members, results, strict=True):
        alone = fit(model, TRAIN, VALIDATION, member)
        for x, y in zip(jax.tree.leaves(alone.state), jax.tree.leaves(result.state), strict=True):
            np.testing.assert_allclose(x, y, rtol=2e-3, atol=1e-5)
        for row, own in zip(alone.history, result.history, strict=True):
            assert row["beta"] == own["beta"]
            assert row["validation"] == pytest.approx(own["validation"], rel=1e-4)
            assert row["train"] == pytest.approx(own["train"], rel=1e-4)
    return results


TOGETHER = {
    "seeds": {"seed": [0, 1]},
    "rates": {"beta": [0.5, 2.0], "learning_rate": [0.01, 0.003], "kl_warmup_steps": 3, "ema_decay": 0.9},
    "denoising": {"model": "ae", "corruption": "gaussian", "corruption_level": [0.1, 0.5]},
    "augmented": {"augment": ("flip", "crop"), "seed": [0, 1]},
    "sparse": {"model": "ae", "sparsity": "l1", "sparsity_weight": [0.05, 1.0]},
    "vamp": {"prior": "vamp", "prior_components": 4, "seed": [0, 1]},
    "flow": {"prior": "flow", "prior_layers": 2, "learning_rate": [0.01, 0.003]},
    "mixture": {"prior": "mixture", "prior_components": 4, "seed": [0, 1]},
    "class": {"prior": "class", "condition": "labels", "seed": [0, 1]},
    "balanced": {"sampling": "balanced", "seed": [0, 1]},
    "m2": {"condition": "inferred", "classification_weight": 2.0, "labels": 6, "learning_rate": [0.01, 0.003]},
    "tc": {"objective": "tc", "tc_weight": [2.0, 8.0], "seed": [0, 1]},
    "dreg": {"objective": "dreg", "importance_samples": 2, "seed": [0, 1]},
    "conv, in turn on a CPU": {"model": "ae", "arch": "conv", "hidden_sizes": (2,), "seed": [0, 1]},
    "conv, one order": {"model": "ae", "arch": "conv", "hidden_sizes": (2,), "learning_rate": [0.01, 0.003]},
}

SLOW = set(TOGETHER) - {"rates", "dreg", "vamp", "m2"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in TOGETHER],
)
def test_models_trained_together_are_as_if_trained_alone_and_differ(name):
    varied = {key: value for key, value in TOGETHER[name].items() if isinstance(value, list)}
    fixed = {key: value for key, value in TOGETHER[name].items() if key not in varied}
    results = assert_each_is_as_if_alone(variants(dataclasses.replace(SETTINGS, **fixed), **varied))
    assert not np.allclose(*(jax.tree.leaves(result.params)[1] for result in results))


def test_every_prior_is_tried_above():
    assert set(PRIORS) - {"standard"} <= set(TOGETHER)


def test_every_rate_is_varied_above():
    assert set(RATES) <= {key for changes in TOGETHER.values() for key, value in changes.items() if type(value) is list}


def test_a_member_learns_from_its_own_classes_only():
    members = variants(SETTINGS, classes=[(0,), (1, 2)])
    model = build_model(SETTINGS, (6, 5, 1))
    first = fit_many(model, TRAIN, VALIDATION, members)
    images = IMAGES.copy()
    images[LABELS == 0] = 255 - images[LABELS == 0]
    second = fit_many(model, Split(images[:42], LABELS[:42]), Split(images[42:], LABELS[42:]), members)
    same = [
        all(np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (a.params, b.params)), strict=True))
        for a, b in zip(first, second, strict=True)
    ]
    assert same == [False, True]
    assert first[1].history[0]["validation"] == second[1].history[0]["validation"]


def test_each_member_is_validated_on_the_images_of_its_classes():
    members = variants(SETTINGS, classes=[(0, 1, 2), (0,)])
    model = build_model(SETTINGS, (6, 5, 1))
    for member, result in zip(members, fit_many(model, TRAIN, VALIDATION, members), strict=True):
        own, key = VALIDATION.of_classes(member.classes), Keys.from_seed(member.seed).evaluation
        wanted = evaluate(model, result.params, own.images, key, samples=1)
        assert result.history[-1]["validation"] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("size", [4, 7, 17, 20])
def test_spread_sees_each_position_once_and_fills_the_batches_evenly(size):
    positions = jnp.int32(RNG.permutation(100)[:20])
    batches = spread(jax.random.key(0), positions, jnp.int32(size), 4, 6)
    chosen = np.asarray(batches.indices)[np.asarray(batches.weights) == 1]
    assert sorted(chosen) == sorted(np.asarray(positions[:size]))
    assert np.ptp(np.asarray(batches.weights).sum(axis=1)) <= 1
    other = spread(jax.random.key(1), positions, jnp.int32(size), 4, 6)
    assert not np.array_equal(batches.indices, other.indices)


def test_the_number_of_programs_does_not_grow_with_the_members(compilations):
    counts, settings = [], dataclasses.replace(SETTINGS, epochs=1)
    for number in (2, 4, 2, 4):  # the first ones also compile what is shared, such as stacking two or four keys
        members = variants(settings, seed=range(number))
        fit_many(build_model(settings, (6, 5, 1)), TRAIN, VALIDATION, members)
        counts.append(len(compilations))
        compilations.clear()
    assert 0 < counts[3] <= counts[2]


@pytest.mark.parametrize(
    ("members", "words"),
    [
        (variants(SETTINGS, latent_dim=[2, 3]), "--latent-dim"),
        (variants(SETTINGS, patience=[3, 3]), "--patience"),
        (variants(SETTINGS, classes=[(0,), None]), "--classes"),
        (variants(SETTINGS, classes=[(0,), (7,)]), "--classes"),
        (variants(SETTINGS, classes=[(0,), (1, 2)], batch_size=[29, 29]), "--batch-size must be at most the 28"),
        (variants(SETTINGS, beta=[0.0, -1.0]), "--beta"),
        (variants(SETTINGS, device_data=["never", "never"]), "--device-data must be auto or always"),
    ],
)
def test_what_can_not_be_trained_together_is_refused(members, words):
    with pytest.raises(UsageError, match=words):
        fit_many(build_model(SETTINGS, (6, 5, 1)), TRAIN, VALIDATION, members)


def test_a_class_with_fewer_images_than_steps_is_refused():
    labels = np.int32([0] * 3 + [1] * 39)
    members = variants(SETTINGS, classes=[(0,), (1,)])
    with pytest.raises(UsageError, match="larger --batch-size"):
        fit_many(build_model(SETTINGS, (6, 5, 1)), Split(IMAGES[:42], labels), VALIDATION, members)


def test_a_member_that_diverges_is_named():
    members = variants(dataclasses.replace(SETTINGS, gradient_clip=0.0), learning_rate=[0.01, 1e6])
    with pytest.raises(RunError, match="number 2"):
        fit_many(build_model(SETTINGS, (6, 5, 1)), TRAIN, VALIDATION, members)


DATASET = Dataset("mine", TRAIN, VALIDATION, Split(IMAGES[:8], LABELS[:8]), "a test", "0" * 64)


@pytest.mark.parametrize("memory", [2**30, 0], ids=["on the device", "streamed one after another"])
def test_runs_trained_together_are_runs_like_any_other_wherever_their_images_fit(memory, tmp_path, monkeypatch):
    streams, compile_stream = [], streaming.compile_stream
    monkeypatch.setattr(streaming, "memory_bytes", lambda device: memory)
    monkeypatch.setattr(
        "vae_jax.training.fit.compile_stream", lambda *arguments: streams.append(1) or compile_stream(*arguments)
    )
    members = variants(SETTINGS, seed=[0, 1])
    model, paths, rows = build_model(SETTINGS, (6, 5, 1)), [tmp_path / "a", tmp_path / "b"], []
    results = train_runs(paths, model, members, DATASET, on_epoch=rows.extend)
    assert len(streams) == (0 if memory else 2)
    assert len(rows) == 4
    for path, member, result in zip(paths, members, results, strict=True):
        run = load_run(path)
        assert run.config == member
        assert [row["epoch"] for row in run.metrics] == [1, 2]
        assert run.summary["test"]["loss"] == pytest.approx(run.evaluate(DATASET.test.images)["loss"], abs=1e-5)
        alone = fit(model, TRAIN, VALIDATION, dataclasses.replace(member, device_data="always"))
        assert [row["validation"]["loss"] for row in alone.history] == pytest.approx(
            [row["validation"]["loss"] for row in run.metrics], rel=1e-4
        )
        for x, y in zip(jax.tree.leaves(run.params), jax.tree.leaves(result.params), strict=True):
            np.testing.assert_array_equal(x, y)
    with pytest.raises(UsageError, match="a finished run"):
        train_runs(paths, model, members, DATASET)


def test_runs_trained_together_keep_their_best_and_their_latest_checkpoint(tmp_path):
    # At this rate the second epoch is worse than the first.
    settings = dataclasses.replace(SETTINGS, learning_rate=0.3, epochs=3)
    members, model = variants(settings, seed=[0, 1, 2, 3]), build_model(settings, (6, 5, 1))
    paths = [tmp_path / str(i) for i in range(4)]
    steps = [run.step for run in train_runs(paths, model, members, DATASET)]
    for path, step in zip(paths, steps, strict=True):
        losses = [row["validation"]["loss"] for row in load_run(path).metrics]
        assert step == load_run(path).step == 6 * (1 + int(np.argmin(losses)))
        assert load_run(path, "latest").step == 18
    assert min(steps) < 18
