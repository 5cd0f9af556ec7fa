import dataclasses
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
from jax.sharding import PartitionSpec

from vae_jax.config import Settings, epochs, total_steps
from vae_jax.data.dataset import Split
from vae_jax.errors import RunError, UsageError
from vae_jax.models.autoencoders import build_model
from vae_jax.models.evaluation import evaluate, image_losses
from vae_jax.models.inputs import Inputs
from vae_jax.models.objectives import ELBO
from vae_jax.registry import OBJECTIVES
from vae_jax.training.devices import Layout
from vae_jax.training.fit import Hooks, fit, go_on
from vae_jax.training.history import has_stopped, score
from vae_jax.training.many import fit_many
from vae_jax.training.optimizer import global_norm, make_optimizer
from vae_jax.training.program import Progress
from vae_jax.training.recipe import Recipe
from vae_jax.training.step import (
    Data,
    Given,
    Keys,
    chunks_of,
    init_state,
    run_steps,
    shuffled,
    train_step,
    zero_metrics,
)

RNG = np.random.default_rng(0)
IMAGES = (RNG.uniform(size=(50, 6, 5, 1)) ** 3 * 255).astype(np.uint8)
TRAIN, VALIDATION = Split(IMAGES[:42], None), Split(IMAGES[42:], None)
SETTINGS = Settings(hidden_sizes=(9,), epochs=3, batch_size=8, learning_rate=0.01)


def recipe_of(settings=SETTINGS, **given):
    return Recipe(build_model(settings, (6, 5, 1)), settings, 42, **given)


def run(settings=SETTINGS, progress=None, history=(), **hooks):
    return go_on(recipe_of(settings), TRAIN, VALIDATION, progress, list(history), Hooks(**hooks))


def batch_of(number, weights):
    inputs = Inputs()
    return inputs.batch(jnp.asarray(IMAGES[:number]), jnp.arange(number), jax.random.key(1), jnp.float32(weights))


def same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def straight():
    return run()


def test_rows_add_up_and_count_every_image_and_the_loss_falls(straight):
    assert [(row["epoch"], row["step"]) for row in straight.history] == [(1, 6), (2, 12), (3, 18)]
    for row in straight.history:
        for part in (row["train"], row["validation"]):
            assert abs(part["loss"] - (part["reconstruction"] + row["beta"] * part["kl"])) <= 1e-3
    assert straight.history[-1]["train"]["loss"] < straight.history[0]["train"]["loss"]


def test_with_steps_the_last_epoch_ends_early_and_the_schedule_with_it():
    settings = dataclasses.replace(SETTINGS, epochs=None, steps=14)
    result = run(settings)
    assert [(row["epoch"], row["step"]) for row in result.history] == [(1, 6), (2, 12), (3, 14)]
    assert int(result.state.step) == 14
    assert run(settings, Progress(result.state, zero_metrics(6)), result.history).history == result.history
    assert (epochs(settings, 42), total_steps(settings, 42)) == (3, 14)  # on which the schedule depends


def test_same_seed_same_parameters_other_seed_others(straight):
    same(straight.params, run().params)
    other = run(dataclasses.replace(SETTINGS, seed=1)).params
    assert not np.array_equal(jax.tree.leaves(other)[0], jax.tree.leaves(straight.params)[0])


def test_parameters_and_rows_do_not_depend_on_how_the_training_was_cut():
    parts, settings = {}, dataclasses.replace(SETTINGS, ema_decay=0.9)

    def keep(state, metrics):
        parts[int(state.step)] = Progress(*jax.tree.map(jnp.copy, (state, metrics)))

    straight = run(settings)
    cut = run(
        dataclasses.replace(settings, checkpoint_every_steps=4),
        on_part=lambda progress: keep(*progress[:2]),
        on_epoch=lambda state, row: keep(state, zero_metrics(6)),
    )
    assert {4, 6, 8, 12, 16, 18} <= set(parts)
    for step in (6, 8):  # an epoch's end, and within one
        resumed = run(settings, progress=parts[step], history=straight.history[:1])
        assert int(parts[step].state.step) == step  # still there: it was copied
        for other in (cut, resumed):
            same(straight.state, other.state)
            for row, expected in zip(other.history, straight.history, strict=True):
                assert (row["train"], row["validation"]) == (expected["train"], expected["validation"])


def test_each_function_is_compiled_once(compilations):
    after = []
    settings = dataclasses.replace(SETTINGS, epochs=4, hidden_sizes=(10,))
    run(settings, on_epoch=lambda *_: after.append(len(compilations)))
    assert after[0] > 0
    assert after[1:] == [after[0]] * 3


