"""Many models trained together: the steps of `vae_jax.training.step` for all of them, in one compiled program."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from vae_jax.combinations import check_settings
from vae_jax.config import Settings, epochs, sampling_name, steps_per_epoch
from vae_jax.data.dataset import Split, check_batch_size
from vae_jax.domains import flag_of
from vae_jax.errors import RunError, UsageError
from vae_jax.models.autoencoders import AnyModel
from vae_jax.models.conditions import check_conditions
from vae_jax.models.shapes import check_model
from vae_jax.training.devices import ONE_DEVICE, Members, choose_members
from vae_jax.training.fit import FitResult, epoch_row
from vae_jax.training.history import Row
from vae_jax.training.program import Program, Progress, run_epoch
from vae_jax.training.recipe import RATES, Recipe, kept
from vae_jax.training.start import epoch_begun, fitted_own
from vae_jax.training.step import (
    Batches,
    Data,
    Given,
    Keys,
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

    With classes, a member sees each image of its own once an epoch, spread evenly over as many steps as the member with
    the most images needs; so its batches may be smaller than those of `fit`. The images live on the device, whatever
    their size. After each epoch `on_epoch` gets the states, stacked along a first axis, and a row for each member; the
    next epoch takes the states' memory over, and on several devices the last member may stand there more than once.

    Raises:
        UsageError: settings that differ in more than seed, classes and `vae_jax.training.recipe.RATES`, that ask for
            early stopping, or with fewer images than a batch.
        RunError: a loss that is not finite, naming the member, the term and the step.
    """
    number = check_members(train, members)
    check_model(model)
    train = train.labelled(members[0].labels, members[0].seed)
    for member in members:
        check_conditions(model.classes, train, validation, chosen=member.classes, unknown=model.infers)
    layout = choose_members(members[0].parallel, len(members), in_turn=model.chunk is not None)
    every = [*members, *[members[-1]] * layout.padding(len(members))]
    recipes = [Recipe(model, member, number) for member in every]
    program = _compile_program(recipes, train, layout)
    held_out = [validation.positions(member.classes) for member in members]
    validation_images = jax.device_put(np.asarray(validation.images))
    keys = jnp.stack([Keys.from_seed(member.seed).init for member in every])
    own = jax.tree.map(lambda *each: jnp.stack(each), *(_fitted(recipe, train) for recipe in recipes))
    states = _new_states(recipes[0])(keys, own)
    progress = Progress(states, jax.vmap(lambda _: zero_metrics(program.steps))(keys))
    histories: list[list[Row]] = [[] for _ in members]
    for epoch in range(epochs(members[0], number)):
        progress = progress._replace(state=_epoch_begun(recipes, progress.state, train))
        progress = run_epoch(program, recipes[0], epoch, progress, on_part)
        for i, (positions, history) in enumerate(zip(held_out, histories, strict=True)):
            # Padded to the longest member's, so that one program serves all.
            chosen = np.resize(positions, max(map(len, held_out)))
            images = validation_images if members[i].classes is None else validation_images[chosen]
            labels = None if validation.labels is None else validation.labels[chosen]
            state, metrics = member_of(progress[:2], i)
            own = progress._replace(state=state, metrics=metrics)
            try:
                history.append(epoch_row(recipes[i], epoch, own, images, labels, len(positions)))
            except RunError as error:
                raise RunError(f"Of the {len(members)} models trained together, number {i + 1}: {error}") from error
        if on_epoch:
            on_epoch(progress.state, [history[-1] for history in histories])
        progress = progress._replace(metrics=jax.tree.map(jnp.zeros_like, progress.metrics), seconds=0.0)
    finals = [member_of(progress.state, i) for i in range(len(members))]
    return [FitResult(final.evaluation_params, final, rows) for final, rows in zip(finals, histories, strict=True)]


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
            f"--classes {members[sizes.index(fewest)].classes} has fewer training images ({fewest}) than an epoch has "
            f"steps ({steps}).\nUse a larger --batch-size, or train it alone."
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
            raise UsageError(f"{flag_of(field.name)} must be the same for models trained together, got {values!r}.")
    if first.labels is not None and (len({member.seed for member in members}) > 1 or first.classes is not None):
        raise UsageError(
            f"--labels {first.labels} must be those of one seed, and without --classes, for models trained together.\n"
            "Train each alone."
        )
    if first.classes is not None and sampling_name(first) != "uniform":
        raise UsageError(
            "--sampling must be uniform for models trained together on --classes of their own, got "
            f"{sampling_name(first)}.\nTrain each alone."
        )
    if any((member.classes is None) != (first.classes is None) for member in members):
        raise UsageError("--classes must be given for all models trained together, or for none.")
    return first


