"""The two models, as pure functions of (parameters, data, key)."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from vae_jax.config import Settings, check_settings, hidden_sizes
from vae_jax.models.chunks import in_chunks
from vae_jax.models.convolutions import CHUNK
from vae_jax.models.distributions import DiagonalGaussian
from vae_jax.models.likelihoods import Likelihood, make_likelihood
from vae_jax.models.networks import MLPDecoder, make_networks
from vae_jax.models.objectives import Terms, free_bits_kl, keep_largest, kl_penalty, l1_penalty

Parameters = dict[str, Any]
Images = Float[Array | np.ndarray, "batch height width channels"]
"""Pixels in [0, 1]."""
Latents = Float[Array | np.ndarray, "batch latent"]
CODE_ACTIVATIONS = {"linear": lambda code: code, "relu": nn.relu, "sigmoid": nn.sigmoid}


@dataclasses.dataclass(frozen=True)
class _EncoderDecoder:
    """What both models share: two networks, a likelihood, the shape of an image."""

    encoder: nn.Module
    decoder: nn.Module
    likelihood: Likelihood
    image_shape: tuple[int, int, int]
    latent_dim: int
    precision: str = "float32"
    """What the networks compute with: float32 or bfloat16. Parameters and results are float32 either way."""

    @partial(jax.jit, static_argnums=0)  # one program for each model: layer by layer it takes seconds at each call
    def init(self, key: Key[Array, ""]) -> Parameters:
        """Draw initial parameters {"encoder": ..., "decoder": ...}; compiled at the first call."""
        encoder_key, decoder_key = jax.random.split(key)
        images = jnp.zeros((1, *self.image_shape))
        return {
            "encoder": self.encoder.init(encoder_key, images)["params"],
            "decoder": self.decoder.init(decoder_key, jnp.zeros((1, self.latent_dim)))["params"],
        }

    def features(self, params: Parameters, x: Images) -> Float[Array, "batch features"]:
        """The encoder's raw output."""
        return _apply(self.encoder, params["encoder"], x, self.precision)

    def decode(self, params: Parameters, z: Latents) -> Float[Array, "batch height width parameters"]:
        """Parameters of the likelihood for latents: logits for the Bernoulli ones."""
        return _apply(self.decoder, params["decoder"], z, self.precision)

    def decode_mean(self, params: Parameters, z: Latents) -> Float[Array, "batch height width channels"]:
        """Expected images for latents."""
        return in_chunks(lambda part: self.likelihood.mean(self.decode(params, part)), self.chunk, jnp.asarray(z))

    @property
    def chunk(self) -> int | None:
        """How many images to work on at a time: few for convolutions on a CPU, None for all others."""
        convolutional = not isinstance(self.decoder, MLPDecoder)
        return CHUNK if convolutional and jax.default_backend() == "cpu" else None


def _apply(network: nn.Module, params: Parameters, x: Any, precision: str) -> Any:
    def cast(leaf: Any) -> Any:
        # A lone scalar such as log sigma costs nothing, and its gradient is a sum over all pixels.
        return leaf.astype(precision) if leaf.ndim else leaf

    x = jnp.asarray(x)
    result: Any = network.apply({"params": jax.tree.map(cast, params)}, x.astype(precision))
    return result.astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class VariationalAutoencoder(_EncoderDecoder):
    """The VAE of Kingma & Welling (2014) and Rezende et al. (2014): prior N(0, I), posterior diagonal Gaussian."""

    name: ClassVar[str] = "VAE"

    def encode(self, params: Parameters, x: Images) -> DiagonalGaussian:
        """Approximate posterior q(z | x) of images with pixels in [0, 1]."""
        return DiagonalGaussian.from_features(self.features(params, x))

    def latents(self, params: Parameters, x: Images) -> Float[Array, "batch latent"]:
        """Posterior means."""
        return self.encode(params, x).mean

    def generate(
        self, params: Parameters, key: Key[Array, ""], number: int
    ) -> Float[Array, "number height width channels"]:
        """Expected images of latents drawn from the prior N(0, I)."""
        return self.decode_mean(params, jax.random.normal(key, (number, self.latent_dim)))

    def loss_terms(
        self,
        params: Parameters,
        x: Images,
        keys: Key[Array, " batch"],
        penalty_weight: Float[Array, ""] | float = 1.0,
        free_bits: float = 0.0,
        weights: Float[Array, " batch"] | None = None,
        inputs: Images | None = None,
        axis: str | None = None,
    ) -> Terms:
        """Reconstruction + penalty_weight * KL with one latent sample an example, drawn by its own key.

        `inputs` are what the encoder sees in place of `x`: a corrupted image. `axis` is that of the devices that
        hold the rest of the batch.
        """
        posterior = self.encode(params, x if inputs is None else inputs)
        z = posterior.sample(keys)
        reconstruction = self.likelihood.reconstruction_loss(self.decode(params, z), jnp.asarray(x))
        weights = jnp.ones_like(reconstruction) if weights is None else weights
        penalty = free_bits_kl(posterior.kl_per_dimension(), free_bits, weights, axis)
        return Terms(reconstruction + penalty_weight * penalty, reconstruction, posterior.kl())


