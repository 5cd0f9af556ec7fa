"""Classes of which only some are known: a classifier infers the others (M2 of Kingma et al. 2014). In nats.

An image is made from its class y, each as likely as any other, and a latent z; q(y | x) is the classifier's.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vae_jax.errors import UsageError
from vae_jax.models.conditions import one_hot
from vae_jax.models.inputs import Batch
from vae_jax.models.objectives import ELBO, Terms


class Inferred(NamedTuple):
    """What is known of the classes of a batch, by labels or by the classifier."""

    given: Float[Array, "batch classes"]
    """1 at a class that is known."""
    probabilities: Float[Array, "batch classes"]
    """Those that the bound takes: 1 for a class that is known, the classifier's where none is."""
    kl: Float[Array, " batch"]
    """KL divergence of those from classes of equal probability; of a known class -log p(y)."""

    @classmethod
    def of(cls, log_q: Float[Array, "batch classes"], labels: Int[Array, " batch"], classes: Any) -> "Inferred":
        """By labels, of which those that are no class are not known."""
        given, q = one_hot(labels, len(log_q), classes, unknown=True), jnp.exp(log_q)
        known = jnp.sum(given, axis=-1) > 0
        negative_entropy = jnp.where(known, 0.0, jnp.sum(q * log_q, axis=-1))
        probabilities = jnp.where(known[:, None], given, q)
        return cls(given, probabilities, math.log(len(classes)) + negative_entropy)

    def mean(self, values: Float[Array, "batch classes"]) -> Float[Array, " batch"]:
        """The expectation of what each image has with each class."""
        return jnp.sum(self.probabilities * values, axis=-1)


@dataclasses.dataclass(frozen=True)
class M2(ELBO):
    """Minus the bounds of Kingma et al. (2014), equations 6 to 9, and `classification_weight` times -log q(y | x).

    Of an image whose class is known the bound is one of log p(x, y); of another one of log p(x), for which each class
    is tried, weighed by the classifier, with the KL divergence of its probabilities from equal ones in `kl`. All
    classes of all images are one batch of the networks. The last term is there for known classes alone.
    """

    infers = True
    classification_weight: Any = 1.0
    head_start_steps: int = 0
    """Steps in which the classifier learns from known classes alone; all else learns as later. Before it knows the
    classes a little it would learn others, which suit the decoder as well."""

    @classmethod
    def from_settings(cls, settings: Any) -> "M2":
        """With the settings' beta, warm-up, classification weight and head start."""
        own = settings.classification_weight, settings.head_start_steps
        return cls(settings.beta, settings.kl_warmup_steps, 0.0, *own)

    def check(self, model: Any) -> None:
        """It needs the classifier."""
        if not model.infers:
            raise UsageError("--objective m2 needs --condition inferred, got a model that infers no classes.")

    def __call__(self, model: Any, params: Any, batch: Batch, step: Float[Array, ""], statistics: Any = None) -> Terms:
        """The terms of each example."""
        self.check(model)
        number, classes = len(batch.x), len(model.classes)
        log_q = model.classify(params, batch.inputs)
        learned = jnp.where(step < self.head_start_steps, jax.lax.stop_gradient(log_q), log_q)
        found = Inferred.of(learned, batch.labels, model.classes)

        def for_each_class(values: Array) -> Array:
            shape = (number, classes, *values.shape[1:])
            return jnp.broadcast_to(values[:, None], shape).reshape(-1, *values.shape[1:])

        every = jnp.tile(jnp.asarray(model.classes, jnp.int32), number)
        each = super().__call__(model, params, jax.tree.map(for_each_class, batch)._replace(labels=every), step)
        reconstruction, kl = (found.mean(v.reshape(number, classes)) for v in (each.reconstruction, each.kl))
        kl = kl + found.kl
        surprise = -jnp.sum(found.given * log_q, axis=-1)
        objective = reconstruction + self.weight(step) * kl + self.classification_weight * surprise
        return Terms(objective, reconstruction, kl)
