"""Priors that are fitted to the codes of a trained model."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from vae_jax.errors import UsageError
from vae_jax.models.flows import Flow
from vae_jax.models.mixtures import Mixture
from vae_jax.models.priors import FullGaussian, Parameters, Prior, StandardNormal, log_volume, unwhitened, whitened

KINDS = ("gaussian", "mixture", "flow")


@dataclasses.dataclass(frozen=True)
class Whitened(Prior):
    """A prior of latents that an affine map has made white, so that codes of any size and direction suit it.

    Its parameters are those of a `FullGaussian`, and as "base" those of the prior within.
    """

    base: Prior = StandardNormal()

    def init(self, key: Key[Array, ""], latent_dim: int) -> Parameters:
        """Those of the identity, and of the prior within."""
        return {**FullGaussian().init(key, latent_dim), "base": self.base.init(key, latent_dim)}

    def log_prob(self, params: Parameters, z: Float[Array, "batch latent"]) -> Float[Array, " batch"]:
        """Log density of latents."""
        return self.base.log_prob(params["base"], whitened(params, z)) - 0.5 * log_volume(params)

    def sample(
        self, params: Parameters, key: Key[Array, ""], shape: tuple[int, int], temperature: Any = 1.0
    ) -> Float[Array, "number latent"]:
        """Draw latents of this shape, (number, latent); the temperature acts as it does within."""
        return unwhitened(params, self.base.sample(params["base"], key, shape, temperature))

    def from_noise(self, params: Parameters, noise: Float[Array, "number latent"]) -> Any:
        """As within, and then as the latents lie."""
        made = self.base.from_noise(params["base"], noise)
        return None if made is None else unwhitened(params, made)


def fitted_prior(kind: str, components: int, layers: int) -> Prior:
    """The prior of one of KINDS: with as many components where it is a mixture, and layers where it is a flow."""
    return {"gaussian": FullGaussian(), "mixture": Whitened(Mixture(components)), "flow": Whitened(Flow(layers))}[kind]


def check_parameters(prior: Prior, params: Parameters, latent_dim: int) -> None:
    """Refuse, by a UsageError, parameters of other names or shapes than a prior has."""
    wanted = jax.eval_shape(partial(prior.init, latent_dim=latent_dim), jax.random.key(0))
    shapes, found = (jax.tree.map(jnp.shape, each) for each in (wanted, params))
    if shapes != found:
        raise UsageError(f"The parameters of {type(prior).__name__} must have the shapes {shapes}, got {found}.")
