"""Many models trained together: the steps of `vae_jax.training.step` for all of them, in one compiled program."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from vae_jax.config import Settings, check_settings, epochs
from vae_jax.data.dataset import Split, check_batch_size
from vae_jax.errors import RunError, UsageError
from vae_jax.models.autoencoders import AnyModel, check_model
from vae_jax.training.devices import ONE_DEVICE, Members, choose_members
from vae_jax.training.fit import FitResult, validation_scores
from vae_jax.training.history import Row, check_finite, make_row
from vae_jax.training.optimizer import steps_per_epoch
from vae_jax.training.program import Program, Progress, run_epoch
from vae_jax.training.recipe import RATES, Recipe
from vae_jax.training.step import (
    Batches,
    Data,
    Given,
    Keys,
    StepMetrics,
    TrainState,
    new_state,
    run_steps,
    shuffled,
    zero_metrics,
)


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
        on_part: as in `vae_jax.training.fit.Hooks`, with states and metrics stacked.

    Raises:
        UsageError: settings that differ in more, that ask for early stopping, or with fewer images than a batch.
        RunError: a loss that is not finite, naming the member, the term and the step.
    """
    number = check_members(train, members)
    settings = members[0]
    layout = choose_members(settings.parallel, len(members), in_turn=model.chunk is not None)
    every = [*members, *[members[-1]] * layout.padding(len(members))]
    check_model(model)
    recipes = [Recipe(model, member, number) for member in every]
    program = _compile_program(recipes, train, layout)
    held_out = [validation.positions(member.classes) for member in members]
    longest = max(map(len, held_out))
    validation_images = jax.device_put(np.asarray(validation.images))

    def no_metrics() -> StepMetrics:
        return jax.tree.map(lambda values: jnp.zeros((len(every), *values.shape)), zero_metrics(program.steps))

    progress = Progress(_initial_states(recipes), no_metrics())
    histories: list[list[Row]] = [[] for _ in members]
    for epoch in range(epochs(settings, number)):
        progress = run_epoch(program, epoch, progress, settings.checkpoint_every_steps, on_part)
        step = (epoch + 1) * program.steps
        for i, (own, history) in enumerate(zip(held_out, histories, strict=True)):
            params = member_of(progress.state, i).evaluation_params
            # Padded to the longest member's, so that one program serves all.
            chosen = np.resize(own, longest)
            images = validation_images if longest == len(validation) else validation_images[chosen]
            labels = None if validation.labels is None else validation.labels[chosen]
            try:
                metrics = member_of(progress.metrics, i)
                check_finite(metrics, first_step=step - program.steps)
                scores = validation_scores(recipes[i], params, images, labels, len(own))
                history.append(make_row(epoch + 1, step, metrics, scores, members[i].beta, progress.seconds))
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
    first, free = members[0], (*RATES, "seed", "classes")
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


def _initial_states(recipes: Sequence[Recipe]) -> TrainState:
    keys = jnp.stack([Keys.from_seed(recipe.settings.seed).init for recipe in recipes])
    return jax.jit(jax.vmap(partial(new_state, recipes[0])))(keys)  # it does not depend on the rates


def _compile_program(recipes: Sequence[Recipe], train: Split, layout: Members) -> Program:
    recipe, settings = recipes[0], recipes[0].settings
    members = [each.settings for each in recipes]
    data = layout.everywhere(Data(np.asarray(train.images), train.labels))
    subsets = None if settings.classes is None else _Subsets.of(train, members)
    # Members of one seed share the order and the noise, and a rate that is the same for all is computed with once.
    each = [Given.of(one) for one in recipes]
    axes = jax.tree.map(lambda *values: 0 if any(np.any(v != values[0]) for v in values) else None, *each)
    given = jax.tree.map(
        lambda *values: values[0] if all(np.array_equal(v, values[0]) for v in values) else np.stack(values), *each
    )
    places = None if subsets is None else (jnp.asarray(subsets.positions), jnp.asarray(subsets.sizes))
    batches_axis = 0 if axes.order == 0 or subsets is not None else None

    def order(given: Given, place: Any, epoch: Array) -> Batches:
        key = given.order_key(epoch)
        if place is None:
            return shuffled(key, recipe.images, settings.batch_size)
        positions, size = place
        return spread(key, positions, size, recipe.steps, settings.batch_size)

    @jax.jit
    def orders(given: Given, epoch: Array) -> Batches:
        if batches_axis is None:
            return order(given, None, epoch)
        return jax.vmap(order, (axes, 0, None))(given, places, epoch)

    def one(state: TrainState, metrics: StepMetrics, batches: Batches, given: Given, data: Data, *part: Any) -> Any:
        return run_steps(recipe, ONE_DEVICE, state, metrics, data, batches, given, *part)

    @partial(jax.jit, donate_argnums=(0, 1))
    def advance(
        state: TrainState, metrics: StepMetrics, batches: Batches, given: Given, data: Data, start: Any, stop: Any
    ) -> tuple[TrainState, StepMetrics]:
        over = layout.over_members(one, (0, 0, batches_axis, axes, None, None, None))
        return over(state, metrics, batches, given, data, start, stop)

    return Program(
        lambda epoch: orders(given, epoch),
        lambda state, metrics, batches, start, stop: advance(state, metrics, batches, given, data, start, stop),
        recipe.steps,
        layout.place,
        layout.local,
    )
