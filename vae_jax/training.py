"""The one train step, the epoch compiled around it, and `fit`.

The whole state of training is (params, opt_state, step) and, where used, the moving average. Randomness has no
state: the order of an epoch comes from fold_in(order key, epoch), the noise of an example from
fold_in(fold_in(noise key, step), example index).
"""

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key, UInt8

from vae_jax.config import Settings, check_settings, epochs
from vae_jax.corruption import corrupt, noise_keys
from vae_jax.data import Split, check_batch_size, preprocess
from vae_jax.errors import RunError
from vae_jax.evaluation import evaluate
from vae_jax.models import AnyModel, Parameters
from vae_jax.objectives import kl_weight

Row = dict[str, Any]


class Keys(NamedTuple):
    """The independent streams of one root key."""

    init: Key[Array, ""]
    order: Key[Array, ""]
    noise: Key[Array, ""]
    evaluation: Key[Array, ""]

    @classmethod
    def from_seed(cls, seed: int) -> "Keys":
        """Split the root key of a seed."""
        return cls(*jax.random.split(jax.random.key(seed), 4))


@flax.struct.dataclass
class TrainState:
    """Everything that training carries from step to step."""

    # As a pytree it also holds shapes and shardings in place of arrays, hence no array types.
    params: Parameters
    opt_state: Any
    step: Any
    """Steps done so far, int32 []."""
    ema_params: Parameters | None = None

    @property
    def evaluation_params(self) -> Parameters:
        """The parameters to evaluate and save: the moving average where there is one."""
        return self.params if self.ema_params is None else self.ema_params


class StepMetrics(NamedTuple):
    """What a step reports: means over its batch in nats, the gradient's norm before clipping, and the batch's size."""

    objective: Float[Array, "*steps"]
    reconstruction: Float[Array, "*steps"]
    kl: Float[Array, "*steps"]
    gradient_norm: Float[Array, "*steps"]
    images: Float[Array, "*steps"]