@pytest.mark.parametrize(
    "way", ["on the device", *(pytest.param(way, marks=pytest.mark.slow) for way in ("streamed", "together"))]
)
def test_another_seed_and_other_rates_are_no_new_program(way, missing):
    sizes = {"on the device": (11,), "streamed": (12,), "together": (13,)}[way]
    settings = dataclasses.replace(SETTINGS, epochs=1, hidden_sizes=sizes, corruption="gaussian")
    if way == "streamed":
        settings = dataclasses.replace(settings, device_data="never")

    def trained(**changes):
        first = dataclasses.replace(settings, **changes)
        model = build_model(first, (6, 5, 1))
        if way == "together":
            members = [first, dataclasses.replace(first, seed=first.seed + 7)]
            return fit_many(model, TRAIN, VALIDATION, members)[0].params
        return fit(model, TRAIN, VALIDATION, first).params

    jax.clear_caches()
    plain = jax.tree.leaves(trained())
    assert missing
    missing.clear()
    jax.clear_caches()  # as another process, which has what was compiled on its disk
    other = jax.tree.leaves(trained(seed=1, learning_rate=0.02, beta=3.0, corruption_level=0.5))
    assert not missing
    assert not any(np.array_equal(x, y) for x, y in zip(plain, other, strict=True))


def test_a_second_fit_takes_over_what_the_first_compiled(compilations):
    first = fitted(seed=0)
    before = len(compilations)
    assert before
    other = fitted(seed=3, learning_rate=0.02, beta=2.0)
    assert len(compilations) == before
    assert other.history[0]["train"]["kl"] != first.history[0]["train"]["kl"]


def test_no_program_of_the_past_serves_what_may_have_changed():
    # An entry of one's own, and an object that is given, each with another beta the second time.
    given, betas, kls = ELBO(), [1.0], []
    OBJECTIVES.register("mine", lambda settings: ELBO(beta=betas[-1]))
    try:
        for beta in (1.0, 9.0):
            betas.append(beta)
            object.__setattr__(given, "beta", beta)
            results = fitted(objective="mine"), fitted({"objective": given})
            kls.append([result.history[0]["train"]["kl"] for result in results])
    finally:
        OBJECTIVES.unregister("mine")
    assert kls[0][0] == kls[0][1] > kls[1][0] == kls[1][1]


def fitted(given=None, **changes):
    settings = dataclasses.replace(SETTINGS, epochs=1, hidden_sizes=(8,), **changes)
    return fit(build_model(settings, (6, 5, 1)), TRAIN, VALIDATION, settings, **(given or {}))