def spread(
    key: Key[Array, ""], positions: Int[Array, " longest"], size: Int[Array, ""], steps: int, batch_size: int
) -> Batches:
    """A permutation of the first `size` positions, spread evenly over at most so many steps; the rest has weight 0."""
    longest = len(positions)
    place = jnp.argsort(jnp.where(jnp.arange(longest) < size, jax.random.uniform(key, (longest,)), 2.0))
    # Image number p of the permutation goes to batch p mod steps.
    rank = jnp.arange(steps)[:, None] + steps * jnp.arange(batch_size)[None, :]
    return Batches(positions[place][rank % longest], (rank < size).astype(jnp.float32))


@kept
def _new_states(recipe: Recipe) -> Callable[..., TrainState]:
    return jax.jit(jax.vmap(partial(new_state, recipe)))


def _epoch_begun(recipes: Sequence[Recipe], states: TrainState, train: Split) -> TrainState:
    if states.shares is None:
        return states
    each = [epoch_begun(recipe, member_of(states, i), train) for i, recipe in enumerate(recipes)]
    return dataclasses.replace(states, shares=jnp.stack([jnp.asarray(state.shares) for state in each]))


def _fitted(recipe: Recipe, train: Split) -> Any:
    return fitted_own(recipe, train.of_classes(recipe.settings.classes))


def _compile_program(recipes: Sequence[Recipe], train: Split, layout: Members) -> Program:
    recipe, settings = recipes[0], recipes[0].settings
    data = layout.everywhere(Data(np.asarray(train.images), train.labels))
    # Members of one seed share the order and the noise, and a rate that is the same for all is computed with once.
    each = [Given.of(one) for one in recipes]
    axes = jax.tree.map(lambda *values: 0 if any(np.any(v != values[0]) for v in values) else None, *each)
    given = jax.tree.map(
        lambda *values: np.stack(values) if any(np.any(v != values[0]) for v in values) else values[0], *each
    )
    places: tuple[Any, Any] = (None, None)
    if settings.classes is not None:
        chosen = [train.positions(one.settings.classes) for one in recipes]
        longest = max(map(len, chosen))
        places = np.stack([np.resize(one, longest) for one in chosen]).astype(np.int32), np.array([*map(len, chosen)])
    alike = axes.order is None and settings.classes is None and not recipe.sampling.weighs
    batches_axis = None if alike else 0

    def order(given: Given, positions: Any, size: Any, epoch: Array, shares: Array | None) -> Batches:
        key = given.order_key(epoch)
        if positions is None:
            return shuffled(key, recipe.images, settings.batch_size, shares)
        return spread(key, positions, size, recipe.steps, settings.batch_size)

    orders = jax.jit(order if batches_axis is None else jax.vmap(order, (axes, 0, 0, None, 0)))
    over_members = layout.over_members(
        partial(run_steps, recipe, ONE_DEVICE), (0, 0, None, batches_axis, axes, None, None)
    )
    advance = jax.jit(over_members, donate_argnums=(0, 1))
    return Program(
        lambda epoch, shares: orders(given, *places, epoch, shares),
        lambda state, metrics, batches, start, stop: advance(state, metrics, data, batches, given, start, stop),
        recipe.steps,
        layout.place,
        layout.local,
    )
