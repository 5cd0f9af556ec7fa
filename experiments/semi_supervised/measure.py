"""Errors of classifiers that few labels are enough for, and of those they are compared with."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.markdown import interval, markdown_table, with_half
from experiments.semi_supervised import Config
from vae_jax.data.dataset import Dataset
from vae_jax.data.split import UNKNOWN, Split
from vae_jax.errors import counted
from vae_jax.measures.dimensionality import knn_accuracy, linear_probe_accuracy
from vae_jax.models.conditions import one_hot
from vae_jax.models.evaluation import class_probabilities, error_rate, likeliest
from vae_jax.models.inputs import Batch
from vae_jax.models.objectives import Objective, Terms
from vae_jax.runs.run import Run
from vae_jax.training.fit import fit

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


@dataclasses.dataclass(frozen=True)
class Alone(Objective):
    """-log q(y | x) of images whose class is known: the classifier learns, and nothing else."""

    infers = True

    def __call__(self, model: Any, params: Any, batch: Batch, step: Any, statistics: Any = None) -> Terms:
        """The terms of each example; there is no KL."""
        given = one_hot(batch.labels, len(batch.x), model.classes)
        surprise = -jnp.sum(given * model.classify(params, batch.inputs), axis=-1)
        return Terms(surprise, surprise, jnp.zeros_like(surprise))


def error_alone(m2: Run, labelled: Split, test: Split, steps: int) -> float:
    """Test error of the run's classifier trained anew on the labelled images alone, by M2's inputs and optimiser."""
    settings = dataclasses.replace(m2.config, labels=None, epochs=None, steps=steps)
    # Of few images an epoch would be a step; what is measured after each is not looked at, so of two images.
    many = labelled.rows(np.resize(np.arange(len(labelled)), max(len(labelled), 100 * settings.batch_size)))
    result = fit(m2.model, many, labelled.rows(np.arange(2)), settings, objective=Alone())
    found = class_probabilities(m2.model, result.params, test.images, m2.evaluation_key, inputs=m2.inputs)
    assert test.labels is not None
    return error_rate(likeliest(found, m2.model.classes), test.labels)["error_rate"]


def report(config: Config, name: str, dataset: Dataset, found: Mapping[int, Mapping[str, Sequence[float]]]) -> str:
    """report.md from the test errors of each method by the number of labels."""
    rows = []
    for method, title in METHODS.items():
        cells = [interval([100 * error for error in of[method]]) for of in found.values()]
        rows.append([title, *(with_half(*cell, 2) for cell in cells)])
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
