"""The one train step, the order of an epoch, and the compiled loop of steps.

The whole state of training is (params, opt_state, step) and, where used, the moving average. Randomness has no
state: the order of an epoch comes from fold_in(order key, epoch), the noise of an example from
fold_in(fold_in(noise key, step), example index).
"""

from functools import partial
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, UInt8

from vae_jax.config import Settings
from vae_jax.models.autoencoders import AnyModel, Parameters
from vae_jax.models.inputs import corrupt, noise_keys, preprocess
from vae_jax.models.objectives import kl_weight, total
from vae_jax.training.devices import ONE_DEVICE, Layout
from vae_jax.training.optimizer import global_norm, steps_per_epoch


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
    axis: str | None = None,
    chunks: int = 1,
    number: Float[Array, ""] | None = None,
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
        axis: of the devices that hold the rest of the batch.
        chunks: parts of the batch, as many examples each, whose gradients are taken one after another and summed.
        number: images of the whole batch, on all devices; by default the sum of the weights.
    """
    step_key = jax.random.fold_in(noise_key, state.step)
    keys = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(step_key, i)))(indices)
    x = preprocess(images, settings.binarize, keys[:, 0])
    inputs = corrupt(x, settings.corruption, settings.corruption_level, noise_keys(keys[:, 1]))
    weight: Any = settings.sparsity_weight
    if settings.model == "vae":
        weight = kl_weight(state.step.astype(jnp.float32), settings.beta, settings.kl_warmup_steps)

    if number is None:
        number = total(jnp.sum(weights), axis)

    def objective(params: Parameters, part: tuple[Array, Array, Array, Array]) -> tuple[Any, Any]:
        # This part's share of the means: the sum of the shares' gradients is the gradient of the mean.
        x, inputs, keys, weights = part
        terms = model.loss_terms(params, x, keys, weight, settings.free_bits, weights, inputs, axis)
        shares = [jnp.sum(term * weights) / number for term in terms]
        return shares[0], shares

    shares, gradient = _summed_gradient(objective, state.params, (x, inputs, keys[:, 1], weights), chunks)
    means, gradient = total((shares, gradient), axis)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = state.ema_params
    if ema is not None:
        # A young average forgets faster, so that it does not drag the initial parameters along.
        age = state.step.astype(jnp.float32)
        decay = jnp.minimum(settings.ema_decay, (1.0 + age) / (10.0 + age))
        ema = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, ema, params)
    objective_mean, reconstruction, kl = means
    metrics = StepMetrics(objective_mean, reconstruction, kl, global_norm(gradient), number)
    return TrainState(params, opt_state, state.step + 1, ema), metrics


def _summed_gradient(objective: Any, params: Parameters, batch: Any, chunks: int) -> tuple[Any, Any]:
    # Values and gradients of the chunks' shares, summed.
    gradient_of = jax.value_and_grad(objective, has_aux=True)
    if chunks == 1:
        (_, shares), gradient = gradient_of(params, batch)
        return shares, gradient

    def add(sums: Any, part: Any) -> tuple[Any, None]:
        (_, shares), gradient = gradient_of(params, part)
        return jax.tree.map(jnp.add, sums, (shares, gradient)), None

    parts = jax.tree.map(lambda values: values.reshape(chunks, -1, *values.shape[1:]), batch)
    zeros = ([jnp.float32(0)] * 3, jax.tree.map(jnp.zeros_like, params))
    return jax.lax.scan(add, zeros, parts)[0]


def chunks_of(model: AnyModel, settings: Settings, examples: int) -> int:
    """How many chunks a step makes of the examples on one device: several of many ones of convolutions on a CPU.

    Their maps then stay in its cache. One where the objective has means over the whole batch.
    """
    if model.chunk is None or settings.free_bits or settings.sparsity == "kl":
        return 1
    fewest = -(-examples // model.chunk)
    return next((n for n in range(fewest, 2 * fewest + 1) if examples % n == 0), 1)


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


def zero_metrics(steps: int) -> StepMetrics:
    """The metrics of an epoch of so many steps of which none is done."""
    return StepMetrics(*(jnp.zeros(steps) for _ in StepMetrics._fields))


def _rows(images: Array, indices: Array) -> Array:
    # images[indices]; of flat images, as XLA on the CPU works out the place of every pixel from its indices.
    return images.reshape(len(images), -1)[indices].reshape(*indices.shape, *images.shape[1:])


def run_steps(
    model: AnyModel,
    optimizer: optax.GradientTransformation,
    settings: Settings,
    state: TrainState,
    metrics: StepMetrics,
    images: UInt8[Array, "*n height width channels"],
    batches: Batches,
    noise_key: Key[Array, ""],
    start: Int[Array, ""],
    stop: Int[Array, ""],
    layout: Layout = ONE_DEVICE,
    first: Int[Array, ""] | None = None,
) -> tuple[TrainState, StepMetrics]:
    """Steps `start` to `stop` - 1 of an epoch, as one compiled loop of the train step.

    One program serves every part of an epoch, so the parameters don't depend on how it was cut.

    Args:
        model: what to train.
        optimizer: from `make_optimizer`.
        settings: as for `train_step`.
        state: state before the first of the steps.
        metrics: of the epoch's steps so far, [steps]; gives them back with those of these steps set.
        images: the whole data set, pixels 0..255; with `first` the batches of some steps, [k, batch, ...].
        batches: the order of the epoch, as `layout` divides it: the part of this device.
        noise_key: as for `train_step`.
        start: first step, counted in the epoch.
        stop: the step after the last one.
        layout: of the devices.
        first: the step whose batch comes first in `images`.
    """
    chunks = chunks_of(model, settings, batches.indices.shape[1])
    sizes = total(jnp.sum(batches.weights, axis=1), layout.axis)

    def body(i: Array, carry: tuple[TrainState, StepMetrics]) -> tuple[TrainState, StepMetrics]:
        state, metrics = carry
        indices, weights = batches.indices[i], batches.weights[i]
        x = _rows(images, indices) if first is None else images[i - first]
        state, own = train_step(
            *(model, optimizer, settings, state, x, indices, weights, noise_key),
            axis=layout.axis,
            chunks=chunks,
            number=sizes[i],
        )
        return state, jax.tree.map(lambda values, value: values.at[i].set(value), metrics, own)

    return jax.lax.fori_loop(start, stop, body, (state, metrics))
