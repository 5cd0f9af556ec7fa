"""Errors of classifiers that few labels are enough for, and of those they are compared with."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int

from experiments.markdown import interval, markdown_table
from experiments.semi_supervised import Config
from vae_jax.data.dataset import Dataset
from vae_jax.data.split import UNKNOWN, Split
from vae_jax.errors import counted
from vae_jax.measures.dimensionality import knn_accuracy, linear_probe_accuracy
from vae_jax.models.autoencoders import AnyModel
from vae_jax.models.evaluation import class_probabilities, error_rate
from vae_jax.runs.run import Run
from vae_jax.training.optimizer import make_optimizer

METHODS = {
    "alone": "the classifier alone",
    "knn": "M1: 5-NN on a VAE's means",
    "probe": "M1: linear probe on a VAE's means",
    "m2": "M2",
}
PUBLISHED = {100: "M2 11.97%, M1+M2 3.33%"}
"""Of Kingma et al. (2014), table 1, on MNIST; quoted from memory."""


def known(train: Split) -> Split:
    """The images whose class is known."""
    assert train.labels is not None
    return train.rows(np.flatnonzero(train.labels != UNKNOWN))


def m1_errors(vae: Run, labelled: Split, test: Split) -> dict[str, float]:
    """Test errors of 5-NN and of a linear probe on the latent means of the labelled images."""
    codes, of_test = (vae.encode(split.images).means for split in (labelled, test))
    given = codes, labelled.labels, of_test, test.labels
    return {"knn": 1 - knn_accuracy(*given, min(5, len(labelled))), "probe": 1 - linear_probe_accuracy(*given)}


def error_alone(m2: Run, labelled: Split, test: Split, steps: int) -> float:
    """Test error of the run's classifier trained anew on the labelled images alone, by M2's inputs and optimiser."""
    given, seed = (m2.model, m2.inputs, m2.config.batch_size), m2.config.seed
    settings = m2.config.__class__(**vars(m2.config) | {"epochs": None, "steps": steps})
    params = _trained(
        *given, settings, jnp.asarray(labelled.images), jnp.asarray(labelled.labels), jax.random.key(seed)
    )
    found = class_probabilities(m2.model, params, test.images, m2.evaluation_key, inputs=m2.inputs)
    assert test.labels is not None
    return error_rate(found, test.labels, m2.model.classes)["error_rate"]


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _trained(
    model: AnyModel, inputs: Any, size: int, settings: Any, images: Array, labels: Int[Array, " n"], key: Array
) -> Any:
    optimizer, params = make_optimizer(settings, len(images)), model.init(jax.random.fold_in(key, 0))
    places = jnp.searchsorted(jnp.asarray(model.classes), labels)

    def loss(classifier: Any, x: Array, y: Array) -> Array:
        scores = model.classify({"classifier": classifier}, x)
        return -jnp.mean(jnp.take_along_axis(scores, y[:, None], axis=1))

    def step(carry: Any, number: Array) -> Any:
        of_rows, of_noise = jax.random.split(jax.random.fold_in(key, number))
        rows = jax.random.randint(of_rows, (min(size, len(images)),), 0, len(images))
        seen = inputs.batch(inputs.augmented(images[rows], rows, of_noise), rows, of_noise)
        updates, state = optimizer.update(jax.grad(loss)(carry[0], seen.inputs, places[rows]), carry[1], carry[0])
        return (optax.apply_updates(carry[0], updates), state), None

    start = params["classifier"], optimizer.init(params["classifier"])
    (classifier, _), _ = jax.lax.scan(step, start, jnp.arange(1, 1 + settings.steps))
    return params | {"classifier": classifier}


def report(config: Config, name: str, dataset: Dataset, found: Mapping[int, Mapping[str, Sequence[float]]]) -> str:
    """report.md from the test errors of each method by the number of labels."""
    rows = []
    for method, title in METHODS.items():
        cells = [interval([100 * error for error in of[method]]) for of in found.values()]
        rows.append([title, *(f"{m:.2f}" + (f" ± {half:.2f}" if half is not None else "") for m, half in cells)])
    header = ["test error in %", *(f"{number:,} labels" for number in found)]
    known_here = PUBLISHED if dataset.name == "mnist" else {}
    published = "; ".join(f"{n} labels: {known_here[n]}" for n in found if n in known_here)
    shifted = "Training images are shifted a little at each step, those of M1's VAE too." if config.augment else ""
    return f"""# Few labels: {name}

{markdown_table(header, rows)}

{counted(config.seeds, "seed")}, each with a choice of labelled images of its own; 95% intervals.
{len(dataset.train):,} training images, errors of {counted(len(dataset.test), "test image")}. M2's checkpoint is
that with the best bound of log p(x) of the validation images, whose labels nothing sees. {shifted}
{f"Published (Kingma et al. 2014, from memory): {published}." if published else ""}"""
