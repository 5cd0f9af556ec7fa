"""The compiled functions of a training run, and an epoch of them in parts."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vae_jax.training.devices import Layout, from_first_process
from vae_jax.training.recipe import Recipe, kept
from vae_jax.training.step import Batches, Data, Given, StepMetrics, TrainState, run_steps, shuffled, zero_metrics

PART_SECONDS = 0.5
"""About so long one call of the compiled steps takes: between two of them a run can be saved or stopped."""


class Progress(NamedTuple):
    """Where training stands, also within an epoch: all that going on needs."""

    state: TrainState
    metrics: StepMetrics
    """Of the steps of the epoch under way, [steps]; 0 where they are still to come."""
    seconds: float = 0.0
    """Spent on the epoch under way."""
    seconds_per_step: float = 0.0
    """What a step took last; 0: not known yet."""


class Program(NamedTuple):
    """The compiled functions of a training run; `vae_jax.training.many` makes one for many models at once."""

    order: Callable[[Any, Any], Batches]
    """The order of an epoch, by its number and the shares of its draws."""
    advance: Callable[[TrainState, StepMetrics, Batches, Any, Any], tuple[TrainState, StepMetrics]]
    """Some steps of an epoch, as `run_steps`; it takes the memory of state and metrics over."""
    steps: int
    """Steps of an epoch."""
    place: Callable[[Any], Any]
    """Puts state and metrics, given on one device, where `advance` wants them."""
    local: Callable[[Any], Any]
    """The way back, to this process's first device; it may share their memory."""


def compile_order(recipe: Recipe, layout: Layout, given: Given) -> Callable[[Any, Any], Batches]:
    """The order of an epoch by its number and the shares of its draws, compiled."""
    compiled = _order(recipe, layout)
    # Of NumPy, which is the same to all processes.
    return lambda epoch, shares: compiled(given, epoch, jax.tree.map(np.asarray, shares))


@kept
def _order(recipe: Recipe, layout: Layout) -> Callable[..., Batches]:
    def order(given: Given, epoch: Array, shares: Array | None) -> Batches:
        return layout.divided(shuffled(given.order_key(epoch), recipe.images, recipe.settings.batch_size, shares))

    return layout.compile_order(order)


def compile_steps(recipe: Recipe, layout: Layout, *arguments: Any) -> Callable[..., tuple[TrainState, StepMetrics]]:
    """`run_steps` for arguments like these, of a call that does no step, compiled; see `Layout.compile_steps`."""
    # Where the data lie: the program of one device takes them as they are.
    of_data = jax.tree.map(lambda leaf: leaf.sharding.spec, arguments[2]) if layout.devices else None
    return layout.compile_steps(_steps(recipe, layout, of_data, len(arguments)), *arguments)


@kept
def _steps(recipe: Recipe, layout: Layout, of_data: Any, arguments: int) -> Callable[..., Any]:
    return layout.jit_steps(partial(run_steps, recipe, layout), of_data, arguments)


def compile_program(recipe: Recipe, data: Data, state: TrainState, layout: Layout) -> Program:
    """The program that trains one model on images that live on the device, compiled before it is first called.

    `data` lies on one device; `state` is one as it will train.
    """
    given, first = Given.of(recipe), np.int32(0)
    order, data = compile_order(recipe, layout, given), layout.replicated(data)
    initial = layout.replicated((jax.tree.map(jnp.copy, state), zero_metrics(recipe.steps)))
    compiled = compile_steps(recipe, layout, *initial, data, order(first, state.shares), given, first, first)
    return Program(
        order,
        lambda state, metrics, batches, start, stop: compiled(state, metrics, data, batches, given, start, stop),
        recipe.steps,
        layout.replicated,
        layout.local,
    )


def run_epoch(
    program: Program,
    recipe: Recipe,
    epoch: int,
    progress: Progress,
    on_part: Callable[[Progress], None] | None,
) -> Progress:
    """The rest of epoch number `epoch`, from 0, in parts of about half a second; gives its metrics on the host.

    A part ends at multiples of the recipe's `checkpoint_every_steps` at the latest, counted from the run's start, where
    that is not 0. Between parts `on_part` is called with the progress; it may raise to end the training.
    """
    seconds, pace = progress.seconds, progress.seconds_per_step
    before, every = epoch * program.steps, recipe.settings.checkpoint_every_steps
    last = recipe.step_after(epoch) - before
    done = int(np.max(jax.device_get(progress.state.step))) - before
    started = time.perf_counter()
    batches = program.order(np.int32(epoch), progress.state.shares)
    state, metrics = program.place((progress.state, progress.metrics))
    while done < last:
        length = max(1, round(PART_SECONDS / pace)) if pace else 1
        boundary = every - (before + done) % every if every else last
        stop = min(done + length, done + boundary, last)
        state, metrics = program.advance(state, metrics, batches, np.int32(done), np.int32(stop))
        jax.block_until_ready(metrics)
        taken = time.perf_counter() - started
        # The processes have to cut an epoch alike, or one waits for another's step for ever.
        seconds, pace, done = seconds + taken, from_first_process(taken / (stop - done)), stop
        if on_part and done < last:
            on_part(Progress(program.local(state), program.local(metrics), seconds, pace))
        started = time.perf_counter()
    return Progress(program.local(state), jax.tree.map(np.asarray, metrics), seconds, pace)