class FitResult(NamedTuple):
    """What `fit` gives back."""

    params: Parameters
    """Parameters of the last epoch, or their moving average."""
    state: TrainState
    history: list[Row]
    """One row an epoch, as in metrics.jsonl."""


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Steps that see every image once; the last batch may be short."""
    return math.ceil(images / batch_size)


def total_steps(settings: Settings, images: int) -> int:
    """Steps of a whole run over so many training images."""
    return epochs(settings, images) * steps_per_epoch(images, settings.batch_size)


def warmup_steps(settings: Settings, images: int) -> int:
    """Steps in which the learning rate rises."""
    return max(1, round(settings.warmup_fraction * total_steps(settings, images)))


def make_optimizer(settings: Settings, images: int) -> optax.GradientTransformation:
    """Adam with clipping by global norm, linear warm-up and cosine decay, for so many training images."""
    warm = warmup_steps(settings, images)
    share = optax.warmup_cosine_decay_schedule(
        init_value=0.01,
        peak_value=1.0,
        warmup_steps=warm,
        decay_steps=max(total_steps(settings, images), warm + 1),
        end_value=0.01,
    )
    clip = optax.stateless(lambda gradient, _: _clip(gradient, settings.gradient_clip))
    # A product, as the rate may be traced: one for each of many models trained together.
    return optax.chain(clip, optax.adam(lambda step: settings.learning_rate * share(step)))


def global_norm(tree: Any) -> Float[Array, ""]:
    """Euclidean norm of all values of a tree together."""

    def square(leaf: Array) -> Array:
        # Column by column first: as one sum XLA stores the squares and is four times slower on the CPU.
        columns = jnp.sum(leaf**2, axis=tuple(range(leaf.ndim - 1)))
        return jnp.sum(jax.lax.optimization_barrier(columns))

    return jnp.sqrt(sum(map(square, jax.tree.leaves(tree)), jnp.float32(0)))


def _clip(gradient: Any, limit: float) -> Any:
    if not limit:
        return gradient
    scale = limit / jnp.maximum(global_norm(gradient), limit)
    return jax.tree.map(lambda leaf: leaf * scale, gradient)


def new_state(
    model: AnyModel, optimizer: optax.GradientTransformation, settings: Settings, key: Key[Array, ""]
) -> TrainState:
    """The state before the first step, with initial parameters drawn by `key`."""
    params = model.init(key)
    ema = jax.tree.map(jnp.copy, params) if settings.ema_decay else None
    return TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32), ema)


def init_state(model: AnyModel, optimizer: optax.GradientTransformation, settings: Settings) -> TrainState:
    """The state before the first step, decided by the seed alone."""
    return jax.jit(partial(new_state, model, optimizer, settings))(Keys.from_seed(settings.seed).init)


def train_step(
    model: AnyModel,
    optimizer: optax.GradientTransformation,
    settings: Settings,
    state: TrainState,
    images: UInt8[Array, "batch height width channels"],
    indices: Int[Array, " batch"],
    weights: Float[Array, " batch"],
    noise_key: Key[Array, ""],
) -> tuple[TrainState, StepMetrics]:
    """One step of gradient descent on the weighted mean of the objective.

    Args:
        model: what to train.
        optimizer: from `make_optimizer`.
        settings: beta, warm-up, free bits, sparsity, binarisation, corruption and the moving average are used.
        state: state before the step.
        images: pixels 0..255.
        indices: position of each image in the data set, which decides its noise.
        weights: 1 for an image, 0 for padding.
        noise_key: the stream from which step and index pick a key.
    """
    step_key = jax.random.fold_in(noise_key, state.step)
    keys = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(step_key, i)))(indices)
    x = preprocess(images, settings.binarize, keys[:, 0])
    inputs = corrupt(x, settings.corruption, settings.corruption_level, noise_keys(keys[:, 1]))
    weight: Any = settings.sparsity_weight
    if settings.model == "vae":
        weight = kl_weight(state.step.astype(jnp.float32), settings.beta, settings.kl_warmup_steps)

    def objective(params: Parameters) -> tuple[Any, Any]:
        terms = model.loss_terms(params, x, keys[:, 1], weight, settings.free_bits, weights, inputs)
        means = [jnp.sum(term * weights) / jnp.sum(weights) for term in terms]
        return means[0], means

    (_, means), gradient = jax.value_and_grad(objective, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = state.ema_params
    if ema is not None:
        # A young average forgets faster, so that it does not drag the initial parameters along.
        age = state.step.astype(jnp.float32)
        decay = jnp.minimum(settings.ema_decay, (1.0 + age) / (10.0 + age))
        ema = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, ema, params)
    objective_mean, reconstruction, kl = means
    metrics = StepMetrics(objective_mean, reconstruction, kl, global_norm(gradient), jnp.sum(weights))
    return TrainState(params, opt_state, state.step + 1, ema), metrics


class Batches(NamedTuple):
    """The order of one epoch."""

    indices: Int[Array, "steps batch"]
    """Which image stands where."""
    weights: Float[Array, "steps batch"]
    """1 for an image, 0 for padding."""


def shuffled(key: Key[Array, ""], number: int, batch_size: int) -> Batches:
    """A permutation of `number` images, each seen once; a short last batch is padded with images of weight 0."""
    steps = steps_per_epoch(number, batch_size)
    order = jax.random.permutation(key, number)
    order = jnp.concatenate([order, order[: steps * batch_size - number]]).reshape(steps, batch_size)
    return Batches(order, (jnp.arange(order.size) < number).astype(jnp.float32).reshape(order.shape))


def scan_epoch(
    model: AnyModel,
    optimizer: optax.GradientTransformation,
    settings: Settings,
    state: TrainState,
    images: UInt8[Array, "n height width channels"],
    batches: Batches,
    noise_key: Key[Array, ""],
) -> tuple[TrainState, StepMetrics]:
    """One epoch as one `lax.scan` of the train step; the metrics are those of every step, [steps]."""

    def body(state: TrainState, batch: Batches) -> tuple[TrainState, StepMetrics]:
        return train_step(model, optimizer, settings, state, images[batch.indices], *batch, noise_key)

    return jax.lax.scan(body, state, batches)


EpochFunction = Callable[..., tuple[TrainState, StepMetrics]]


def make_epoch(
    model: AnyModel, optimizer: optax.GradientTransformation, settings: Settings, number: int
) -> EpochFunction:
    """Compile-ready epoch over `number` images: (state, images, keys, epoch) -> (state, metrics [steps]).

    The state is donated.
    """

    @partial(jax.jit, donate_argnums=0)
    def epoch_function(state: TrainState, images: Array, keys: Keys, epoch: Array) -> tuple[TrainState, StepMetrics]:
        batches = shuffled(jax.random.fold_in(keys.order, epoch), number, settings.batch_size)
        return scan_epoch(model, optimizer, settings, state, images, batches, keys.noise)

    return epoch_function


def fit(
    model: AnyModel,
    train: Split,
    validation: Split,
    settings: Settings,
    *,
    state: TrainState | None = None,
    history: list[Row] | None = None,
    on_epoch: Callable[[TrainState, Row], None] | None = None,
    on_start: Callable[[], None] | None = None,
) -> FitResult:
    """Train until the epochs of the settings are done, or until early stopping.

    Args:
        model: from `build_model` with the same settings.
        train: images to learn from.
        validation: images for the validation loss of each row.
        settings: how.
        state: where to go on from, at the end of an epoch; by default the initial state of the seed.
        history: rows of the epochs that led to `state`.
        on_epoch: called with the state and the row after each epoch; the next epoch takes the state's memory over,
            so what is kept of it has to be copied.
        on_start: called once, when the epoch is compiled and the first epoch is about to start.

    Raises:
        UsageError: a setting outside its domain, or fewer images than a batch.
        RunError: a loss that is not finite, naming the term and the step.
    """
    check_settings(settings)
    train, validation = train.of_classes(settings.classes), validation.of_classes(settings.classes)
    check_batch_size(train, settings.batch_size)
    steps = steps_per_epoch(len(train), settings.batch_size)
    optimizer = make_optimizer(settings, len(train))
    keys = Keys.from_seed(settings.seed)
    # The epoch takes its state's memory over, so the caller's own state is copied.
    state = init_state(model, optimizer, settings) if state is None else jax.tree.map(jnp.copy, state)
    images, validation_images = jax.device_put((train.images, validation.images))
    history = list(history or [])
    epoch_function = make_epoch(model, optimizer, settings, len(train))
    epoch_function = epoch_function.lower(state, images, keys, jnp.int32(0)).compile()  # type: ignore[attr-defined]
    if on_start:
        on_start()

    for epoch in range(int(state.step) // steps, epochs(settings, len(train))):
        if has_stopped(history, settings, len(train)):
            break
        start = time.perf_counter()
        state, metrics = epoch_function(state, images, keys, jnp.int32(epoch))
        metrics = jax.tree.map(np.asarray, metrics)  # waits for the epoch to end
        seconds = time.perf_counter() - start
        check_finite(metrics, first_step=epoch * steps)
        scores = evaluate(
            model,
            state.evaluation_params,
            validation_images,
            keys.evaluation,
            samples=1,
            binarize=settings.binarize,
            corruption=settings.corruption,
            corruption_level=settings.corruption_level,
        )
        row = make_row(epoch + 1, (epoch + 1) * steps, metrics, scores, settings.beta, seconds)
        history.append(row)
        if on_epoch:
            on_epoch(state, row)
    return FitResult(state.evaluation_params, state, history)


def has_stopped(history: list[Row], settings: Settings, images: int) -> bool:
    """Whether early stopping ended the run: `patience` epochs without a lower validation loss since warm-up ended."""
    warm = max(warmup_steps(settings, images), settings.kl_warmup_steps)
    losses = [row["validation"]["loss"] for row in history if row["step"] >= warm]
    patience = settings.patience
    return patience > 0 and len(losses) > patience and min(losses[-patience:]) >= min(losses[:-patience])


def make_row(epoch: int, step: int, metrics: StepMetrics, scores: dict[str, float], beta: float, seconds: float) -> Row:
    """The row of metrics.jsonl for an epoch.

    Raises:
        RunError: a validation loss that is not finite.
    """
    images = metrics.images.astype(np.float64)
    train = {
        name: float(np.average(getattr(metrics, name).astype(np.float64), weights=images))
        for name in ("reconstruction", "kl", "objective")
    }
    validation = {name: scores[name] for name in ("reconstruction", "kl")}
    if not all(map(math.isfinite, validation.values())):
        raise RunError(
            _not_finite("validation " + next(k for k, v in validation.items() if not math.isfinite(v)), step)
        )
    # `loss` is reconstruction + beta * kl in every row, also while the KL weight still rises to beta.
    return {
        "epoch": epoch,
        "step": step,
        "beta": beta,
        "train": {"loss": train["reconstruction"] + beta * train["kl"], **train},
        "validation": {"loss": validation["reconstruction"] + beta * validation["kl"], **validation},
        "images_per_second": float(images.sum()) / seconds,
        "seconds": seconds,
    }


def check_finite(metrics: StepMetrics, first_step: int) -> None:
    """Raise where a step's metrics [steps] are not finite.

    Raises:
        RunError: naming the term and the step.
    """
    finite = np.stack([np.isfinite(values) for values in metrics])
    if not finite.all():
        step = int(np.argmin(finite.all(axis=0)))
        names = ["reconstruction", "kl", "objective", "gradient_norm"]
        term = next(name for name in names if not np.isfinite(getattr(metrics, name)[step]))
        raise RunError(_not_finite(term, first_step + step + 1))


def _not_finite(term: str, step: int) -> str:
    return (
        f"The {term} is not finite at step {step}: training stopped; the checkpoint of the epoch before it, "
        "if there was one, is kept.\nUse a smaller --learning-rate."
    )
