"""Many models trained together: the steps of `vae_jax.training.step` for all of them, in one compiled program."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from vae_jax.config import Settings, check_settings, epochs
from vae_jax.data.dataset import Split, check_batch_size
from vae_jax.errors import RunError, UsageError
from vae_jax.models.autoencoders import AnyModel, Parameters
from vae_jax.models.evaluation import ImageLosses, image_losses, mean_loss
from vae_jax.training.devices import Members, choose_members
from vae_jax.training.fit import FitResult, Program, Progress, run_epoch
from vae_jax.training.history import Row, check_finite, make_row
from vae_jax.training.optimizer import make_optimizer, steps_per_epoch
from vae_jax.training.step import Batches, Keys, StepMetrics, TrainState, new_state, run_steps, shuffled, zero_metrics

TRACED = ("beta", "learning_rate", "sparsity_weight", "corruption_level")
"""Settings that may differ between models trained together, beside their seed and their classes."""


def fit_many(
    model: AnyModel,
    train: Split,
    validation: Split,
    members: Sequence[Settings],
    *,
    on_epoch: Callable[[TrainState, list[Row]], None] | None = None,
    on_part: Callable[[Progress], None] | None = None,
) -> list[FitResult]:
    """Train one model for each of the settings, in one program; without classes each as `fit` would, to rounding.

    With classes, a member sees each image of its own once an epoch, spread evenly over as many steps as
    the member with the most images needs; so its batches may be smaller than those of `fit`.

    Args:
        model: what all of them are, from `build_model`.
        train: images to learn from; they live on the device, whatever their size.
        validation: images for the validation loss of each row.
        members: settings that differ in seed, beta, learning rate, sparsity weight, corruption level or classes only.
        on_epoch: called after each epoch with the states, stacked along a first axis, and a row for each member. The
            next epoch takes the states' memory over. On several devices the last member may stand there more than once.
        on_part: as in `vae_jax.training.fit.fit`, with states and metrics stacked.

    Raises:
        UsageError: settings that differ in more, that ask for early stopping, or with fewer images than a batch.
        RunError: a loss that is not finite, naming the member, the term and the step.
    """
    number = check_members(train, members)
    settings = members[0]
    steps = steps_per_epoch(number, settings.batch_size)
    held_out = [validation.positions(member.classes) for member in members]
    validation_images = jax.device_put(np.asarray(validation.images))
    layout = choose_members(settings.parallel, len(members), in_turn=model.chunk is not None)
    trained = [*members, *[members[-1]] * layout.padding(len(members))]
    program = _compile_program(model, trained, train, number, layout)

    def no_metrics() -> StepMetrics:
        return jax.tree.map(lambda values: jnp.zeros((len(trained), *values.shape)), zero_metrics(steps))

    progress = Progress(_initial_states(model, trained, number), no_metrics())
    histories: list[list[Row]] = [[] for _ in members]
    for epoch in range(epochs(settings, number)):
        progress = run_epoch(program, epoch, progress, settings.checkpoint_every_steps, on_part)
        for i, (member, history) in enumerate(zip(members, histories, strict=True)):
            own, params = member_of(progress.metrics, i), member_of(progress.state, i).evaluation_params
            scores = _validation_loss(model, params, validation_images, held_out[i], held_out, member)
            try:
                check_finite(own, first_step=epoch * steps)
                history.append(make_row(epoch + 1, (epoch + 1) * steps, own, scores, member.beta, progress.seconds))
            except RunError as error:
                raise RunError(f"Of the {len(members)} models trained together, number {i + 1}: {error}") from error
        if on_epoch:
            on_epoch(progress.state, [history[-1] for history in histories])
        progress = progress._replace(metrics=no_metrics(), seconds=0.0)
    finals = [member_of(progress.state, i) for i in range(len(members))]
    return [
        FitResult(state.evaluation_params, state, history) for state, history in zip(finals, histories, strict=True)
    ]


def check_members(train: Split, members: Sequence[Settings]) -> int:
    """Check that these models can be trained together; gives the images of the one that has the most.

    Raises:
        UsageError: as `fit_many`.
    """
    settings = _common(members)
    if settings.classes is None:
        check_batch_size(train, settings.batch_size)
        return len(train)
    sizes = [len(train.positions(member.classes)) for member in members]
    number, fewest = max(sizes), min(sizes)
    check_batch_size(Split(train.images[:number], None), settings.batch_size)
    steps = steps_per_epoch(number, settings.batch_size)
    if fewest < steps:
        raise UsageError(
            f"--classes {members[sizes.index(fewest)].classes} has {fewest} training images, fewer than the {steps} "
            "steps of an epoch.\nUse a larger --batch-size, or train it alone."
        )
    return number


def member_of(tree: Any, i: int) -> Any:
    """The arrays of member `i`, copied out of those stacked along a first axis."""
    return jax.tree.map(lambda leaf: leaf[i], tree)


def _common(members: Sequence[Settings]) -> Settings:
    for member in members:
        check_settings(member)
        if member.patience:
            raise UsageError(f"--patience must be 0 for models trained together, got {member.patience}.")
        if member.device_data == "never":
            raise UsageError("--device-data must be auto or always for models trained together, got never.")
    first, free = members[0], (*TRACED, "seed", "classes")
    for field in dataclasses.fields(Settings):
        values = [getattr(member, field.name) for member in members]
        if field.name not in free and any(value != values[0] for value in values):
            flag = "--" + field.name.replace("_", "-")
            raise UsageError(f"{flag} must be the same for models trained together, got {values!r}.")
    if any((member.classes is None) != (first.classes is None) for member in members):
        raise UsageError("--classes must be given for all models trained together, or for none.")
    return first


@dataclasses.dataclass(frozen=True)
class _Subsets:
    # Positions of each member's images, padded to the longest.
    positions: Int[np.ndarray, "members longest"]
    sizes: Int[np.ndarray, " members"]

    @classmethod
    def of(cls, split: Split, members: Sequence[Settings]) -> "_Subsets":
        each = [split.positions(member.classes) for member in members]
        sizes = np.array([len(positions) for positions in each])
        padded = [np.resize(positions, sizes.max()) for positions in each]
        return cls(np.stack(padded).astype(np.int32), sizes.astype(np.int32))


def spread(
    key: Key[Array, ""], positions: Int[Array, " longest"], size: Int[Array, ""], steps: int, batch_size: int
) -> Batches:
    """A permutation of the first `size` positions, spread evenly over the steps; the rest has weight 0.

    Args:
        key: decides the order.
        positions: of images in the data set.
        size: how many of the positions count; at least as many as steps.
        steps: batches.
        batch_size: places in a batch.
    """
    longest = len(positions)
    place = jnp.argsort(jnp.where(jnp.arange(longest) < size, jax.random.uniform(key, (longest,)), 2.0))
    # Image number p of the permutation goes to batch p mod steps.
    rank = jnp.arange(steps)[:, None] + steps * jnp.arange(batch_size)[None, :]
    return Batches(positions[place][rank % longest], (rank < size).astype(jnp.float32))


def _initial_states(model: AnyModel, members: Sequence[Settings], number: int) -> TrainState:
    keys = jnp.stack([Keys.from_seed(member.seed).init for member in members])
    optimizer = make_optimizer(members[0], number)  # its initial state does not depend on the rate
    return jax.jit(jax.vmap(partial(new_state, model, optimizer, members[0])))(keys)


def _compile_program(
    model: AnyModel, members: Sequence[Settings], train: Split, number: int, layout: Members
) -> Program:
    settings, images = members[0], layout.everywhere(np.asarray(train.images))
    subsets = None if settings.classes is None else _Subsets.of(train, members)
    steps = steps_per_epoch(number, settings.batch_size)
    # Members of one seed share the order and the noise, which are then computed once.
    shared = all(member.seed == settings.seed for member in members)
    every_key = [Keys.from_seed(member.seed) for member in members]
    keys, axis = (every_key[0], None) if shared else (_stack(every_key), 0)
    values = {name: [getattr(member, name) for member in members] for name in TRACED}
    differing = {name: jnp.float32(each) for name, each in values.items() if any(v != each[0] for v in each)}
    places = None if subsets is None else (jnp.asarray(subsets.positions), jnp.asarray(subsets.sizes))
    batches_axis = None if shared and subsets is None else 0

    def order(keys: Keys, place: Any, epoch: Array) -> Batches:
        key = jax.random.fold_in(keys.order, epoch)
        if place is None:
            return shuffled(key, number, settings.batch_size)
        positions, size = place
        return spread(key, positions, size, steps, settings.batch_size)

    def orders(epoch: Array) -> Batches:
        if batches_axis is None:
            return order(keys, None, epoch)
        return jax.vmap(order, (axis, 0, None))(keys, places, epoch)

    def one(
        state: TrainState,
        metrics: StepMetrics,
        keys: Keys,
        traced: dict[str, Float[Array, ""]],
        batches: Batches,
        images: Array,
        start: Array,
        stop: Array,
    ) -> tuple[TrainState, StepMetrics]:
        own = dataclasses.replace(settings, **traced)
        optimizer = make_optimizer(own, number)
        return run_steps(model, optimizer, own, state, metrics, images, batches, keys.noise, start, stop)

    @partial(jax.jit, donate_argnums=(0, 1))
    def advance(
        state: TrainState, metrics: StepMetrics, batches: Batches, images: Array, start: Any, stop: Any
    ) -> tuple[TrainState, StepMetrics]:
        axes = (0, 0, axis, 0, batches_axis, None, None, None)
        return layout.over_members(one, axes)(state, metrics, keys, differing, batches, images, start, stop)

    def advance_on_images(
        state: TrainState, metrics: StepMetrics, batches: Batches, start: Any, stop: Any
    ) -> tuple[TrainState, StepMetrics]:
        return advance(state, metrics, batches, images, start, stop)

    return Program(jax.jit(orders), advance_on_images, steps, layout.place, layout.local)


def _validation_loss(
    model: AnyModel,
    params: Parameters,
    images: Array,
    own: np.ndarray,
    all_members: Sequence[np.ndarray],
    settings: Settings,
) -> dict[str, float]:
    # Padded to the longest member's, so that one program serves all.
    longest = max(map(len, all_members))
    chosen = images if len(own) == len(images) else images[np.resize(own, longest)]
    losses = image_losses(
        *(model, params, chosen, Keys.from_seed(settings.seed).evaluation),
        samples=1,
        binarize=settings.binarize,
        corruption=settings.corruption,
        corruption_level=settings.corruption_level,
    )
    return mean_loss(ImageLosses(*(values[: len(own)] for values in losses)))


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