def test_images_are_augmented_in_training_and_not_in_evaluation():
    # Of images that are their own mirror images the same is learned, flipped or not; shifted ones are others.
    images = np.concatenate([IMAGES, IMAGES[:, :, ::-1]], axis=2)
    train, validation = Split(images[:42], None), Split(images[42:], None)
    flipped, plain, shifted = (
        dataclasses.replace(SETTINGS, epochs=1, augment=kinds) for kinds in (("flip",), (), ("crop",))
    )
    model = build_model(plain, (6, 10, 1))
    found = [fit(model, train, validation, settings) for settings in (flipped, plain, shifted)]
    for a, b in zip(jax.tree.leaves(found[0].params), jax.tree.leaves(found[1].params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert abs(found[2].history[0]["train"]["loss"] - found[1].history[0]["train"]["loss"]) > 1e-3
    wanted = evaluate(model, found[2].params, validation.images, Keys.from_seed(0).evaluation, samples=1)
    assert found[2].history[0]["validation"] == pytest.approx(wanted, rel=1e-6)


def test_overfits_eight_images():
    settings = Settings(
        model="ae", hidden_sizes=(64,), latent_dim=8, epochs=300, batch_size=8, likelihood="squared_error"
    )
    model = build_model(settings, (6, 5, 1))
    result = fit(model, Split(IMAGES[:8], None), VALIDATION, settings)
    spread = ((IMAGES[:8] / 255 - IMAGES[:8].mean(0) / 255) ** 2).sum((1, 2, 3)).mean()
    assert result.history[-1]["train"]["loss"] < 0.02 * spread


@pytest.mark.parametrize("device_data", ["always", "never"])
def test_every_image_is_seen_once_an_epoch_with_its_label_in_another_order_each(device_data):
    seen = []

    class Recorder(ELBO):
        def __call__(self, model, params, batch, step, statistics=None):
            values = batch.x[:, 0, 0, 0], batch.labels, batch.indices, batch.weights
            jax.debug.callback(lambda *values: seen.append(np.stack(values)), *(jnp.float32(v) for v in values))
            return super().__call__(model, params, batch, step)

    settings = dataclasses.replace(SETTINGS, model="ae", epochs=2, device_data=device_data)
    split = Split(np.arange(21, dtype=np.uint8).reshape(21, 1, 1, 1), np.arange(100, 121, dtype=np.int32))
    fit(build_model(settings, (1, 1, 1)), split, split, settings, objective=Recorder())
    jax.effects_barrier()
    assert [int(step[3].sum()) for step in seen] == [8, 8, 5] * 2
    epochs = [np.concatenate([step[:, step[3] > 0] for step in part], axis=1) for part in (seen[:3], seen[3:])]
    for pixels, labels, indices, _ in epochs:
        np.testing.assert_array_equal(np.sort(indices), np.arange(21))
        np.testing.assert_array_equal(labels, 100 + indices)
        np.testing.assert_array_equal(np.rint(255 * pixels), indices)
    assert not np.array_equal(*epochs)


def free_bits(settings, posterior, mean):
    return settings.beta * jnp.sum(jnp.maximum(settings.free_bits, mean(posterior.kl_per_dimension())))


def kl_of_means(settings, posterior, mean):
    p, q = settings.sparsity_target, mean(posterior.mean)
    return settings.sparsity_weight * jnp.sum(p * jnp.log(p / q) + (1 - p) * jnp.log((1 - p) / (1 - q)))


def total_correlation(settings, posterior, mean):
    z = posterior.sample(batch_of(12, [1] * 12).keys)[:10]
    q_mean, q_sigma = posterior.mean[:10], jnp.exp(0.5 * posterior.logvar[:10])
    each = jax.scipy.stats.norm.logpdf(z[:, None], q_mean[None], q_sigma[None])
    joint, marginals = jnp.exp(jnp.sum(each, axis=-1)), jnp.exp(each)
    value = jnp.log(jnp.mean(joint, axis=1)) - jnp.sum(jnp.log(jnp.mean(marginals, axis=1)), axis=-1)
    return mean(posterior.kl()) + (settings.tc_weight - 1) * jnp.mean(value)


@pytest.mark.parametrize(
    ("changes", "penalty"),
    [
        ({"objective": "tc", "tc_weight": 5.0, "latent_dim": 4}, total_correlation),
        ({"beta": 0.5}, lambda settings, posterior, mean: settings.beta * mean(posterior.kl())),
        ({"beta": 0.5, "free_bits": 0.175, "latent_dim": 4}, free_bits),
        ({"model": "ae", "code_activation": "sigmoid", "sparsity": "kl", "sparsity_weight": 3.0}, kl_of_means),
    ],
    ids=["total correlation", "plain", "free bits", "kl penalty"],
)
def test_a_step_in_chunks_and_with_padding_has_the_gradient_of_the_closed_form(changes, penalty):
    settings = dataclasses.replace(SETTINGS, **changes)
    recipe = recipe_of(settings, given_optimizer=optax.sgd(1.0))
    state, model = init_state(recipe), recipe.model
    batch = batch_of(12, [1] * 10 + [0] * 2)

    def whole(params):
        def mean(values):
            return jnp.mean(values[:10], axis=0)

        posterior = model.encode(params, batch.x)
        decoded = model.decode(params, posterior.sample(batch.keys))
        loss = mean(model.likelihood.reconstruction_loss(decoded, batch.x))
        return loss + penalty(settings, posterior, mean)

    nats = np.mean(model.encode(state.params, batch.x).kl_per_dimension()[:10], axis=0)
    assert not settings.free_bits or nats.min() < settings.free_bits < nats.max()
    value, gradient = jax.jit(jax.value_and_grad(whole))(state.params)
    for chunks in (1, 3):
        after, metrics = jax.jit(lambda state, chunks=chunks: train_step(recipe, state, batch, 10.0, chunks=chunks))(
            state
        )
        moved = jax.tree.map(jnp.subtract, state.params, after.params)
        assert float(metrics.objective) == pytest.approx(float(value), rel=1e-5)
        assert float(metrics.gradient_norm) == pytest.approx(float(global_norm(gradient)), rel=1e-4)
        for ours, expected in zip(jax.tree.leaves(moved), jax.tree.leaves(gradient), strict=True):
            np.testing.assert_allclose(ours, expected, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        ({}, 2),  # one of them for the sizes of all batches, before the first step
        ({"free_bits": 0.1}, 3),  # the means over the batch
        ({"model": "ae", "code_activation": "sigmoid", "sparsity": "kl"}, 3),
        ({"objective": "tc"}, 3),  # the rows of all examples
    ],
)
def test_what_devices_tell_each_other_in_a_step_is_one_message(changes, messages):
    recipe, layout = recipe_of(dataclasses.replace(SETTINGS, **changes)), Layout(tuple(jax.devices()[:1]))
    batches = layout.divided(shuffled(jax.random.key(1), 42, 8))

    def steps(*arguments):
        return run_steps(recipe, layout, *arguments)

    mesh, whole = jax.make_mesh((1,), ("batch",)), PartitionSpec()
    mapped = jax.shard_map(steps, mesh=mesh, in_specs=whole, out_specs=whole, check_vma=False)
    data = Data(jnp.asarray(IMAGES[:42]))
    program = jax.make_jaxpr(mapped)(init_state(recipe), zero_metrics(6), data, batches, Given.of(recipe), 0, 6)
    assert sum(str(program).count(f" {name}[") for name in ("psum", "psum_invariant", "all_gather")) == messages


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="Chunks are for the CPU only.")
@pytest.mark.parametrize(
    ("changes", "examples", "expected"),
    [
        ({}, 64, 1),
        ({}, 128, 2),
        ({}, 200, 4),
        ({}, 127, 1),  # a prime
        ({"free_bits": 0.1}, 128, 2),
        ({"objective": "iwae", "importance_samples": 2, "importance_groups": 3}, 128, 16),
        ({"objective": "iwae", "importance_samples": 1000}, 128, 128),
        ({"arch": "mlp"}, 128, 1),
    ],
)
def test_large_batches_of_convolutions_are_taken_in_chunks_on_a_cpu(changes, examples, expected):
    assert chunks_of(recipe_of(dataclasses.replace(Settings(arch="conv"), **changes)), examples) == expected


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
    recipe = recipe_of(dataclasses.replace(SETTINGS, ema_decay=0.95, epochs=1))
    state, batch = init_state(recipe), batch_of(8, [1] * 8)
    average = np.asarray(state.params["encoder"]["Dense_0"]["kernel"], np.float64)
    step = jax.jit(lambda state: train_step(recipe, state, batch, 8.0)[0])
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


