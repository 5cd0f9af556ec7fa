"""Which images an epoch is made of: each once, or some more often than others, by weights that may change with it."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from vae_jax.data.split import UNKNOWN, Split
from vae_jax.errors import UsageError
from vae_jax.models.autoencoders import AnyModel, Parameters
from vae_jax.models.evaluation import encode_images
from vae_jax.models.inputs import Inputs

_BITS = 30


class Sampling:
    """Each image once an epoch, in a new order: without weights.

    A new one overrides `weighs` and `weights`, and is named by `vae_jax.registry.SAMPLINGS.register`. An epoch has as
    many draws as there are images, so that an image of the mean weight is drawn once.
    """

    weighs: ClassVar[bool] = False

    @classmethod
    def from_settings(cls, settings: Any) -> "Sampling":
        """The sampling that the settings describe."""
        return cls()

    def check(self, train: Split) -> None:
        """Refuse, by a UsageError, images that it has no weights for."""

    def weights(
        self, model: AnyModel, params: Parameters, train: Split, inputs: Inputs, key: Key[Array, ""]
    ) -> Float[np.ndarray, " n"]:
        """Weights of at least 0 of the images in the epoch to come, as float64.

        Args:
            model: what is trained.
            params: its parameters as the epoch begins, or their moving average.
            train: the images.
            inputs: what the model sees of them.
            key: that of the run's evaluations.
        """
        raise NotImplementedError


class Balanced(Sampling):
    """Each class as often as any other, however many images it has."""

    weighs = True

    def check(self, train: Split) -> None:
        """They need labels."""
        _labels(train, "balanced")

    def weights(self, model: Any, params: Any, train: Split, inputs: Any, key: Any) -> Float[np.ndarray, " n"]:
        """One over the number of images of the class."""
        _, places, numbers = np.unique(_labels(train, "balanced"), return_inverse=True, return_counts=True)
        return 1.0 / numbers[places]


@dataclasses.dataclass(frozen=True)
class Labelled(Sampling):
    """A share of the draws to the images whose class is known, if they are fewer than that."""

    weighs = True
    share: float = 0.5

    @classmethod
    def from_settings(cls, settings: Any) -> "Labelled":
        """With the settings' share."""
        return cls(settings.labelled_share)

    def check(self, train: Split) -> None:
        """They need labels."""
        _labels(train, "labelled")

    def weights(self, model: Any, params: Any, train: Split, inputs: Any, key: Any) -> Float[np.ndarray, " n"]:
        """Those of the known ones sum up to the share, the others' to the rest."""
        known = _labels(train, "labelled") != UNKNOWN
        share = known.mean()
        wanted = max(share, self.share) if 0 < share < 1 else share
        return np.where(known, wanted / max(share, 1e-12), (1 - wanted) / max(1 - share, 1e-12))


@dataclasses.dataclass(frozen=True)
class Rare(Sampling):
    """Images whose latent means are rare more often: the resampling of Amini et al. (2019), section 3.4.

    The weight of an image is the largest, over the latent dimensions, of one over the share of the images in its bin
    of the histogram of means, with `smoothing` added to that share, which limits it.
    """

    weighs = True
    bins: int = 10
    smoothing: float = 0.01

    def weights(
        self, model: AnyModel, params: Parameters, train: Split, inputs: Inputs, key: Key[Array, ""]
    ) -> Float[np.ndarray, " n"]:
        """From the codes that the model gives the images now, without noise on them."""
        seen = inputs._replace(corruption="none")
        means, _ = encode_images(model, params, train.images, key, inputs=seen, labels=train.labels)
        return rareness(means, self.bins, self.smoothing)


def rareness(means: Float[np.ndarray, "n latent"], bins: int, smoothing: float) -> Float[np.ndarray, " n"]:
    """The weights of `Rare` for these codes: each dimension's sum up to 1 before the largest is taken."""
    largest = np.zeros(len(means))
    for column in means.T.astype(np.float64):
        counts, edges = np.histogram(column, bins)
        places = np.clip(np.searchsorted(edges, column, side="right") - 1, 0, bins - 1)
        own = 1.0 / (counts[places] / len(means) + smoothing)
        largest = np.maximum(largest, own / own.sum())
    return largest


def _labels(train: Split, name: str) -> np.ndarray:
    if train.labels is None:
        raise UsageError(
            f"--sampling {name} needs labels, which the training images have not.\n"
            "Give a folder with a folder for each class or a file with labels, or use --sampling uniform."
        )
    return train.labels


def shares(weights: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """The draws that fall to the images up to each, where there are as many as images, in fixed point.

    Integers, so that equal weights give each image exactly one draw, and all processes the same ones.

    Raises:
        UsageError: the weights are not finite, one is below 0, or all are 0.
    """
    sums = np.cumsum(weights, dtype=np.float64)
    if not (np.isfinite(sums).all() and np.min(weights) >= 0 and sums[-1] > 0):
        raise UsageError(
            f"Sampling weights must be finite, none below 0 and not all 0, got {weights.min():g} to {weights.max():g}."
        )
    return np.rint(sums / sums[-1] * (len(weights) << _unit_bits(len(weights)))).astype(np.int32)


def drawn(key: Key[Array, ""], shares: Int[Array, " n"]) -> Int[Array, " n"]:
    """As many draws as there are images, in the order of these: systematic resampling.

    An image with a share of 2.3 is drawn twice, or three times with probability 0.3: no sampling has less variance.
    """
    unit = 1 << _unit_bits(len(shares))
    places = unit * jnp.arange(len(shares)) + jax.random.randint(key, (), 0, unit)
    return jnp.searchsorted(shares, places, side="right").astype(jnp.int32)


def _unit_bits(number: int) -> int:
    # Of one draw, so that all of them together fit into 31 bits.
    return _BITS - (number - 1).bit_length()
