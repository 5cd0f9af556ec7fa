"""A compiled function of a batch over a set of images: pieces of one shape, so that their number is no new program.

An example's noise depends on the key and its position only, not on the batch size.
"""

import contextlib
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from vae_jax.data.split import UNKNOWN
from vae_jax.data.stored import PIECE_BYTES
from vae_jax.errors import UsageError
from vae_jax.models.autoencoders import AnyModel, Parameters
from vae_jax.models.conditions import check_labels
from vae_jax.models.inputs import Inputs
from vae_jax.models.shapes import check_model

AnyKey = Any
"""One key, such as jax.random.key(0), also of the old kind: jax.random.PRNGKey(0)."""
BATCHES = 10
"""In one call of a compiled program, at most."""


def in_batches(
    function: Any, model: AnyModel, params: Parameters, data: tuple[Any, Any], key: AnyKey, samples: int, inputs: Inputs
) -> tuple[np.ndarray, ...]:
    """What a function makes of each image of a set, host or device in, NumPy out: arrays [n, ...].

    The images go in pieces of one length, the last one filled up with its last image: one program serves any number.

    Args:
        function: (model, params, batch, samples) -> arrays [batch, ...].
        model: the model.
        params: its parameters.
        data: images of any kind that `Inputs.checked` takes, and labels [n] or None.
        key: decides all that is drawn.
        samples: latent samples an image.
        inputs: what the model sees of an image.

    Raises:
        UsageError: images, labels or a key that are none.
    """
    check_model(model)
    key = _as_key(key)
    images, labels = inputs.checked(data[0], model.image_shape), data[1]
    number = len(images)
    if model.infers and labels is None:
        labels = np.full(number, UNKNOWN, np.int32)
    if model.classes:
        labels = check_labels(labels, number, model.classes, unknown=model.infers)
    size = min(model.rows, 2 ** (number - 1).bit_length())
    most = 1 if number <= size else max(1, min(BATCHES, PIECE_BYTES // (size * math.prod(images.shape[1:]))))
    # The level is an argument, so that another one is no new program.
    seen, level = inputs._replace(corruption_level=0.0), jnp.float32(inputs.corruption_level)
    results: list[Any] = []
    pending: Any = ()  # the device works on a piece while the one before it is fetched
    for start in range(0, number, most * size):
        here = min(most * size, number - start)
        piece = jax.tree.map(partial(_filled, start=start, length=most * size), (images, labels))
        part = jnp.int32(start), jnp.int32(-(-here // size))
        values = some_batches(function, model, samples, seen, (most, size), params, piece, part, key, level)
        results, pending = [*results, *_fetched(*pending)], (values, here)
    results += _fetched(*pending)
    return tuple(np.concatenate(parts) for parts in zip(*results, strict=True))


def _fetched(values: Any = None, number: int = 0) -> list[list[np.ndarray]]:
    return [] if values is None else [[np.asarray(v).reshape(-1, *v.shape[2:])[:number] for v in values]]


def _filled(values: Any, start: int, length: int) -> Any:
    some = values[start : start + length]
    if not (missing := length - len(some)):
        return some
    stack = jnp if isinstance(some, jax.Array) else np
    return stack.concatenate([some, stack.broadcast_to(some[-1:], (missing, *some.shape[1:]))])


def _as_key(key: Any) -> Key[Array, ""]:
    with contextlib.suppress(AttributeError, TypeError, ValueError):
        new = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
        found: Array = key if new else jax.random.wrap_key_data(key)
        if found.ndim == 0:
            return found
    raise UsageError(f"key must be one key, such as jax.random.key(0), got {str(key)[:60]}.")


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def some_batches(
    function: Any,
    model: AnyModel,
    samples: int,
    inputs: Inputs,
    shape: tuple[int, int],
    params: Parameters,
    data: tuple[Array, Array | None],
    part: tuple[Array, Array],
    key: Array,
    level: Array,
) -> Any:
    """Of the batches of the shape [most, size] the first ones: `part` is the first image's place, and their number."""
    params, (first, number) = model.prepared(params), part
    inputs = inputs._replace(corruption_level=level)
    batches = jax.tree.map(lambda values: values.reshape(*shape, *values.shape[1:]), data)
    places = first + jnp.arange(math.prod(shape), dtype=jnp.int32).reshape(shape)

    def values_of(i: Array) -> Any:
        images, labels = jax.tree.map(lambda values: values[i], batches)
        return function(model, params, inputs.batch(images, places[i], key, labels=labels), samples)

    if shape[0] == 1:
        return jax.tree.map(lambda values: values[None], values_of(jnp.int32(0)))
    empty = jax.tree.map(lambda of: jnp.zeros((shape[0], *of.shape), of.dtype), jax.eval_shape(values_of, part[0]))

    def body(i: Array, found: Any) -> Any:
        return jax.tree.map(lambda values, new: values.at[i].set(new), found, values_of(i))

    return jax.lax.fori_loop(0, number, body, empty)
