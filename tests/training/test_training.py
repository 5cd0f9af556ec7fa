import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax.sharding import PartitionSpec

from vae_jax.config import Settings
from vae_jax.data.dataset import Split
from vae_jax.errors import RunError, UsageError
from vae_jax.models.autoencoders import Autoencoder, build_model
from vae_jax.training.devices import Layout
from vae_jax.training.fit import Progress, compile_program, fit, run_epoch
from vae_jax.training.history import has_stopped
from vae_jax.training.optimizer import global_norm, make_optimizer, steps_per_epoch
from vae_jax.training.step import chunks_of, init_state, run_steps, shuffled, train_step, zero_metrics

RNG = np.random.default_rng(0)
IMAGES = (RNG.uniform(size=(50, 6, 5, 1)) ** 3 * 255).astype(np.uint8)
TRAIN, VALIDATION = Split(IMAGES[:42], None), Split(IMAGES[42:], None)
SETTINGS = Settings(hidden_sizes=(9,), epochs=3, batch_size=8, learning_rate=0.01)


def run(settings=SETTINGS, **arguments):
    model = build_model(settings, (6, 5, 1))
    return fit(model, TRAIN, VALIDATION, settings, **arguments)


def same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def straight():
    return run()


def test_rows_add_up_and_count_every_image(straight):
    assert [row["epoch"] for row in straight.history] == [1, 2, 3]
    assert [row["step"] for row in straight.history] == [6, 12, 18]
    for row in straight.history:
        for part in (row["train"], row["validation"]):
            assert abs(part["loss"] - (part["reconstruction"] + row["beta"] * part["kl"])) <= 1e-3


def test_the_loss_falls(straight):
    assert straight.history[-1]["train"]["loss"] < straight.history[0]["train"]["loss"]


def test_same_seed_same_parameters_other_seed_others(straight):
    same(straight.params, run().params)
    other = run(dataclasses.replace(SETTINGS, seed=1)).params
    assert not np.array_equal(jax.tree.leaves(other)[0], jax.tree.leaves(straight.params)[0])


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_going_on_equals_a_straight_run(ema_decay):
    settings = dataclasses.replace(SETTINGS, ema_decay=ema_decay)
    states = {}

    def keep(state, row):
        states[row["epoch"]] = jax.tree.map(jnp.copy, state)

    whole = run(settings, on_epoch=keep)
    resumed = run(settings, progress=Progress(states[1], zero_metrics(6)), history=whole.history[:1])
    assert int(states[1].step) == 6  # still there: it was copied
    same(whole.state, resumed.state)
    timeless = [{k: v for k, v in row.items() if "second" not in k} for row in whole.history]
    assert timeless == [{k: v for k, v in row.items() if "second" not in k} for row in resumed.history]


def test_parameters_and_rows_do_not_depend_on_how_an_epoch_was_cut(straight):
    parts = []

    def keep(progress):
        parts.append(Progress(*jax.tree.map(jnp.copy, progress[:2])))

    settings = dataclasses.replace(SETTINGS, checkpoint_every_steps=4)
    same(straight.state, run(settings, on_part=keep).state)
    assert {4, 8, 16} <= {int(part.state.step) for part in parts}  # 12 is an epoch's end
    middle = next(part for part in parts if int(part.state.step) == 8)
    resumed = run(progress=middle, history=straight.history[:1])
    same(straight.state, resumed.state)
    for row, expected in zip(resumed.history, straight.history, strict=True):
        assert (row["train"], row["validation"]) == (expected["train"], expected["validation"])


def test_each_function_is_compiled_once(compilations):
    after = []
    settings = dataclasses.replace(SETTINGS, epochs=4, hidden_sizes=(10,))
    run(settings, on_epoch=lambda *_: after.append(len(compilations)))
    assert after[0] > 0
    assert after[1:] == [after[0]] * 3


def test_overfits_eight_images():
    settings = Settings(
        model="ae", hidden_sizes=(64,), latent_dim=8, epochs=300, batch_size=8, likelihood="squared_error"
    )
    model = build_model(settings, (6, 5, 1))
    result = fit(model, Split(IMAGES[:8], None), VALIDATION, settings)
    spread = ((IMAGES[:8] / 255 - IMAGES[:8].mean(0) / 255) ** 2).sum((1, 2, 3)).mean()
    assert result.history[-1]["train"]["loss"] < 0.02 * spread


