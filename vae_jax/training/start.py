"""What a likelihood's own parameters are before the first step: those of the training images, not of any others."""

from functools import partial

import jax
import numpy as np
from jaxtyping import Array, Float

from vae_jax.data.split import Split
from vae_jax.models.autoencoders import Parameters
from vae_jax.models.inputs import Inputs
from vae_jax.training.recipe import Recipe
from vae_jax.training.step import Keys

MOST_IMAGES = 1000
MOST_VALUES = 2**22
"""Of all the images together that parameters are fitted to."""


def fitted_own(recipe: Recipe, train: Split) -> Parameters:
    """The likelihood's own parameters for a model that begins at these images; empty where it has none.

    They are fitted to at most 1,000 of the images, evenly spaced, as the loss compares with them. They are the same in
    all processes, and arguments of what is compiled.
    """
    likelihood = recipe.model.likelihood
    if not likelihood.init():
        return {}
    number = min(len(train), MOST_IMAGES, max(1, MOST_VALUES // int(np.prod(recipe.model.image_shape))))
    chosen = np.arange(number) * len(train) // number
    labels = None if train.labels is None else train.labels[chosen]
    key = jax.random.fold_in(Keys.from_seed(recipe.settings.seed).init, 3)  # the model draws by 2 and 4
    pixels = _compared_with(recipe.inputs._replace(corruption_level=0.0), train.images[chosen], chosen, key, labels)
    own: Parameters = likelihood.fitted(pixels)
    return own


@partial(jax.jit, static_argnums=0)
def _compared_with(
    inputs: Inputs, images: Array, indices: Array, key: Array, labels: Array | None
) -> Float[Array, "n height width channels"]:
    return inputs.batch(images, indices, key, labels=labels).x
