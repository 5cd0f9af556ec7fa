"""The one train step, the order of an epoch, and the compiled loop of steps.

The whole state of training is (params, opt_state, step) and, where used, the moving average and the shares of an
epoch's draws. Randomness has no state: the order of an epoch comes from fold_in(order key, epoch), the noise of an
example from fold_in(fold_in(noise key, step), example index).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, UInt8

from vae_jax.config import steps_per_epoch
from vae_jax.models.autoencoders import Parameters
from vae_jax.models.inputs import Batch
from vae_jax.models.objectives import gathered, total
from vae_jax.training.devices import Layout
from vae_jax.training.optimizer import global_norm
from vae_jax.training.recipe import Recipe, kept
from vae_jax.training.sampling import drawn


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
    shares: Any | None = None
    """How an epoch's draws fall to the images, as of `vae_jax.training.sampling.shares`; None: each is drawn once."""

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


class Data(NamedTuple):
    """The training images on the device, or the batches of some steps, [steps, batch, ...], with their labels."""

    images: UInt8[Array, "*n height width channels"] | Float[Array, "*n height width channels"]
    labels: Int[Array, "*n"] | None = None


def new_state(recipe: Recipe, key: Key[Array, ""], own: Parameters) -> TrainState:
    """The state before the first step: initial parameters drawn by `key`, and by room those of `own`."""
    params = recipe.model.init(key)
    params = params | {room: {**params[room], **values} for room, values in own.items()}
    ema = jax.tree.map(jnp.copy, params) if recipe.settings.ema_decay else None
    shares = jnp.zeros(recipe.images, jnp.int32) if recipe.sampling.weighs else None
    return TrainState(params, recipe.optimizer.init(params), jnp.zeros((), jnp.int32), ema, shares)


def init_state(recipe: Recipe, own: Parameters | None = None) -> TrainState:
    """The state before the first step, decided by the seed, and by parameters fitted to images where given."""
    return _new_state(recipe)(Keys.from_seed(recipe.settings.seed).init, own or {})


@kept
def _new_state(recipe: Recipe) -> Callable[..., TrainState]:
    return jax.jit(partial(new_state, recipe))


def train_step(
    recipe: Recipe,
    state: TrainState,
    batch: Batch,
    number: Float[Array, ""] | float,
    axis: str | None = None,
    chunks: int = 1,
) -> tuple[TrainState, StepMetrics]:
    """One step of gradient descent on the weighted mean of the objective.

    Args:
        recipe: what is trained, and how.
        state: state before the step.
        batch: the examples, or this device's part of them.
        number: images of the whole batch, on all devices: the sum of its weights.
        axis: of the devices that hold the rest of the batch.
        chunks: parts of the batch, as many examples each, whose gradients are taken in turn and summed.
    """
    model, objective, step = recipe.model, recipe.objective, state.step.astype(jnp.float32)
    common, own = _statistics(recipe, state.params, batch, axis, chunks)

    def shares_of(params: Parameters, part: Batch, own: Any) -> tuple[Any, Any]:
        # This part's share of the means: the sum of the shares' gradients is the gradient of the mean.
        terms = objective(model, params, part, step, own if objective.pairs else common)
        shares = [jnp.sum(term * part.weights) / number for term in terms]
        return shares[0], shares

    gradient_of = jax.grad(shares_of, has_aux=True)
    gradient, means = total(_summed(lambda part: gradient_of(state.params, *part), (batch, own), chunks), axis)
    updates, opt_state = recipe.optimizer.update(gradient, state.opt_state, state.params)
    params, ema = optax.apply_updates(state.params, updates), state.ema_params
    if ema is not None:
        # A young average forgets faster, so that it does not drag the initial parameters along.
        decay = jnp.minimum(recipe.settings.ema_decay, (1.0 + step) / (10.0 + step))
        ema = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, ema, params)
    metrics = StepMetrics._make([*means, global_norm(gradient), number])
    return TrainState(params, opt_state, state.step + 1, ema, state.shares), metrics


def _statistics(recipe: Recipe, params: Parameters, batch: Batch, axis: str | None, chunks: int) -> tuple[Any, Any]:
    # What an objective needs of the whole batch: common to all examples, or of each example of this device's part.
    objective, common, own = recipe.objective, None, None
    if objective.pairs:
        rows = _joined(partial(objective.rows, recipe.model, params), batch, chunks)
        first = 0 if axis is None else jax.lax.axis_index(axis) * len(batch.weights)
        own = jax.tree.map(
            lambda values: jax.lax.dynamic_slice_in_dim(values, first, len(batch.weights)),
            objective.coupled(gathered(rows, axis)),
        )
    elif objective.couples:
        common = total(_summed(partial(objective.statistics, recipe.model, params), batch, chunks), axis)
    return jax.lax.stop_gradient((common, own))


def _parts(batch: Any, chunks: int) -> Any:
    return jax.tree.map(lambda values: values.reshape(chunks, -1, *values.shape[1:]), batch)


def _joined(function: Any, batch: Batch, chunks: int) -> Any:
    # The rows that the function makes of the chunks of a batch, one chunk's after another's.
    if chunks == 1:
        return function(batch)
    rows = jax.lax.map(function, _parts(batch, chunks))
    return jax.tree.map(lambda values: values.reshape(-1, *values.shape[2:]), rows)


