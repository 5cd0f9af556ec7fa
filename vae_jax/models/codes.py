"""What an encoder says of a set of images: the latents that tables, figures and measures are made of."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr
from jaxtyping import Array, Bool, Float, Int

ACTIVE_VARIANCE = 0.01
"""A dimension is active whose posterior mean varies over the data by more than this (Burda et al. 2015)."""

POINT_SIGMA = 0.01
"""Posteriors narrower than this share of their means' spread are taken for points."""


class Sparsity(NamedTuple):
    """Of a set of codes."""

    active_share: float
    """Mean share of the units of a code that are active."""
    mean_activation: float
    """Mean over units and images of the absolute value."""
    hoyer: float
    """Mean of (sqrt(n) - |c|_1 / |c|_2) / (sqrt(n) - 1): 0 where all units are equal, 1 where one is active
    (Hoyer 2004). Codes of zeros are left out."""
    dead: int
    """Units that are active for no image."""


@dataclasses.dataclass(frozen=True, eq=False)
class Codes:
    """Codes of a set of images; of a VAE they are `GaussianCodes`, which say more."""

    means: Float[np.ndarray, "n latent"]
    """The codes, or the posterior means."""
    logvars: ClassVar[Any] = None
    title: ClassVar[str] = "codes"
    measure: ClassVar[str] = "variance {:.3g}"
    """How the information of a dimension is written."""

    @staticmethod
    def of(
        means: Float[np.ndarray, "n latent"], logvars: Float[np.ndarray, "n latent"] | None, independent: bool = True
    ) -> "Codes":
        """From what `vae_jax.encode_images` gives, and whether a posterior's dimensions are independent."""
        return Codes(means) if logvars is None else GaussianCodes(means, logvars, independent)

    def __len__(self) -> int:
        return len(self.means)

    def information(self) -> Float[np.ndarray, " latent"]:
        """What each dimension says of an image: the variance of the code."""
        return np.var(self.means, axis=0, dtype=np.float64)

    def order(self) -> Int[np.ndarray, " latent"]:
        """The dimensions, the most informative first."""
        return np.argsort(-self.information(), kind="stable")

    def active_dimensions(self) -> Bool[np.ndarray, " latent"]:
        """Which dimensions are used: the mean's variance over the images exceeds 0.01 (Burda et al. 2015)."""
        return np.var(self.means, axis=0, dtype=np.float64) > ACTIVE_VARIANCE

    def quantiles(self, levels: Sequence[float]) -> Float[np.ndarray, "levels latent"]:
        """Quantiles of each dimension at levels in (0, 1)."""
        _check_levels(levels)
        return np.quantile(self.means, levels, axis=0).astype(self.means.dtype)

    def sample(self) -> Float[np.ndarray, "n latent"]:
        """One sample of each image's posterior, always the same: the codes themselves."""
        return self.means

    def covariances(self, chosen: Int[np.ndarray, " m"]) -> Float[np.ndarray, "m latent"] | None:
        """Variances of the posteriors of some images; None without posteriors."""
        return None

    def diagnosis(self, beta: float, tunable: bool = True) -> str | None:
        """What the latent dimensions are used for, in words; None without posteriors."""
        return None

    def sparsity(self, threshold: float = 0.1) -> Sparsity:
        """How sparse the codes are.

        Args:
            threshold: share of the largest absolute value above which a unit is active.
        """
        on, size = active(self.means, threshold), np.abs(self.means.astype(np.float64))
        root, norms = np.sqrt(self.means.shape[1]), np.linalg.norm(size, axis=1)
        some = norms > 0
        hoyer = (root - size[some].sum(axis=1) / norms[some]) / max(root - 1, 1e-12)
        return Sparsity(
            active_share=float(on.mean()),
            mean_activation=float(size.mean()),
            hoyer=float(hoyer.mean()) if some.any() else 0.0,
            dead=int(np.count_nonzero(~on.any(axis=0))),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class GaussianCodes(Codes):
    """Posterior means and log variances of a set of images: of each dimension by itself."""

    logvars: Float[np.ndarray, "n latent"]  # type: ignore[misc]
    independent: bool = True
    """Whether that is all there is to say; otherwise the dimensions of a posterior are correlated."""
    title = "latent means"
    measure = "KL to N(0, 1) {:.2f} nats"

    def information(self) -> Float[np.ndarray, " latent"]:
        """What each dimension says of an image: its mean KL divergence to N(0, 1) in nats."""
        mean, logvar = self.means.astype(np.float64), self.logvars.astype(np.float64)
        return np.mean(0.5 * (mean**2 + np.expm1(logvar) - logvar), axis=0)

    def quantiles(self, levels: Sequence[float]) -> Float[np.ndarray, "levels latent"]:
        """Quantiles of each dimension's aggregate posterior, the equal mixture of all images' posteriors.

        The means alone would hide how far a dimension spreads that the posterior leaves at the prior. They are found by
        bisection of the mixture's distribution function.
        """
        _check_levels(levels)
        given = (jnp.asarray(self.means), jnp.asarray(self.logvars), jnp.asarray(levels, jnp.float32))
        return np.asarray(_mixture_quantiles(*given))

    def sample(self) -> Float[np.ndarray, "n latent"]:
        """One sample of each image's posterior, always the same; of correlated dimensions, each by itself."""
        noise = np.random.default_rng(0).normal(size=self.means.shape)
        return (self.means + np.exp(0.5 * self.logvars) * noise).astype(np.float32)

    def covariances(self, chosen: Int[np.ndarray, " m"]) -> Float[np.ndarray, "m latent"] | None:
        """Variances of the posteriors of some images; None of correlated dimensions."""
        return np.exp(self.logvars[chosen]) if self.independent else None

    def relative_sigma(self) -> float:
        """Median standard deviation of the posteriors over the standard deviation of their means."""
        spread = np.sqrt(self.means.var(axis=0, dtype=np.float64).mean())
        return float(np.median(np.exp(0.5 * self.logvars)) / max(spread, 1e-12))

    def diagnosis(self, beta: float, tunable: bool = True) -> str:
        """What the latent dimensions of a VAE are used for, in words, with what to try where they are not.

        Args:
            beta: weight of the KL term in training.
            tunable: whether the objective has that weight, its warm-up and free bits.
        """
        sigma, active = self.relative_sigma(), self.active_dimensions()
        number, inactive = len(active), int(np.sum(~active))
        if sigma < POINT_SIGMA and inactive < number:
            more = f" Try a --beta above {beta:g}; 1 is the evidence lower bound." if tunable else ""
            return (
                f"The posteriors have shrunk to points (sigma {sigma:.1%} of the means' spread), as in an AE: the "
                f"prior says little of where they lie.{more}"
            )
        if inactive == 0:
            return "1 dimension is active." if number == 1 else f"All {number} dimensions are active."
        smaller = f"a --beta below {beta:g}, " if beta > 0 else ""
        steps = f"{smaller}--kl-warmup-steps of a few epochs"
        if inactive == number:
            return (
                f"All {number} dimensions are inactive, the posterior has collapsed to the prior: every image decodes "
                f"to the same one. Try {f'{steps}, --free-bits 0.1, or ' if tunable else ''}a smaller decoder."
            )
        verb = "is" if inactive == 1 else "are"
        more = f"; to use more, try {steps} or --free-bits 0.1" if tunable else ""
        return (
            f"{inactive} of {number} dimensions {verb} inactive: the mean's variance over the images is at most "
            f"{ACTIVE_VARIANCE}, and what is decoded hardly depends on it. That costs nothing{more}."
        )


def _check_levels(levels: Sequence[float]) -> None:
    if not all(0 < level < 1 for level in levels):
        raise ValueError(f"levels must lie in (0, 1), got {tuple(levels)}")


@jax.jit
def _mixture_quantiles(means: Array, logvars: Array, levels: Array) -> Array:
    sigmas = jnp.exp(0.5 * logvars)

    def one_level(level: Array) -> Array:
        def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
            middle = 0.5 * (ends[0] + ends[1])
            below = jnp.mean(ndtr((middle[None] - means) / sigmas), axis=0) < level
            return jnp.where(below, middle, ends[0]), jnp.where(below, ends[1], middle)

        # 40 halvings of an interval that holds all quantiles reach float32's own resolution.
        ends = jnp.min(means - 8 * sigmas, axis=0), jnp.max(means + 8 * sigmas, axis=0)
        low, high = jax.lax.fori_loop(0, 40, halve, ends)
        return 0.5 * (low + high)

    return jax.lax.map(one_level, levels)


def active(codes: Float[np.ndarray, "n latent"], threshold: float = 0.1) -> Bool[np.ndarray, "n latent"]:
    """Which units of each code are active: above `threshold` times the largest absolute value of all the codes."""
    size = np.abs(codes)
    return size > threshold * max(float(size.max()), 1e-30)
