"""`fit`: epoch after epoch of the compiled steps, a validation loss and a row of history after each."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vae_jax.combinations import check_settings
from vae_jax.config import Settings, epochs
from vae_jax.data.dataset import Dataset, Split, check_batch_size
from vae_jax.errors import UsageError
from vae_jax.models.autoencoders import AnyModel, Parameters
from vae_jax.models.conditions import check_conditions
from vae_jax.models.evaluation import ImageLosses, class_probabilities, error_rate, image_losses, likeliest, mean_loss
from vae_jax.models.inputs import Inputs
from vae_jax.models.objectives import Objective
from vae_jax.models.shapes import check_model
from vae_jax.training.devices import choose_layout, from_first_process
from vae_jax.training.history import Row, check_finite, has_stopped, make_row
from vae_jax.training.program import Progress, compile_program, run_epoch
from vae_jax.training.recipe import Recipe
from vae_jax.training.sampling import Sampling
from vae_jax.training.start import epoch_begun, fitted_own
from vae_jax.training.step import Data, Keys, TrainState, init_state, zero_metrics
from vae_jax.training.streaming import are_streamed, compile_stream

_SPLIT = "Split(images, labels), with images [n, height, width, channels] of bytes; labels may be None"
_MADE_BY = {
    Settings: "Settings(latent_dim=2)",
    Split: _SPLIT,
    Dataset: f"Dataset(name, train, validation, test), each a vae_jax.{_SPLIT}",
}


PACE_SECONDS = 3.0
"""About so long the pace of the steps is measured."""


class FitResult(NamedTuple):
    """What `fit` gives back."""

    params: Parameters
    """Parameters of the last epoch, or their moving average."""
    state: TrainState
    history: list[Row]
    """One row an epoch, as in metrics.jsonl."""


class Hooks(NamedTuple):
    """What is called while a model trains."""

    on_epoch: Callable[[TrainState, Row], None] | None = None
    """After each epoch, with the state and the row. The next epoch takes the state's memory over: copy what is kept."""
    on_part: Callable[[Progress], None] | None = None
    """Every half second or so within an epoch, and at the multiples of `settings.checkpoint_every_steps`; what it
    keeps of the progress it has to copy. It may raise to end the training."""
    on_start: Callable[[], None] | None = None
    """Once, when everything is compiled and training is about to start."""


def fit(
    model: AnyModel,
    train: Split,
    validation: Split,
    settings: Settings,
    *,
    objective: Objective | None = None,
    optimizer: optax.GradientTransformation | None = None,
    inputs: Inputs | None = None,
    sampling: Sampling | None = None,
    on_epoch: Callable[[TrainState, Row], None] | None = None,
) -> FitResult:
    """Train until the epochs of the settings are done, or until early stopping.

    Args:
        model: from `build_model` with the same settings, or one of your own.
        train: images to learn from.
        validation: images for the validation loss of each row.
        settings: how.
        objective: what to minimise, in place of that of the settings.
        optimizer: in place of that of the settings.
        inputs: what the model sees of an image, in place of what the settings say.
        sampling: which images an epoch is made of, in place of that of the settings.
        on_epoch: called with the state and the row after each epoch; the next epoch takes the state's memory over,
            so what is kept of it has to be copied.

    Raises:
        UsageError: a setting outside its domain, a model whose shapes do not fit, or fewer images than a batch.
        RunError: a loss that is not finite, naming the term and the step.
    """
    check_types(train=(train, Split), validation=(validation, Split), settings=(settings, Settings))
    recipe = make_recipe(model, train, settings, objective, optimizer, inputs, sampling)
    return go_on(recipe, train, validation, None, [], Hooks(on_epoch))


def check_types(**given: tuple[Any, type]) -> None:
    """Raise UsageError where an argument, given by name with its type, is of another one: how to make it is said."""
    for name, (value, kind) in given.items():
        if not isinstance(value, kind):
            raise UsageError(
                f"{name} must be a vae_jax.{kind.__name__}, got {type(value).__name__}.\n"
                f"Make one: vae_jax.{_MADE_BY[kind]}."
            )


def make_recipe(
    model: AnyModel,
    train: Split,
    settings: Settings,
    objective: Objective | None = None,
    optimizer: optax.GradientTransformation | None = None,
    inputs: Inputs | None = None,
    sampling: Sampling | None = None,
) -> Recipe:
    """How a model is trained on these images, checked; arguments and errors are those of `fit`."""
    check_settings(settings)
    check_model(model)
    if train.images.shape[1:] != tuple(model.image_shape):
        raise UsageError(f"The model takes images of the shape {model.image_shape}, got {train.images.shape[1:]}.")
    train = training_part(train, settings)
    check_conditions(model.classes, train, unknown=model.infers)
    recipe = Recipe(model, settings, len(train), objective, optimizer, inputs, sampling)
    recipe.sampling.check(train)
    return recipe


