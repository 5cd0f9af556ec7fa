"""Many models trained together: the one epoch of `vae_jax.training` under `vmap`, in one compiled program."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from vae_jax.config import Settings, check_settings, epochs
from vae_jax.data import Split, check_batch_size
from vae_jax.errors import RunError, UsageError
from vae_jax.evaluation import ImageLosses, image_losses, mean_loss
from vae_jax.models import AnyModel
from vae_jax.training import (
    Batches,
    FitResult,
    Keys,
    Row,
    StepMetrics,
    TrainState,
    check_finite,
    make_optimizer,
    make_row,
    new_state,
    scan_epoch,
    shuffled,
    steps_per_epoch,
)

TRACED = ("beta", "learning_rate", "sparsity_weight", "corruption_level")
"""Settings that may differ between models trained together, beside their seed and their classes."""


def fit_many(
    model: AnyModel,
    train: Split,
    validation: Split,
    members: Sequence[Settings],
    *,
    on_epoch: Callable[[TrainState, list[Row]], None] | None = None,
) -> list[FitResult]:
    """Train one model for each of the settings, all at once; without classes each as `fit` would, to rounding.

    With classes, a member sees each image of its own once an epoch, spread evenly over as many steps as
    the member with the most images needs; so its batches may be smaller than those of `fit`.

    Args:
        model: what all of them are, from `build_model`.
        train: images to learn from.
        validation: images for the validation loss of each row.
        members: settings that differ in seed, beta, learning rate, sparsity weight, corruption level or classes only.
        on_epoch: called after each epoch with the states, stacked along a first axis, and a row for each member. The
            next epoch takes the states' memory over.

    Raises:
        UsageError: settings that differ in more, that ask for early stopping, or with fewer images than a batch.
        RunError: a loss that is not finite, naming the member, the term and the step.
    """
    settings = _common(members)
    subsets = None if settings.classes is None else _Subsets.of(train, members)
    number = len(train) if subsets is None else int(subsets.sizes.max())
    check_batch_size(train if subsets is None else Split(train.images[:number], None), settings.batch_size)
    steps = steps_per_epoch(number, settings.batch_size)
    if subsets is not None and subsets.sizes.min() < steps:
        few = members[int(subsets.sizes.argmin())].classes
        raise UsageError(
            f"--classes {few} has {subsets.sizes.min()} training images, fewer than the {steps} steps of an epoch.\n"
            "Use a larger --batch-size, or train it alone."
        )
    held_out = [validation.positions(member.classes) for member in members]
    keys = [Keys.from_seed(member.seed) for member in members]
    states = _initial_states(model, members, number)
    epoch_function, keys_axis = _make_epoch(model, members, subsets, number)
    images, validation_images = jax.device_put((train.images, validation.images))
    stacked_keys = keys[0] if keys_axis is None else _stack(keys)
    histories: list[list[Row]] = [[] for _ in members]
    for epoch in range(epochs(settings, number)):
        start = time.perf_counter()
        states, metrics = epoch_function(states, images, stacked_keys, jnp.int32(epoch))
        metrics = jax.tree.map(np.asarray, metrics)  # waits for the epoch to end
        seconds = time.perf_counter() - start
        for i, (member, history) in enumerate(zip(members, histories, strict=True)):
            own = _take(metrics, i)
            scores = _validation_loss(
                model, _take(states, i), validation_images, held_out[i], held_out, keys[i], member
            )
            try:
                check_finite(own, first_step=epoch * steps)
                history.append(make_row(epoch + 1, (epoch + 1) * steps, own, scores, member.beta, seconds))
            except RunError as error:
                raise RunError(f"Of the {len(members)} models trained together, number {i + 1}: {error}") from error
        if on_epoch:
            on_epoch(states, [history[-1] for history in histories])
    finals = [_take(states, i) for i in range(len(members))]
    return [
        FitResult(state.evaluation_params, state, history) for state, history in zip(finals, histories, strict=True)
    ]


def _common(members: Sequence[Settings]) -> Settings:
    for member in members:
        check_settings(member)
        if member.patience:
            raise UsageError(f"--patience must be 0 for models trained together, got {member.patience}.")
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


def _make_epoch(
    model: AnyModel, members: Sequence[Settings], subsets: _Subsets | None, number: int
) -> tuple[Callable[..., tuple[TrainState, StepMetrics]], int | None]:
    settings = members[0]
    steps = steps_per_epoch(number, settings.batch_size)
    # Members of one seed share the order and the noise, which are then computed once.
    keys_axis = 0 if any(member.seed != settings.seed for member in members) else None
    values = {name: [getattr(member, name) for member in members] for name in TRACED}
    differing = {name: jnp.float32(each) for name, each in values.items() if any(v != each[0] for v in each)}
    places = None if subsets is None else (jnp.asarray(subsets.positions), jnp.asarray(subsets.sizes))

    def one(
        state: TrainState, keys: Keys, traced: dict[str, Float[Array, ""]], place: Any, images: Array, epoch: Array
    ) -> tuple[TrainState, StepMetrics]:
        own = dataclasses.replace(settings, **traced)
        key = jax.random.fold_in(keys.order, epoch)
        if place is None:
            batches = shuffled(key, number, settings.batch_size)
        else:
            positions, size = place
            batches = spread(key, positions, size, steps, settings.batch_size)
        return scan_epoch(model, make_optimizer(own, number), own, state, images, batches, keys.noise)

    @partial(jax.jit, donate_argnums=0)
    def epoch_function(state: TrainState, images: Array, keys: Keys, epoch: Array) -> tuple[TrainState, StepMetrics]:
        axes = (0, keys_axis, 0, 0, None, None)
        return jax.vmap(one, axes)(state, keys, differing, places, images, epoch)

    return epoch_function, keys_axis


def _validation_loss(
    model: AnyModel,
    state: TrainState,
    images: Array,
    own: np.ndarray,
    all_members: Sequence[np.ndarray],
    keys: Keys,
    settings: Settings,
) -> dict[str, float]:
    # Padded to the longest member's, so that one program serves all.
    longest = max(map(len, all_members))
    chosen = images if len(own) == len(images) else images[np.resize(own, longest)]
    losses = image_losses(
        *(model, state.evaluation_params, chosen, keys.evaluation),
        samples=1,
        binarize=settings.binarize,
        corruption=settings.corruption,
        corruption_level=settings.corruption_level,
    )
    return mean_loss(ImageLosses(*(values[: len(own)] for values in losses)))


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _take(tree: Any, i: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[i], tree)
