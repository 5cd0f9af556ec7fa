"""What is exported of a run: its encoder, its decoder and its new images, as functions of arrays alone."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vae_jax.models.priors import FullGaussian
from vae_jax.runs.run import Run

KEYS = "keys"
"""The input of random bits, where the prior is no function of white noise."""
_CHECKED = (1, 3)
"""Numbers of rows that a file is tried with."""


class Input(NamedTuple):
    """An argument of a function: an array with one row an image."""

    name: str
    shape: tuple[int, ...]
    """Of a row."""
    dtype: Any
    about: str


class Function(NamedTuple):
    """One function of a run, its parameters within."""

    name: str
    call: Callable[..., tuple[Array, ...]]
    """Of the arrays of `inputs` in their order."""
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    example: Callable[[np.random.Generator, int], list[np.ndarray]]
    """Arguments of so many rows, to try it with."""


def functions_of(run: Run, codes: np.ndarray | None = None) -> list[Function]:
    """The functions encode and decode; classify, where a run infers classes; generate, where new latents are known.

    Args:
        run: from `load_run`.
        codes: of a run without a prior: those of images that new ones shall be like; None leaves generate out.
    """
    model, params = run.model, run.params
    values, latent = tuple(model.image_shape), (model.latent_dim,)
    images = Input("images", values, np.float32, "pixels in [0, 1], as the encoder sees them")
    latents = Input("latents", latent, np.float32, "such as the means of encode")
    labels = (Input("labels", (), np.int32, f"classes, of {model.classes}"),) if model.classes else ()

    def encode(x: Array, *labels: Array) -> tuple[Array, ...]:
        posterior = model.encode(params, x, *labels)
        return tuple(part for part in (posterior.mean, posterior.logvar) if part is not None)

    def decode(z: Array, *labels: Array) -> tuple[Array, ...]:
        return (model.decode_mean(params, z, *labels),)

    def classify(x: Array) -> tuple[Array, ...]:
        return (jnp.exp(model.classify(params, x)),)

    example = partial(_example, model.classes)
    means = ("means", "logvars") if model.stochastic else ("means",)
    found = [
        Function("encode", encode, (images, *labels), means, partial(example, images)),
        Function("decode", decode, (latents, *labels), ("images",), partial(example, latents)),
    ]
    if model.infers:
        found.append(Function("classify", classify, (images,), ("probabilities",), partial(_example, (), images)))
    draw = _draw(run, codes)
    if draw is not None:
        given, of_noise = draw

        def generate(noise: Array, *labels: Array) -> tuple[Array, ...]:
            return (model.decode_mean(params, of_noise(noise, *labels), *labels),)

        found.append(Function("generate", generate, (given, *labels), ("images",), partial(example, given)))
    return found


def _draw(run: Run, codes: np.ndarray | None) -> tuple[Input, Callable[..., Array]] | None:
    # What new latents are made of, and how.
    model, latent = run.model, (run.model.latent_dim,)
    noise = Input("noise", latent, np.float32, "white: drawn from N(0, 1), times a temperature")
    if not model.prior.has_density:
        if codes is None:
            return None
        mean, spread = gaussian_of(codes)
        return noise, lambda noise, *labels: mean[None] + jnp.matmul(noise, spread, precision="highest")
    known = jax.jit(model.prepared)(run.params)  # what needs the encoder is done here
    own = known.get("prior", {})
    if model.prior.from_noise(own, jnp.zeros((1, *latent))) is not None:
        return noise, lambda noise, *labels: model.prior.from_noise(own, noise)

    def drawn(key: Array, *label: Array) -> Array:
        labels = label[0][None] if label else None
        return model.draw(known, jax.random.wrap_key_data(key), 1, labels=labels)[0]

    keys = Input(KEYS, (2,), np.uint32, "two words of 32 random bits an image")
    return keys, lambda keys, *labels: jax.vmap(drawn)(keys, *labels)


def _example(classes: Sequence[int], first: Input, generator: np.random.Generator, number: int) -> list[np.ndarray]:
    shape = (number, *first.shape)
    if first.dtype == np.uint32:
        array = generator.integers(0, 2**32, shape, np.uint32)
    else:
        array = (generator.random(shape) if first.name == "images" else generator.normal(size=shape)).astype(np.float32)
    return [array, generator.choice(np.array(classes, np.int32), number)] if classes else [array]


def gaussian_of(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [latent] and spread [latent, latent] of the Gaussian fitted to codes: mean + noise @ spread is one more."""
    fitted = FullGaussian.fit(codes)
    spread = np.linalg.inv(np.asarray(fitted["whitening"], np.float64)).T.astype(np.float32)
    return np.asarray(fitted["mean"]), spread


def difference(function: Function, exported: Callable[..., Sequence[Any]]) -> float:
    """The largest difference between what a function and its exported form give, over the size of what they give.

    That size is the largest absolute value, and at least 1.
    """
    generator, largest = np.random.default_rng(0), 0.0
    compiled = jax.jit(function.call)
    for number in _CHECKED:
        arguments = function.example(generator, number)
        for own, other in zip(compiled(*arguments), exported(*arguments), strict=True):
            expected, given = np.asarray(own, np.float64), np.asarray(other, np.float64)
            if given.shape != expected.shape:
                return float("inf")
            size = max(1.0, float(np.max(np.abs(expected))))
            largest = float(np.maximum(largest, np.max(np.abs(given - expected)) / size))  # NaN where there is one
    return largest
