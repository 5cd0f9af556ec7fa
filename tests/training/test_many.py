import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.config import Settings
from vae_jax.data.dataset import Dataset, Split
from vae_jax.errors import RunError, UsageError
from vae_jax.models.autoencoders import build_model
from vae_jax.runs.recording import train_runs
from vae_jax.runs.run import load_run
from vae_jax.training.fit import fit
from vae_jax.training.many import fit_many, spread
from vae_jax.training.streaming import are_streamed

RNG = np.random.default_rng(0)
IMAGES = (RNG.uniform(size=(50, 6, 5, 1)) ** 3 * 255).astype(np.uint8)
LABELS = np.arange(50, dtype=np.int32) % 3
TRAIN, VALIDATION = Split(IMAGES[:42], LABELS[:42]), Split(IMAGES[42:], LABELS[42:])
SETTINGS = Settings(hidden_sizes=(9,), epochs=2, batch_size=8, learning_rate=0.01)


def variants(settings, **changes):
    number = len(next(iter(changes.values())))
    return [dataclasses.replace(settings, **{k: v[i] for k, v in changes.items()}) for i in range(number)]


def assert_each_is_as_if_alone(members):
    model = build_model(members[0], (6, 5, 1))
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


def test_seeds_trained_together_are_as_if_trained_alone():
    results = assert_each_is_as_if_alone(variants(SETTINGS, seed=[0, 1]))
    assert not np.allclose(*(jax.tree.leaves(result.params)[1] for result in results))


def test_betas_and_learning_rates_too_also_with_warm_up_and_moving_average():
    settings = dataclasses.replace(SETTINGS, kl_warmup_steps=3, ema_decay=0.9)
    assert_each_is_as_if_alone(variants(settings, beta=[0.0, 2.0], learning_rate=[0.01, 0.003]))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"sparsity": "l1", "sparsity_weight": [0.0, 1.0]}, marks=pytest.mark.slow),
        {"corruption": "gaussian", "corruption_level": [0.1, 0.5]},
        {"arch": "conv", "hidden_sizes": [(2,), (2,)], "seed": [0, 1]},
        pytest.param(
            {"arch": "conv", "hidden_sizes": [(2,), (2,)], "learning_rate": [0.01, 0.003]}, marks=pytest.mark.slow
        ),
    ],
    ids=["sparse", "denoising", "conv, in turn on a CPU", "conv, one order"],
)
def test_other_settings_and_convolutions_too(changes):
    fixed = {name: value for name, value in changes.items() if isinstance(value, str)}
    varied = {name: value for name, value in changes.items() if name not in fixed}
    results = assert_each_is_as_if_alone(variants(dataclasses.replace(SETTINGS, model="ae", **fixed), **varied))
    assert not np.allclose(*(jax.tree.leaves(result.params)[1] for result in results))


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
        (variants(SETTINGS, beta=[0.0, -1.0]), "--beta"),
        (variants(SETTINGS, device_data=["never", "never"]), "--device-data must be auto or always"),
    ],
)
def test_what_can_not_be_trained_together_is_refused(members, words):
    with pytest.raises(UsageError, match=words):
        fit_many(build_model(SETTINGS, (6, 5, 1)), TRAIN, VALIDATION, members)


def test_images_live_on_the_device_also_where_one_model_alone_would_stream_them(monkeypatch):
    monkeypatch.setattr("vae_jax.training.streaming.memory_bytes", lambda device: 0)
    members = variants(dataclasses.replace(SETTINGS, epochs=1), seed=[0, 1])
    assert are_streamed(members[0], TRAIN.images.nbytes)
    assert len(fit_many(build_model(members[0], (6, 5, 1)), TRAIN, VALIDATION, members)) == 2


def test_a_class_with_fewer_images_than_steps_is_refused():
    labels = np.int32([0] * 3 + [1] * 39)
    members = variants(SETTINGS, classes=[(0,), (1,)])
    with pytest.raises(UsageError, match="larger --batch-size"):
        fit_many(build_model(SETTINGS, (6, 5, 1)), Split(IMAGES[:42], labels), VALIDATION, members)


def test_a_member_that_diverges_is_named():
    members = variants(dataclasses.replace(SETTINGS, gradient_clip=0.0), learning_rate=[0.01, 1e6])
    with pytest.raises(RunError, match="number 2"):
        fit_many(build_model(SETTINGS, (6, 5, 1)), TRAIN, VALIDATION, members)


def test_runs_trained_together_are_runs_like_any_other(tmp_path):
    dataset = Dataset("mine", TRAIN, VALIDATION, Split(IMAGES[:8], LABELS[:8]), "a test", "0" * 64)
    members = variants(SETTINGS, seed=[0, 1])
    model, paths = build_model(SETTINGS, (6, 5, 1)), [tmp_path / "a", tmp_path / "b"]
    results = train_runs(paths, model, members, dataset)
    for path, member, result in zip(paths, members, results, strict=True):
        run = load_run(path)
        assert run.config == member
        assert [row["epoch"] for row in run.metrics] == [1, 2]
        for x, y in zip(jax.tree.leaves(run.params), jax.tree.leaves(result.params), strict=True):
            np.testing.assert_array_equal(x, y)
    with pytest.raises(UsageError, match="unfinished run"):
        train_runs(paths, model, members, dataset)


def test_runs_trained_together_keep_their_best_and_their_latest_checkpoint(tmp_path):
    # At this rate the second epoch is worse than the first.
    settings = dataclasses.replace(SETTINGS, learning_rate=0.3, epochs=3)
    dataset = Dataset("mine", TRAIN, VALIDATION, Split(IMAGES[:8], LABELS[:8]), "a test", "0" * 64)
    members, model = variants(settings, seed=[0, 1, 2, 3]), build_model(settings, (6, 5, 1))
    paths = [tmp_path / str(i) for i in range(4)]
    train_runs(paths, model, members, dataset)
    steps = []
    for path, member in zip(paths, members, strict=True):
        run, losses = load_run(path), [row["validation"]["loss"] for row in load_run(path).metrics]
        steps.append(run.step)
        assert run.step == 6 * (1 + int(np.argmin(losses)))
        assert load_run(path, "latest").step == 18
        alone = fit(model, TRAIN, VALIDATION, dataclasses.replace(member, epochs=3))
        assert [row["validation"]["loss"] for row in alone.history] == pytest.approx(losses, rel=1e-3)
    assert min(steps) < 18