def test_every_image_is_seen_once_an_epoch_in_another_order_each():
    settings = dataclasses.replace(SETTINGS, model="ae")
    seen = []

    class Recorder(Autoencoder):
        def loss_terms(self, params, x, keys, penalty_weight, free_bits, weights, inputs, axis):
            jax.debug.callback(lambda x, w: seen.append((np.asarray(x), np.asarray(w))), x[:, 0, 0, 0], weights)
            return super().loss_terms(params, x)

    model = Recorder(**vars(build_model(settings, (1, 1, 1))))
    images = jnp.arange(21, dtype=jnp.uint8).reshape(21, 1, 1, 1)
    progress = Progress(init_state(model, make_optimizer(settings, 21), settings), zero_metrics(3))
    program = compile_program(model, settings, images, progress.state)
    for number in (0, 1):
        progress = run_epoch(program, number, progress._replace(metrics=zero_metrics(3)), 0, None)
        np.testing.assert_array_equal(progress.metrics.images, [8, 8, 5])
    jax.effects_barrier()
    orders = [np.concatenate([np.rint(x[w > 0] * 255) for x, w in part]) for part in (seen[:3], seen[3:])]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(21))
    assert not np.array_equal(*orders)


def test_padding_changes_nothing():
    settings = dataclasses.replace(SETTINGS, free_bits=0.1)
    model, optimizer = build_model(settings, (6, 5, 1)), make_optimizer(settings, 42)
    state, key = init_state(model, optimizer, settings), jax.random.key(1)

    def step(number, weights):
        images, indices = jnp.asarray(IMAGES[:number]), jnp.arange(number)
        run = jax.jit(lambda s, w: train_step(model, optimizer, settings, s, images, indices, w, key))
        return run(state, jnp.float32(weights))

    padded, metrics = step(5, [1, 1, 1, 0, 0])
    plain, expected = step(3, [1, 1, 1])
    for a, b in zip(jax.tree.leaves((padded, metrics)), jax.tree.leaves((plain, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("model", ["vae", pytest.param("ae", marks=pytest.mark.slow)])
def test_a_step_in_chunks_is_that_of_the_whole_batch(model):
    settings = dataclasses.replace(SETTINGS, model=model, arch="conv", hidden_sizes=(3, 4))
    built, optimizer = build_model(settings, (6, 5, 1)), make_optimizer(settings, 42)
    state, key = init_state(built, optimizer, settings), jax.random.key(1)
    images, indices, weights = jnp.asarray(IMAGES[:12]), jnp.arange(12), jnp.float32([1] * 10 + [0] * 2)

    def step(chunks):
        run = jax.jit(lambda s: train_step(built, optimizer, settings, s, images, indices, weights, key, chunks=chunks))
        return run(state)

    for a, b in zip(jax.tree.leaves(step(3)), jax.tree.leaves(step(1)), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        ({}, 2),  # one of them for the sizes of all batches, before the first step
        ({"free_bits": 0.1}, 3),  # the means over the batch
        ({"model": "ae", "code_activation": "sigmoid", "sparsity": "kl"}, 4),  # and their gradient
    ],
)
def test_what_devices_tell_each_other_in_a_step_is_one_message(changes, messages):
    settings = dataclasses.replace(SETTINGS, **changes)
    layout, images = Layout(tuple(jax.devices()[:1])), jnp.asarray(IMAGES[:42])
    model, optimizer = build_model(settings, (6, 5, 1)), make_optimizer(settings, 42)
    state, batches = init_state(model, optimizer, settings), layout.divided(shuffled(jax.random.key(1), 42, 8))

    def steps(*arguments):
        return run_steps(model, optimizer, settings, *arguments, layout=layout)

    mesh, whole = jax.make_mesh((1,), ("batch",)), PartitionSpec()
    mapped = jax.shard_map(steps, mesh=mesh, in_specs=whole, out_specs=whole, check_vma=False)
    program = jax.make_jaxpr(mapped)(state, zero_metrics(6), images, batches, jax.random.key(2), 0, 6)
    assert str(program).count(" psum[") + str(program).count(" psum_invariant[") == messages


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"batch_size": 64}, 1),
        ({"batch_size": 128}, 2),
        ({"batch_size": 200}, 4),
        ({"batch_size": 127}, 1),  # a prime
        ({"batch_size": 128, "arch": "mlp"}, 1),
        ({"batch_size": 128, "free_bits": 0.1}, 1),
    ],
)
def test_large_batches_of_convolutions_are_taken_in_chunks_on_a_cpu(changes, expected):
    settings = dataclasses.replace(Settings(arch="conv"), **changes)
    assert chunks_of(build_model(settings, (8, 8, 1)), settings, settings.batch_size) == expected


def test_optimizer_is_adam_with_warm_up_and_cosine():
    settings = Settings(epochs=10, batch_size=10, learning_rate=0.1, warmup_fraction=0.2, gradient_clip=0.0)
    optimizer = make_optimizer(settings, 100)
    gradients = np.random.default_rng(0).normal(size=(60, 3))
    params = jnp.zeros(3)
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    total = np.zeros(3)
    for gradient in gradients:
        step, state = update(jnp.float32(gradient), state, params)
        total += np.asarray(step)
    steps = np.arange(60)
    rising = 0.001 + 0.099 * steps / 20
    falling = 0.001 + 0.099 * 0.5 * (1 + np.cos(np.pi * (steps - 20) / 80))
    rates = np.where(steps < 20, rising, falling)
    np.testing.assert_allclose(total, oracles.adam(gradients, rates), rtol=2e-3)


