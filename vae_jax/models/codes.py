"""What an encoder says of a set of images: the latents that tables, figures and measures are made of."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int

ACTIVE_VARIANCE = 0.01
"""A dimension is active whose posterior mean varies over the data by more than this (Burda et al. 2015)."""


@dataclasses.dataclass(frozen=True, eq=False)
class Codes:
    """Latents of a set of images: posterior means and log variances; codes and None of an autoencoder."""

    means: Float[np.ndarray, "n latent"]
    logvars: Float[np.ndarray, "n latent"] | None = None

    def __len__(self) -> int:
        return len(self.means)

    def information(self) -> Float[np.ndarray, " latent"]:
        """What each dimension says of an image: its mean KL divergence to N(0, 1) in nats, or the code's variance."""
        if self.logvars is None:
            return np.var(self.means, axis=0, dtype=np.float64)
        mean, logvar = self.means.astype(np.float64), self.logvars.astype(np.float64)
        return np.mean(0.5 * (mean**2 + np.expm1(logvar) - logvar), axis=0)

    def order(self) -> Int[np.ndarray, " latent"]:
        """The dimensions, the most informative first."""
        return np.argsort(-self.information(), kind="stable")

    def active(self) -> Bool[np.ndarray, " latent"]:
        """Which dimensions are used: the mean's variance over the images exceeds 0.01 (Burda et al. 2015)."""
        return np.var(self.means, axis=0, dtype=np.float64) > ACTIVE_VARIANCE