def training_part(train: Split, settings: Settings) -> Split:
    """Those of the training images, and of their labels, that the settings take.

    Raises:
        UsageError: there are no such classes, or not so many labels.
    """
    return train.of_classes(settings.classes).labelled(settings.labels, settings.seed)


def go_on(
    recipe: Recipe, train: Split, validation: Split, progress: Progress | None, history: list[Row], hooks: Hooks
) -> FitResult:
    """Train from `progress`, to which the rows of `history` led; None is the initial state. See `fit`."""
    settings, steps = recipe.settings, recipe.steps
    train, validation = training_part(train, settings), validation.of_classes(settings.classes)
    check_batch_size(train, settings.batch_size)
    check_conditions(recipe.model.classes, train, validation, unknown=recipe.model.infers)
    for split in (train, validation):
        recipe.inputs.check_type(split.images.dtype)
    if progress is None:
        progress = Progress(init_state(recipe, fitted_own(recipe, train)), zero_metrics(steps))
    else:
        # The steps take their state's memory over, so the caller's own is copied.
        state, metrics = jax.tree.map(jnp.copy, progress[:2])
        progress = progress._replace(state=state, metrics=metrics)
    history, layout, validation_images = list(history), choose_layout(settings.parallel), validation.images
    if are_streamed(settings, train.images.nbytes):
        program = compile_stream(recipe, train, progress.state, layout)
    else:
        validation_images = jax.device_put(np.asarray(validation.images))
        data = Data(*jax.device_put((np.asarray(train.images), train.labels)))
        program = compile_program(recipe, data, progress.state, layout)
    if hooks.on_start:
        hooks.on_start()
    for epoch in range(epochs(settings, len(train))):
        if int(progress.state.step) >= recipe.step_after(epoch):
            continue
        if has_stopped(history, settings, len(train)):
            break
        if int(progress.state.step) == epoch * steps:  # else its draws are known already
            progress = progress._replace(state=epoch_begun(recipe, progress.state, train))
        progress = run_epoch(program, recipe, epoch, progress, hooks.on_part)
        history.append(epoch_row(recipe, epoch, progress, validation_images, validation.labels))
        if hooks.on_epoch:
            hooks.on_epoch(progress.state, history[-1])
        progress = progress._replace(metrics=zero_metrics(steps), seconds=0.0)
    return FitResult(progress.state.evaluation_params, progress.state, history)


def seconds_per_step(recipe: Recipe, train: Split, validation: Split) -> float:
    """What a step takes on this machine, from some seconds of training whose result is dropped; in all processes alike.

    Raises:
        RunError: a loss that is not finite.
    """

    def part(progress: Progress) -> None:
        if int(progress.state.step) * progress.seconds_per_step >= PACE_SECONDS:
            raise _Measured(progress.seconds_per_step)

    def whole(_: TrainState, row: Row) -> None:
        seconds = from_first_process(row["seconds"]) / recipe.steps
        if row["step"] * seconds >= PACE_SECONDS:
            raise _Measured(seconds)

    try:
        go_on(recipe, train, validation, None, [], Hooks(whole, part))
    except _Measured as measured:
        return measured.seconds
    raise AssertionError


class _Measured(Exception):
    def __init__(self, seconds: float):
        self.seconds = seconds


def epoch_row(
    recipe: Recipe, epoch: int, progress: Progress, images: Any, labels: Any = None, number: int | None = None
) -> Row:
    """The row of epoch number `epoch`, from 0, that is done.

    Its validation loss is that of the first `number` images, with one latent sample each and the run's own key; with as
    many as in training where the objective is an importance-weighted bound, which is then `iwae_loss` there.

    Raises:
        RunError: a loss that is not finite.
    """
    check_finite(progress.metrics, first_step=epoch * recipe.steps)
    key, params = Keys.from_seed(recipe.settings.seed).evaluation, progress.state.evaluation_params
    samples = recipe.objective.bound_samples
    model, inputs, told = recipe.model, recipe.inputs, None if recipe.model.infers else labels
    each = image_losses(model, params, images, key, samples=samples or 1, inputs=inputs, labels=told)
    losses = ImageLosses(*(values[:number] for values in each))
    scores = mean_loss(model, losses) | ({"iwae_loss": -float(np.mean(losses.bound))} if samples else {})
    if model.infers:
        found = likeliest(class_probabilities(model, params, images, key, inputs=inputs), model.classes)
        scores |= error_rate(found[:number], labels[:number])
    # Rounding may differ between processors, but all have to stop after the same epoch.
    scores = {name: from_first_process(score) for name, score in scores.items()}
    numbers = progress.metrics, scores, recipe.beta, progress.seconds
    samples_of_kl = (recipe.objective.latents, samples or 1) if model.estimates_kl else None
    return make_row(epoch + 1, recipe.step_after(epoch), *numbers, samples_of_kl)