def test_a_run_by_importance_weights_is_validated_by_its_bound():
    settings = dataclasses.replace(SETTINGS, objective="iwae", importance_samples=4, epochs=1)
    result = run(settings)
    key, validation = Keys.from_seed(0).evaluation, result.history[0]["validation"]
    losses = image_losses(build_model(settings, (6, 5, 1)), result.params, VALIDATION.images, key, samples=4)
    assert validation["iwae_loss"] == pytest.approx(-losses.bound.mean(), rel=1e-6)
    assert validation["loss"] == pytest.approx(np.mean(losses.reconstruction + losses.kl), rel=1e-6)
    rows = [{"step": 9, "validation": {"loss": loss, "iwae_loss": of}} for loss, of in ((1.0, 3.0), (2.0, 2.0))]
    assert [score(row) for row in rows] == [3.0, 2.0]
    patient = dataclasses.replace(SETTINGS, patience=1, warmup_fraction=0.0)
    assert not has_stopped(rows, patient, 100)
    assert has_stopped([{"step": 9, "validation": {"loss": row["validation"]["loss"]}} for row in rows], patient, 100)


def test_a_loss_that_is_not_finite_stops_with_term_and_step():
    settings = dataclasses.replace(SETTINGS, learning_rate=1e6, gradient_clip=0.0)
    with pytest.raises(
        RunError, match=r"(reconstruction|kl|objective|gradient_norm) is not finite at step \d+"
    ) as error:
        run(settings)
    assert len(str(error.value).splitlines()) <= 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((IMAGES, VALIDATION, SETTINGS), "train must be a vae_jax.Split, got ndarray"),
        ((TRAIN, (IMAGES, None), SETTINGS), "validation must be a vae_jax.Split, got tuple"),
        ((TRAIN, VALIDATION, {}), "settings must be a vae_jax.Settings, got dict"),
    ],
)
def test_what_is_no_split_and_no_settings_is_refused_with_how_to_make_them(arguments, words):
    model = build_model(SETTINGS, (6, 5, 1))
    with pytest.raises(UsageError, match=rf"{words}\.\nMake one: vae_jax\.S.*\(") as error:
        inspect.unwrap(fit)(model, *arguments)  # without the checks of types that the tests add
    assert len(str(error.value).splitlines()) == 2


def test_fewer_images_than_a_batch_are_refused():
    with pytest.raises(UsageError, match="--batch-size"):
        run(dataclasses.replace(SETTINGS, batch_size=43))


def test_global_norm_is_that_of_all_values():
    rng = np.random.default_rng(0)
    tree = {"scalar": rng.normal(), "vector": rng.normal(size=5), "kernel": rng.normal(size=(3, 3, 2, 4))}
    expected = np.linalg.norm(np.concatenate([np.ravel(leaf) for leaf in tree.values()]))
    np.testing.assert_allclose(jax.jit(global_norm)(jax.tree.map(jnp.float32, tree)), expected, rtol=1e-6)
