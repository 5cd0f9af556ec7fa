"""The state before the first step: what the training images say of it, and what another run knows already."""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vae_jax.data.split import Split
from vae_jax.errors import UsageError
from vae_jax.models.autoencoders import Parameters
from vae_jax.models.inputs import Inputs
from vae_jax.training.devices import array_from_first_process
from vae_jax.training.recipe import Recipe
from vae_jax.training.sampling import shares
from vae_jax.training.step import Keys, TrainState, init_state

MOST_IMAGES = 1000
MOST_VALUES = 2**22
"""Of all the images together that parameters are fitted to."""


def fitted_own(recipe: Recipe, train: Split) -> Parameters:
    """Parameters of a model that begins at these images: {"decoder": the likelihood's own}, {"prior": ...}, where any.

    The likelihood's are fitted to at most 1,000 of the images, evenly spaced, as the loss compares with them. They are
    the same in all processes, and arguments of what is compiled.
    """
    likelihood, prior, own = recipe.model.likelihood, recipe.model.prior, {}
    if likelihood.init():
        number = min(len(train), MOST_IMAGES, max(1, MOST_VALUES // int(np.prod(recipe.model.image_shape))))
        own["decoder"] = likelihood.fitted(_pixels(recipe, train, np.arange(number) * len(train) // number))
    if prior.images:
        own["prior"] = prior.begun(_pixels(recipe, train, _seen_by_prior(recipe, train, prior.images)))
    return own


def _seen_by_prior(recipe: Recipe, train: Split, number: int) -> Int[np.ndarray, " number"]:
    # Evenly spaced images, or of a conditional model those of its classes in turn; some of them twice where there are
    # fewer images.
    every, classes = np.arange(len(train)), recipe.model.classes
    own = [every[train.labels == label] for label in classes] if classes else []
    held = [places if len(places) else every for places in own] or [every]
    turns = -(-number // len(held))
    return np.stack([places[np.arange(turns) * len(places) // turns] for places in held], axis=1).ravel()[:number]


def _pixels(recipe: Recipe, train: Split, chosen: Int[np.ndarray, " n"]) -> Float[Array, "n height width channels"]:
    labels = None if train.labels is None else train.labels[chosen]
    key = jax.random.fold_in(Keys.from_seed(recipe.settings.seed).init, 3)  # the model draws by 2 and 4
    return _compared_with(recipe.inputs._replace(corruption_level=0.0), train.images[chosen], chosen, key, labels)


@partial(jax.jit, static_argnums=0)
def _compared_with(
    inputs: Inputs, images: Array, indices: Array, key: Array, labels: Array | None
) -> Float[Array, "n height width channels"]:
    return inputs.batch(images, indices, key, labels=labels).x


class Started(NamedTuple):
    """A state that begins with parameters of another run."""

    state: TrainState
    taken: dict[str, int]
    """Arrays of that run, by their paths, and how many values they hold."""
    new: dict[str, int]
    """Arrays that begin as they do without it."""


def started_from(recipe: Recipe, train: Split, params: Parameters) -> Started:
    """The state before the first step, with those arrays of `params` whose paths and shapes are those of the model."""
    known = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in _leaves(params)}
    state = init_state(recipe, fitted_own(recipe, train))
    taken: dict[str, int] = {}
    new: dict[str, int] = {}
    chosen = []
    for path, leaf in _leaves(state.params):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        agrees = name in known and known[name].shape == leaf.shape
        (taken if agrees else new)[name] = leaf.size
        chosen.append(known[name].astype(leaf.dtype) if agrees else leaf)
    begun = jax.tree.unflatten(jax.tree.structure(state.params), chosen)
    ema = None if state.ema_params is None else jax.tree.map(jnp.copy, begun)
    return Started(TrainState(begun, recipe.optimizer.init(begun), state.step, ema, state.shares), taken, new)


def epoch_begun(recipe: Recipe, state: TrainState, train: Split) -> TrainState:
    """A state as an epoch over these images begins with it: with the shares of its draws, where they are weighed."""
    if not recipe.sampling.weighs:
        return state
    key = Keys.from_seed(recipe.settings.seed).evaluation
    weights = recipe.sampling.weights(recipe.model, state.evaluation_params, train, recipe.inputs, key)
    if np.shape(weights) != (len(train),):
        raise UsageError(f"Sampling weights must be [{len(train)}], one an image, got shape {np.shape(weights)}.")
    return dataclasses.replace(state, shares=jnp.asarray(array_from_first_process(shares(weights))))


def _leaves(params: Parameters) -> list[tuple[Any, Array]]:
    return jax.tree_util.tree_flatten_with_path(params)[0]
