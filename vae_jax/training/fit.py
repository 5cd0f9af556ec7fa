"""`fit`: epoch after epoch of the compiled steps, a validation loss and a row of history after each."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vae_jax.config import Settings, check_settings, epochs
from vae_jax.data.dataset import Split, check_batch_size
from vae_jax.errors import UsageError
from vae_jax.models.autoencoders import AnyModel, Parameters, check_model
from vae_jax.models.evaluation import ImageLosses, image_losses, mean_loss
from vae_jax.models.inputs import Inputs
from vae_jax.models.objectives import Objective
from vae_jax.training.devices import choose_layout, from_first_process
from vae_jax.training.history import Row, check_finite, has_stopped, make_row
from vae_jax.training.program import Program, Progress, compile_program, run_epoch
from vae_jax.training.recipe import Recipe
from vae_jax.training.step import Data, Keys, TrainState, init_state, zero_metrics
from vae_jax.training.streaming import are_streamed, compile_stream


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
        on_epoch: called with the state and the row after each epoch; the next epoch takes the state's memory over,
            so what is kept of it has to be copied.

    Raises:
        UsageError: a setting outside its domain, a model whose shapes do not fit, or fewer images than a batch.
        RunError: a loss that is not finite, naming the term and the step.
    """
    recipe = make_recipe(model, train, settings, objective, optimizer, inputs)
    return go_on(recipe, train, validation, None, [], Hooks(on_epoch))


def make_recipe(
    model: AnyModel,
    train: Split,
    settings: Settings,
    objective: Objective | None = None,
    optimizer: optax.GradientTransformation | None = None,
    inputs: Inputs | None = None,
) -> Recipe:
    """How a model is trained on these images, checked; arguments and errors are those of `fit`."""
    check_settings(settings)
    check_model(model)
    if train.images.shape[1:] != tuple(model.image_shape):
        raise UsageError(f"The model takes images of the shape {model.image_shape}, got {train.images.shape[1:]}.")
    images = len(train.positions(settings.classes))
    return Recipe(model, settings, images, objective, optimizer, inputs)


def go_on(
    recipe: Recipe, train: Split, validation: Split, progress: Progress | None, history: list[Row], hooks: Hooks
) -> FitResult:
    """Train from where a run stands; see `fit`.

    Args:
        recipe: what is trained, and how.
        train: images to learn from.
        validation: images for the validation loss of each row.
        progress: where to go on from; None is the initial state of the seed.
        history: rows of the epochs that led to it.
        hooks: what is called.
    """
    settings, steps = recipe.settings, recipe.steps
    train, validation = train.of_classes(settings.classes), validation.of_classes(settings.classes)
    check_batch_size(train, settings.batch_size)
    if progress is None:
        progress = Progress(init_state(recipe), zero_metrics(steps))
    else:
        # The steps take their state's memory over, so the caller's own is copied.
        state, metrics = jax.tree.map(jnp.copy, progress[:2])
        progress = progress._replace(state=state, metrics=metrics)
    history = list(history)
    layout = choose_layout(settings.parallel)
    validation_images: Any = validation.images
    if are_streamed(settings, train.images.nbytes):
        program = Program(*compile_stream(recipe, train, progress.state, layout))
    else:
        validation_images = jax.device_put(np.asarray(validation.images))
        data = Data(*jax.device_put((np.asarray(train.images), train.labels)))
        program = compile_program(recipe, data, progress.state, layout)
    if hooks.on_start:
        hooks.on_start()

    for epoch in range(int(progress.state.step) // steps, epochs(settings, len(train))):
        if has_stopped(history, settings, len(train)):
            break
        progress = run_epoch(program, epoch, progress, settings.checkpoint_every_steps, hooks.on_part)
        check_finite(progress.metrics, first_step=epoch * steps)
        scores = validation_scores(recipe, progress.state.evaluation_params, validation_images, validation.labels)
        row = make_row(epoch + 1, (epoch + 1) * steps, progress.metrics, scores, recipe.beta, progress.seconds)
        history.append(row)
        if hooks.on_epoch:
            hooks.on_epoch(progress.state, row)
        progress = progress._replace(metrics=zero_metrics(steps), seconds=0.0)
    state = progress.state
    return FitResult(state.evaluation_params, state, history)


def validation_scores(
    recipe: Recipe, params: Parameters, images: Any, labels: Any = None, number: int | None = None
) -> dict[str, float]:
    """Loss, reconstruction and KL of the first `number` images, with one latent sample each and the run's own key."""
    key = Keys.from_seed(recipe.settings.seed).evaluation
    losses = image_losses(recipe.model, params, images, key, samples=1, inputs=recipe.inputs, labels=labels)
    scores = mean_loss(ImageLosses(*(values[:number] for values in losses)))
    # Rounding may differ between processors, but all have to stop after the same epoch.
    return {name: from_first_process(score) for name, score in scores.items()}
