"""`fit`: epoch after epoch of the compiled steps, a validation loss and a row of history after each."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from vae_jax.config import Settings, check_settings, epochs
from vae_jax.data.dataset import Split, check_batch_size
from vae_jax.models.autoencoders import AnyModel, Parameters
from vae_jax.models.evaluation import evaluate
from vae_jax.training.devices import ONE_DEVICE, Layout, choose_layout, from_first_process
from vae_jax.training.history import Row, check_finite, has_stopped, make_row
from vae_jax.training.optimizer import make_optimizer, steps_per_epoch
from vae_jax.training.step import Batches, Keys, StepMetrics, TrainState, init_state, run_steps, shuffled, zero_metrics
from vae_jax.training.streaming import are_streamed, compile_stream

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


class FitResult(NamedTuple):
    """What `fit` gives back."""

    params: Parameters
    """Parameters of the last epoch, or their moving average."""
    state: TrainState
    history: list[Row]
    """One row an epoch, as in metrics.jsonl."""


class Program(NamedTuple):
    """The compiled functions of a training run; `vae_jax.training.many` makes one for many models at once."""

    order: Callable[[Any], Batches]
    """The order of an epoch, by its number."""
    advance: Callable[[TrainState, StepMetrics, Batches, Any, Any], tuple[TrainState, StepMetrics]]
    """Some steps of an epoch, as `run_steps`; it takes the memory of state and metrics over."""
    steps: int
    """Steps of an epoch."""
    place: Callable[[Any], Any] = lambda tree: tree
    """Puts state and metrics, given on one device, where `advance` wants them."""
    local: Callable[[Any], Any] = lambda tree: tree
    """The way back, to this process's first device; it may share their memory."""


def compile_program(
    model: AnyModel,
    settings: Settings,
    images: Array,
    state: TrainState,
    layout: Layout = ONE_DEVICE,
    optimizer: optax.GradientTransformation | None = None,
) -> Program:
    """The program that trains one model on these images, compiled before it is first called.

    Args:
        model: what to train.
        settings: how.
        images: uint8 [n, height, width, channels], on one device.
        state: one as it will train.
        layout: of the devices.
        optimizer: by default that of the settings.
    """
    number, keys = len(images), Keys.from_seed(settings.seed)
    optimizer = optimizer or make_optimizer(settings, number)
    steps = steps_per_epoch(number, settings.batch_size)

    def order(epoch: Array) -> Batches:
        return layout.divided(shuffled(jax.random.fold_in(keys.order, epoch), number, settings.batch_size))

    def advance(
        state: TrainState, metrics: StepMetrics, images: Array, batches: Batches, start: Array, stop: Array
    ) -> tuple[TrainState, StepMetrics]:
        return run_steps(model, optimizer, settings, state, metrics, images, batches, keys.noise, start, stop, layout)

    compiled_order, images = layout.compile_order(order), layout.replicated(images)
    initial = layout.replicated((jax.tree.map(jnp.copy, state), zero_metrics(steps)))
    compiled = layout.compile_steps(advance, *initial, images, compiled_order(np.int32(0)))
    return Program(
        compiled_order,
        lambda state, metrics, batches, start, stop: compiled(state, metrics, images, batches, start, stop),
        steps,
        layout.replicated,
        layout.local,
    )


def run_epoch(
    program: Program,
    epoch: int,
    progress: Progress,
    every: int,
    on_part: Callable[[Progress], None] | None,
) -> Progress:
    """The rest of an epoch, in parts of about half a second.

    Args:
        program: what to run.
        epoch: number of the epoch, from 0.
        progress: where it stands.
        every: parts end at multiples of so many steps at the latest, counted from the run's start; 0: anywhere.
        on_part: called between parts with the progress; it may raise to end the training.

    Returns:
        The progress at the epoch's end, the metrics on the host.
    """
    seconds, pace = progress.seconds, progress.seconds_per_step
    before = epoch * program.steps
    done = int(np.max(jax.device_get(progress.state.step))) - before
    started = time.perf_counter()
    batches = program.order(np.int32(epoch))
    state, metrics = program.place((progress.state, progress.metrics))
    while done < program.steps:
        length = max(1, round(PART_SECONDS / pace)) if pace else 1
        boundary = every - (before + done) % every if every else program.steps
        stop = min(done + length, done + boundary, program.steps)
        state, metrics = program.advance(state, metrics, batches, np.int32(done), np.int32(stop))
        jax.block_until_ready(metrics)
        taken = time.perf_counter() - started
        # The processes have to cut an epoch alike, or one waits for another's step for ever.
        seconds, pace, done = seconds + taken, from_first_process(taken / (stop - done)), stop
        if on_part and done < program.steps:
            on_part(Progress(program.local(state), program.local(metrics), seconds, pace))
        started = time.perf_counter()
    return Progress(program.local(state), jax.tree.map(np.asarray, metrics), seconds, pace)


