"""A normalising flow as a prior: an invertible network that makes latents white."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from vae_jax.errors import UsageError
from vae_jax.models.distributions import smooth_bound
from vae_jax.models.priors import Parameters, Prior

WIDTH = 128
"""Of the two hidden layers of a coupling's network."""
BOUND = 2.0
"""Of a log scale, so that the way back stays exact in float32."""
INITIAL = 0.01
"""Standard deviation of the last layers at the start, by which the flow begins next to the identity."""


@dataclasses.dataclass(frozen=True)
class Flow(Prior):
    """RealNVP on the latent: affine couplings between fixed permutations (Dinh et al. 2017), log scales 2 tanh(s / 2).

    The half of a layer that is not coupled is scaled and shifted by constants, too (Kingma & Dhariwal 2018).
    """

    layers: int = 6

    @classmethod
    def from_settings(cls, settings: Any) -> "Flow":
        """With the settings' number of layers."""
        return cls(settings.prior_layers)

    def suited(self, image_shape: tuple[int, int, int], latent_dim: int, classes: tuple[int, ...]) -> "Flow":
        """The same.

        Raises:
            UsageError: the latent has one dimension, which has no second half.
        """
        if latent_dim < 2:
            raise UsageError(
                f"--prior flow needs a --latent-dim of at least 2, got {latent_dim}.\nUse --prior mixture for one."
            )
        return self

    def init(self, key: Key[Array, ""], latent_dim: int) -> Parameters:
        """Of all layers, stacked: constants; a network from half of a latent to log scales and shifts of the rest."""
        first, second = latent_dim // 2, latent_dim - latent_dim // 2
        sizes = ((first, WIDTH), (WIDTH, WIDTH), (WIDTH, 2 * second))
        params = {"constants": jnp.zeros((self.layers, 2 * first))}
        for i, (rows, columns) in enumerate(sizes):
            spread = (INITIAL if i == len(sizes) - 1 else 1.0) / math.sqrt(rows)
            shape = (self.layers, rows, columns)
            params[f"kernel_{i}"] = spread * jax.random.normal(jax.random.fold_in(key, i), shape)
            params[f"bias_{i}"] = jnp.zeros((self.layers, columns))
        return params

    def whitened(
        self, params: Parameters, z: Float[Array, "batch latent"]
    ) -> tuple[Float[Array, "batch latent"], Float[Array, " batch"]]:
        """What latents become, and the log determinant of the Jacobian."""

        def forth(carry: tuple[Array, Array], layer: Parameters) -> tuple[tuple[Array, Array], None]:
            z, volume = carry
            log_scale, shift = _affine(layer, z[:, : z.shape[1] // 2])
            z = z * jnp.exp(log_scale) + shift
            return (z[:, order], volume + jnp.sum(log_scale, axis=-1)), None

        order = _order(z.shape[1])
        return jax.lax.scan(forth, (z, jnp.zeros_like(z[:, 0])), params)[0]

    def unwhitened(self, params: Parameters, white: Float[Array, "batch latent"]) -> Float[Array, "batch latent"]:
        """The inverse of `whitened`."""
        half, order = white.shape[1] // 2, np.argsort(_order(white.shape[1]))

        def back(z: Array, layer: Parameters) -> tuple[Array, None]:
            z = z[:, order]
            scale, shift = _constants(layer)
            first = (z[:, :half] - shift[None]) * jnp.exp(-scale)[None]
            log_scale, shift = _affine(layer, first)
            second = (z[:, half:] - shift[:, half:]) * jnp.exp(-log_scale[:, half:])
            return jnp.concatenate([first, second], axis=-1), None

        return jax.lax.scan(back, white, params, reverse=True)[0]

    def log_prob(self, params: Parameters, z: Float[Array, "batch latent"]) -> Float[Array, " batch"]:
        """Log density of latents."""
        white, volume = self.whitened(params, z)
        return volume - 0.5 * jnp.sum(white**2 + math.log(2 * math.pi), axis=-1)

    def sample(
        self, params: Parameters, key: Key[Array, ""], shape: tuple[int, int], temperature: Any = 1.0
    ) -> Float[Array, "number latent"]:
        """Draw latents of this shape, (number, latent), as what N(0, temperature^2 I) becomes."""
        return self.unwhitened(params, temperature * jax.random.normal(key, shape))

    def from_noise(self, params: Parameters, noise: Float[Array, "number latent"]) -> Float[Array, "number latent"]:
        """What the way back makes of noise."""
        return self.unwhitened(params, noise)


def _order(latent: int) -> np.ndarray:
    # Of the dimensions before the next layer: each has its turns in either half, and halves are mixed. A riffle does
    # that for even numbers, and leaves the last of an odd number where it is.
    places = np.arange(latent)
    return np.roll(places, -(latent // 2)) if latent % 2 else np.concatenate([places[1::2], places[::2]])


def _constants(layer: Parameters) -> tuple[Array, Array]:
    log_scale, shift = jnp.split(layer["constants"], 2)
    return smooth_bound(log_scale, BOUND), shift


def _affine(layer: Parameters, first: Float[Array, "batch half"]) -> tuple[Array, Array]:
    # Log scales and shifts [batch, latent] of a layer that sees the first half of a latent.
    h = first
    for i in range(3):
        h = jnp.matmul(h, layer[f"kernel_{i}"], precision="highest") + layer[f"bias_{i}"][None]
        h = jnp.tanh(h) if i < 2 else h  # bounded, and so are the shifts
    raw, shift = jnp.split(h, 2, axis=-1)
    log_scale, own = (jnp.broadcast_to(each[None], first.shape) for each in _constants(layer))
    return jnp.concatenate([log_scale, smooth_bound(raw, BOUND)], axis=-1), jnp.concatenate([own, shift], axis=-1)