def test_gradient_clipping_bounds_the_global_norm():
    settings = Settings(epochs=1, gradient_clip=0.5)
    clipped = make_optimizer(settings, 10_000)
    plain = make_optimizer(dataclasses.replace(settings, gradient_clip=0.0), 10_000)
    gradient = jnp.float32([30.0, 40.0])
    first = clipped.init(gradient)
    _, after = clipped.update(gradient, first, gradient)
    _, expected = plain.update(gradient * 0.01, plain.init(gradient), gradient)
    np.testing.assert_allclose(jax.tree.leaves(after)[1], jax.tree.leaves(expected)[1], rtol=1e-5)


def test_moving_average_follows_its_formula():
    settings = dataclasses.replace(SETTINGS, ema_decay=0.95, epochs=1)
    model, optimizer = build_model(settings, (6, 5, 1)), make_optimizer(settings, 42)
    state, key = init_state(model, optimizer, settings), jax.random.key(1)
    average = np.asarray(state.params["encoder"]["Dense_0"]["kernel"], np.float64)
    images, indices = jnp.asarray(IMAGES[:8]), jnp.arange(8)
    step = jax.jit(lambda s: train_step(model, optimizer, settings, s, images, indices, jnp.ones(8), key)[0])
    for t in range(4):
        state = step(state)
        decay = min(0.95, (1 + t) / (10 + t))
        average = decay * average + (1 - decay) * np.asarray(state.params["encoder"]["Dense_0"]["kernel"])
    np.testing.assert_allclose(state.evaluation_params["encoder"]["Dense_0"]["kernel"], average, rtol=1e-5)


def test_kl_warm_up_starts_without_kl_and_ends_at_beta():
    settings = dataclasses.replace(SETTINGS, beta=2.0, kl_warmup_steps=4, batch_size=42, epochs=6)
    for epoch, row in enumerate(run(settings).history):
        train = row["train"]
        weight = 2.0 * min(epoch / 4, 1)
        assert train["objective"] == pytest.approx(train["reconstruction"] + weight * train["kl"], rel=1e-5)
        assert train["loss"] == pytest.approx(train["reconstruction"] + 2.0 * train["kl"], rel=1e-5)


@pytest.mark.parametrize(
    ("losses", "patience", "expected"),
    [
        ([3.0, 2.0, 1.0], 1, False),
        ([1.0, 2.0], 1, True),
        ([1.0, 2.0, 0.5], 1, False),
        ([1.0, 2.0, 3.0], 2, True),
        ([1.0, 2.0], 2, False),
        ([1.0, 2.0, 3.0], 0, False),
        ([0.1, 3.0, 2.0, 1.0], 1, False),  # the first epoch lies in warm-up
    ],
)
def test_early_stopping_counts_from_the_end_of_warm_up(losses, patience, expected):
    history = [{"step": 10 * (i + 1), "validation": {"loss": loss}} for i, loss in enumerate(losses)]
    kl_warmup_steps = 15 if len(losses) == 4 else 0
    settings = Settings(patience=patience, kl_warmup_steps=kl_warmup_steps, warmup_fraction=0.0)
    assert has_stopped(history, settings, 100) == expected


def test_early_stopping_ends_a_run():
    settings = dataclasses.replace(SETTINGS, learning_rate=1e-9, patience=2, epochs=50, warmup_fraction=0.0)
    assert len(run(settings).history) < 50


def test_a_loss_that_is_not_finite_stops_with_term_and_step():
    settings = dataclasses.replace(SETTINGS, learning_rate=1e6, gradient_clip=0.0)
    with pytest.raises(
        RunError, match=r"(reconstruction|kl|objective|gradient_norm) is not finite at step \d+"
    ) as error:
        run(settings)
    assert len(str(error.value).splitlines()) <= 2


def test_fewer_images_than_a_batch_are_refused():
    with pytest.raises(UsageError, match="--batch-size"):
        run(dataclasses.replace(SETTINGS, batch_size=43))


def test_steps_per_epoch_rounds_up():
    assert [steps_per_epoch(n, 8) for n in (8, 9, 16)] == [1, 2, 2]


def test_global_norm_is_that_of_all_values():
    rng = np.random.default_rng(0)
    tree = {"scalar": rng.normal(), "vector": rng.normal(size=5), "kernel": rng.normal(size=(3, 3, 2, 4))}
    expected = np.linalg.norm(np.concatenate([np.ravel(leaf) for leaf in tree.values()]))
    np.testing.assert_allclose(jax.jit(global_norm)(jax.tree.map(jnp.float32, tree)), expected, rtol=1e-6)
