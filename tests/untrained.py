"""Runs of random weights, for what asks of a run no more than that it computes."""

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.config import Settings
from vae_jax.models.autoencoders import build_model
from vae_jax.runs.run import Run

HOSTILE = "</script><script>window.bad = 1</script>"
"""The name of a class that a page must not take for markup."""


def made(path, image_shape, **settings):
    """A run that was never trained, which a page does not mind."""
    settings = Settings(**settings)
    model, rng = build_model(settings, image_shape, 10), np.random.default_rng(1)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.float32(0.4 * rng.normal(size=leaf.shape)), shapes)
    test = {"loss": 45.0, "reconstruction": 40.0, "kl": 5.0}
    return Run(path, model, params, settings, [], {}, {"test": test}, 0)