@dataclasses.dataclass(frozen=True)
class Autoencoder(_EncoderDecoder):
    """The classic autoencoder: a code instead of a posterior, no KL term, no prior; its code may be sparse."""

    code_activation: str = "linear"
    """linear, relu or sigmoid."""
    sparsity: str = "none"
    """none, l1, kl or topk."""
    sparsity_target: float = 0.05
    """Wanted mean activation (kl), or share of the units kept (topk)."""
    name: ClassVar[str] = "AE"

    def encode(self, params: Parameters, x: Images) -> Float[Array, "batch latent"]:
        """Codes of images with pixels in [0, 1]."""
        code = CODE_ACTIVATIONS[self.code_activation](self.features(params, x))
        return keep_largest(code, self.sparsity_target) if self.sparsity == "topk" else code

    def latents(self, params: Parameters, x: Images) -> Float[Array, "batch latent"]:
        """The codes."""
        return self.encode(params, x)

    def generate(
        self, params: Parameters, key: Key[Array, ""], number: int, codes: Float[Array | np.ndarray, "codes latent"]
    ) -> Float[Array, "number height width channels"]:
        """Expected images of latents drawn from the Gaussian fitted to `codes`: an autoencoder has no prior."""
        codes = jnp.asarray(codes)
        centred = codes - jnp.mean(codes, axis=0, keepdims=True)
        # Draws of N(mean, covariance) without a factorisation: random combinations of the centred codes.
        noise = jax.random.normal(key, (number, len(codes))) / jnp.sqrt(float(len(codes)))
        return self.decode_mean(params, jnp.mean(codes, axis=0, keepdims=True) + noise @ centred)

    def loss_terms(
        self,
        params: Parameters,
        x: Images,
        keys: Key[Array, " batch"] | None = None,
        penalty_weight: Float[Array, ""] | float = 0.0,
        free_bits: float = 0.0,
        weights: Float[Array, " batch"] | None = None,
        inputs: Images | None = None,
        axis: str | None = None,
    ) -> Terms:
        """Reconstruction loss + penalty_weight * sparsity penalty; what concerns the KL term is ignored.

        `inputs` are what the encoder sees in place of `x`: a corrupted image. `axis` is that of the devices that
        hold the rest of the batch.
        """
        code = self.encode(params, x if inputs is None else inputs)
        reconstruction = self.likelihood.reconstruction_loss(self.decode(params, code), jnp.asarray(x))
        weights = jnp.ones_like(reconstruction) if weights is None else weights
        penalty = jnp.zeros_like(reconstruction)
        if self.sparsity == "l1":
            penalty = l1_penalty(code)
        elif self.sparsity == "kl":
            penalty = kl_penalty(code, self.sparsity_target, weights, axis)
        return Terms(reconstruction + penalty_weight * penalty, reconstruction, jnp.zeros_like(reconstruction))


AnyModel = VariationalAutoencoder | Autoencoder


def build_model(settings: Settings, image_shape: Sequence[int]) -> AnyModel:
    """The model that the settings describe, for images (height, width, channels).

    Raises:
        UsageError: a setting outside its domain.
    """
    check_settings(settings)
    height, width, channels = image_shape
    image_shape = (height, width, channels)  # as a model has to be hashable, whatever sequence was given
    likelihood = make_likelihood(settings.likelihood, settings.sigma)
    encoder, decoder = make_networks(
        settings.arch,
        image_shape,
        hidden_sizes(settings),
        settings.dense_size,
        settings.activation,
        features=2 * settings.latent_dim if settings.model == "vae" else settings.latent_dim,
        learned_sigma=likelihood.learned_sigma,
        fourier_features=settings.fourier_features,
    )
    common = (encoder, decoder, likelihood, image_shape, settings.latent_dim, settings.precision)
    if settings.model == "vae":
        return VariationalAutoencoder(*common)
    return Autoencoder(*common, settings.code_activation, settings.sparsity, settings.sparsity_target)


def count_parameters(params: Parameters) -> int:
    """Number of trained values."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