def fit(
    model: AnyModel,
    train: Split,
    validation: Split,
    settings: Settings,
    *,
    progress: Progress | None = None,
    history: list[Row] | None = None,
    on_epoch: Callable[[TrainState, Row], None] | None = None,
    on_part: Callable[[Progress], None] | None = None,
    on_start: Callable[[], None] | None = None,
) -> FitResult:
    """Train until the epochs of the settings are done, or until early stopping.

    Args:
        model: from `build_model` with the same settings.
        train: images to learn from.
        validation: images for the validation loss of each row.
        settings: how.
        progress: where to go on from; by default the initial state of the seed.
        history: rows of the epochs that led to it.
        on_epoch: called with the state and the row after each epoch; the next epoch takes the state's memory over,
            so what is kept of it has to be copied.
        on_part: called every half second or so within an epoch, and at the multiples of
            `settings.checkpoint_every_steps`; what it keeps of the progress it has to copy. It may raise to end
            the training.
        on_start: called once, when everything is compiled and training is about to start.

    Raises:
        UsageError: a setting outside its domain, or fewer images than a batch.
        RunError: a loss that is not finite, naming the term and the step.
    """
    check_settings(settings)
    train, validation = train.of_classes(settings.classes), validation.of_classes(settings.classes)
    check_batch_size(train, settings.batch_size)
    steps = steps_per_epoch(len(train), settings.batch_size)
    if progress is None:
        state = init_state(model, make_optimizer(settings, len(train)), settings)
        progress = Progress(state, zero_metrics(steps))
    else:
        # The steps take their state's memory over, so the caller's own is copied.
        state, metrics = jax.tree.map(jnp.copy, progress[:2])
        progress = progress._replace(state=state, metrics=metrics)
    history = list(history or [])
    layout = choose_layout(settings.parallel)
    validation_images: Any = validation.images
    if are_streamed(settings, train.images.nbytes):
        program = Program(*compile_stream(model, settings, train.images, progress.state, layout))
    else:
        images, validation_images = jax.device_put((np.asarray(train.images), np.asarray(validation.images)))
        program = compile_program(model, settings, images, progress.state, layout)
    if on_start:
        on_start()

    for epoch in range(int(progress.state.step) // steps, epochs(settings, len(train))):
        if has_stopped(history, settings, len(train)):
            break
        progress = run_epoch(program, epoch, progress, settings.checkpoint_every_steps, on_part)
        check_finite(progress.metrics, first_step=epoch * steps)
        scores = validation_scores(model, progress.state.evaluation_params, validation_images, settings)
        row = make_row(epoch + 1, (epoch + 1) * steps, progress.metrics, scores, settings.beta, progress.seconds)
        history.append(row)
        if on_epoch:
            on_epoch(progress.state, row)
        progress = progress._replace(metrics=zero_metrics(steps), seconds=0.0)
    state = progress.state
    return FitResult(state.evaluation_params, state, history)


def validation_scores(model: AnyModel, params: Parameters, images: Any, settings: Settings) -> dict[str, float]:
    """Loss, reconstruction and KL of the validation images, with one latent sample each and the run's own key."""
    scores = evaluate(
        *(model, params, images, Keys.from_seed(settings.seed).evaluation),
        samples=1,
        binarize=settings.binarize,
        corruption=settings.corruption,
        corruption_level=settings.corruption_level,
    )
    # Rounding may differ between processors, but all have to stop after the same epoch.
    return {name: from_first_process(score) for name, score in scores.items()}