def _summed(function: Any, batch: Any, chunks: int) -> Any:
    # What the function makes of the chunks of a batch, summed.
    if chunks == 1:
        return function(batch)
    parts = _parts(batch, chunks)
    first = jax.eval_shape(function, jax.tree.map(lambda values: values[0], parts))
    zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), first)
    return jax.lax.scan(lambda sums, part: (jax.tree.map(jnp.add, sums, function(part)), None), zeros, parts)[0]


def chunks_of(recipe: Recipe, examples: int) -> int:
    """How many chunks a step makes of the examples on one device: several of many ones of convolutions on a CPU.

    Their maps then stay in its cache. It is the latents that are counted, of which an example may have several, also
    for each class that it is tried with.
    """
    if recipe.model.chunk is None:
        return 1
    rows = examples * recipe.objective.latents * recipe.model.tried
    fewest = min(examples, -(-rows // recipe.model.chunk))
    return next((n for n in range(fewest, 2 * fewest + 1) if examples % n == 0), 1)


class Batches(NamedTuple):
    """The order of one epoch."""

    indices: Int[Array, "steps batch"]
    """Which image stands where."""
    weights: Float[Array, "steps batch"]
    """1 for an image, 0 for padding."""


def shuffled(key: Key[Array, ""], number: int, batch_size: int, shares: Int[Array, " number"] | None = None) -> Batches:
    """A permutation of `number` images, or with `shares` of as many draws; a short last batch is padded by weight 0.

    An image that is drawn twice for one batch has the same noise in both.
    """
    steps = steps_per_epoch(number, batch_size)
    order = jax.random.permutation(key, number)
    if shares is not None:
        order = drawn(jax.random.fold_in(key, number), shares)[order]
    order = jnp.concatenate([order, order[: steps * batch_size - number]]).reshape(steps, batch_size)
    return Batches(order, (jnp.arange(order.size) < number).astype(jnp.float32).reshape(order.shape))


def zero_metrics(steps: int) -> StepMetrics:
    """The metrics of an epoch of so many steps of which none is done."""
    return StepMetrics(*(jnp.zeros(steps) for _ in StepMetrics._fields))


def _rows(images: Array, indices: Array) -> Array:
    # images[indices]; of flat images, as XLA on the CPU works out the place of every pixel from its indices.
    return images.reshape(len(images), -1)[indices].reshape(*indices.shape, *images.shape[1:])


class Given(NamedTuple):
    """What decides a run beside its state, as arguments of the compiled program: another seed or rate is no new one."""

    order: Any
    """Data of the key that orders an epoch, uint32 [2]."""
    noise: Any
    """Data of the key of the noise, uint32 [2]."""
    rates: dict[str, Any]

    @classmethod
    def of(cls, recipe: Recipe) -> "Given":
        """Those of a recipe, as NumPy arrays, which are the same in all processes."""
        keys = Keys.from_seed(recipe.settings.seed)
        order, noise = jax.device_get((jax.random.key_data(keys.order), jax.random.key_data(keys.noise)))
        return cls(order, noise, recipe.rates())

    def order_key(self, epoch: Int[Array, ""]) -> Key[Array, ""]:
        """The key of an epoch's order."""
        return jax.random.fold_in(jax.random.wrap_key_data(self.order), epoch)


def run_steps(
    recipe: Recipe,
    layout: Layout,
    state: TrainState,
    metrics: StepMetrics,
    data: Data,
    batches: Batches,
    given: Given,
    start: Int[Array, ""],
    stop: Int[Array, ""],
    first: Int[Array, ""] | None = None,
) -> tuple[TrainState, StepMetrics]:
    """Steps `start` to `stop` - 1 of an epoch, as one compiled loop of the train step.

    One program serves every part of an epoch, so the parameters don't depend on how it was cut. The metrics [steps]
    come back with those of these steps set. The batches are those of the epoch, the part of this device as `layout`
    divides them. The data are the whole data set; where `first` is given, the batches from that step on.
    """
    recipe = recipe.with_rates(given.rates)
    inputs, noise = recipe.inputs, jax.random.wrap_key_data(given.noise)
    chunks = chunks_of(recipe, batches.indices.shape[1])
    sizes = total(jnp.sum(batches.weights, axis=1), layout.axis)

    def body(i: Array, carry: tuple[TrainState, StepMetrics]) -> tuple[TrainState, StepMetrics]:
        state, metrics = carry
        indices, weights = batches.indices[i], batches.weights[i]
        if first is None:
            images, labels = _rows(data.images, indices), None if data.labels is None else data.labels[indices]
        else:
            images, labels = jax.tree.map(lambda values: values[i - first], tuple(data))
        key = jax.random.fold_in(noise, state.step)
        batch = inputs.batch(inputs.augmented(images, indices, key), indices, key, weights, labels)
        state, own = train_step(recipe, state, batch, sizes[i], layout.axis, chunks)
        return state, jax.tree.map(lambda values, value: values.at[i].set(value), metrics, own)

    return jax.lax.fori_loop(start, stop, body, (state, metrics))
