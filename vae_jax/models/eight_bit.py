"""What the likelihoods of 8-bit pixels share: 256 levels, and parameters of their own that begin at the data."""

import dataclasses
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from vae_jax.models.distributions import smooth_bound
from vae_jax.models.likelihoods import Likelihood, Parameters

TOP = 255
LOG_GAIN_BOUND = 8.0
LEAST_SPREAD = 1 / TOP
"""What the standard deviation of pixels is taken for at least where parameters are fitted to them."""
Blocks: TypeAlias = Float[Array, "*batch height width components channels"]
Rows: TypeAlias = Float[np.ndarray, "parameters channels"]


def unbounded(value: Any, bound: float) -> Any:
    """What `smooth_bound` makes the value of, or nearly, where it lies close to the bound or beyond."""
    return bound * np.arctanh(np.clip(value / bound, -0.99, 0.99))


@dataclasses.dataclass(frozen=True)
class EightBit(Likelihood):
    """What the likelihoods of 8-bit pixels share: their own parameters, which put the decoder's output near the data.

    A number that the decoder gives counts in units of exp(log_gains) from offsets, both of which are trained.
    """

    channels: int = 1
    kind = "mass"
    of_reals = False
    levels = TOP + 1

    @classmethod
    def from_settings(cls, settings: Any, image_shape: tuple[int, int, int]) -> "EightBit":
        """For images of this shape."""
        return cls(image_shape[-1])

    def start(self, mean: np.ndarray, covariance: np.ndarray) -> tuple[Rows, Rows]:
        """Where the numbers of each channel begin, and their units, for pixels of this mean and covariance."""
        raise NotImplementedError

    def init(self) -> dict[str, Array]:
        """For pixels of mean 0.5 and standard deviation 0.25."""
        return self._own(np.full(self.channels, 0.5), 0.25**2 * np.eye(self.channels))

    def fitted(self, pixels: Num[Array | np.ndarray, "n height width channels"]) -> dict[str, Array]:
        """For pixels of the mean and covariance of these."""
        rows = np.asarray(pixels, np.float64).reshape(-1, self.channels)
        covariance = np.cov(rows, rowvar=False, bias=True).reshape(self.channels, self.channels)
        return self._own(rows.mean(axis=0), covariance + LEAST_SPREAD**2 * np.eye(self.channels))

    def _own(self, mean: np.ndarray, covariance: np.ndarray) -> dict[str, Array]:
        offsets, units = self.start(mean, covariance)
        own = {"offsets": offsets, "log_gains": unbounded(np.log(units), LOG_GAIN_BOUND)}
        return {name: jnp.asarray(rows.ravel(), jnp.float32) for name, rows in own.items()}

    def complete(self, decoded: Parameters, own: dict[str, Array]) -> Parameters:
        """The parameters of all values: offsets + gains * decoded."""
        shape = (1,) * (decoded.ndim - 1) + (-1,)
        gains = jnp.exp(smooth_bound(own["log_gains"], LOG_GAIN_BOUND))
        return own["offsets"].reshape(shape) + gains.reshape(shape) * decoded

    def blocks(self, parameters: Parameters) -> Blocks:
        """The same with the numbers of a channel along an axis of their own."""
        return parameters.reshape(*parameters.shape[:-1], self.parameters, self.channels)
