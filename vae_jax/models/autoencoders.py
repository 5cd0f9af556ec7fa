"""The two models, as pure functions of (parameters, data, key)."""

import dataclasses
import functools
from functools import partial
from typing import Any, ClassVar

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from vae_jax.config import Settings, check_settings
from vae_jax.domains import as_declared, shortened
from vae_jax.errors import UsageError
from vae_jax.models import conditions
from vae_jax.models.chunks import ROWS, in_chunks, rows_at_once
from vae_jax.models.conditions import Labels
from vae_jax.models.convolutions import CHUNK
from vae_jax.models.distributions import Delta, DiagonalGaussian, Posterior
from vae_jax.models.inputs import as_pixels
from vae_jax.models.likelihoods import Likelihood
from vae_jax.models.objectives import keep_largest
from vae_jax.models.priors import NoPrior, Prior, StandardNormal
from vae_jax.registry import ARCHITECTURES, LIKELIHOODS, PRIORS

Parameters = dict[str, Any]
Images = Any
"""[batch, height, width, channels]: pixels in [0, 1] as floats, or bytes."""
Latents = Float[Array | np.ndarray, "batch latent"]
CODE_ACTIVATIONS = {"linear": lambda code: code, "relu": nn.relu, "sigmoid": nn.sigmoid}


@dataclasses.dataclass(frozen=True)
class Model:
    """What both models share: two networks, a likelihood, the shape of an image."""

    encoder: nn.Module
    decoder: nn.Module
    likelihood: Likelihood
    image_shape: tuple[int, int, int]
    latent_dim: int
    classes: tuple[int, ...] = ()
    """Labels that a conditional model knows, whose networks see the class of each image; none of any other model."""
    precision: str = "float32"
    """What the networks compute with: float32 or bfloat16. Parameters and results are float32 either way."""
    name: ClassVar[str]
    stochastic: ClassVar[bool]
    """Whether a latent is drawn, so that more samples tell more."""
    prior: ClassVar[Prior] = NoPrior()

    @partial(jax.jit, static_argnums=0)  # one program for each model: layer by layer it takes seconds at each call
    def init(self, key: Key[Array, ""]) -> Parameters:
        """Draw initial parameters {"encoder", "decoder"}, and "prior" and "condition" where these have some."""
        encoder_key, decoder_key = jax.random.split(key)
        encoder = self.encoder.init(encoder_key, jnp.zeros((1, *self.seen_shape)))
        decoder = self.decoder.init(decoder_key, jnp.zeros((1, self.decoded_dim)))
        for network, drawn in ((self.encoder, encoder), (self.decoder, decoder)):
            if others := sorted(set(drawn) - {"params"}):
                raise UsageError(
                    f"{type(network).__name__} must have trained parameters only, got the collection {others[0]!r}, "
                    "as of BatchNorm.\nUse nn.GroupNorm or nn.LayerNorm, which need no statistics of the batch."
                )
        params = {
            "encoder": encoder.get("params", {}),
            "decoder": {**decoder.get("params", {}), **self.likelihood.init()},
        }
        prior = self.prior.init(jax.random.fold_in(key, 2), self.latent_dim)
        params |= {"prior": prior} if prior else {}
        if self.classes:
            params["condition"] = conditions.init(jax.random.fold_in(key, 4), self.classes, self.image_shape)
        return params

    def features(self, params: Parameters, x: Images, labels: Labels = None) -> Float[Array, "batch features"]:
        """The encoder's raw output; a UsageError for what are no images, or no labels, of this model."""
        x = as_pixels(x, self.image_shape)
        if self.classes:
            x = conditions.beside_image(params["condition"], conditions.one_hot(labels, x.shape[0], self.classes), x)
        return _apply(self.encoder, params["encoder"], x, self.precision)

    def encode(self, params: Parameters, x: Images, labels: Labels = None) -> Posterior:
        """What the encoder says of the latents of images; a conditional model needs the labels."""
        raise NotImplementedError

    def latents(self, params: Parameters, x: Images, labels: Labels = None) -> Float[Array, "batch latent"]:
        """Posterior means; the codes of an autoencoder."""
        return self.encode(params, x, labels).mean

    def decode(
        self, params: Parameters, z: Latents, labels: Labels = None
    ) -> Float[Array, "batch height width parameters"]:
        """Parameters of the likelihood for latents: logits for the Bernoulli ones."""
        own = {name: params["decoder"][name] for name in self.likelihood.init()}
        if self.classes:
            z = jnp.asarray(z)
            chosen = conditions.one_hot(labels, z.shape[0], self.classes)
            z = conditions.beside_latent(params["condition"], chosen, z, self.places)
        return self.likelihood.complete(_apply(self.decoder, params["decoder"], z, self.precision), own)

    def decode_mean(
        self, params: Parameters, z: Latents, labels: Labels = None
    ) -> Float[Array, "batch height width channels"]:
        """Expected images for latents."""
        z = jnp.asarray(z)
        labelled = [conditions.check_labels(labels, z.shape[0], self.classes)] if self.classes else []
        arrays: Any = [z, *map(jnp.asarray, labelled)]
        return in_chunks(lambda *part: self.likelihood.mean(self.decode(params, *part)), self.chunk, *arrays)

    def decoder_jacobian(
        self, params: Parameters, z: Float[Array, " latent"], unit: Any = 1.0
    ) -> Float[Array, "values latent"]:
        """Derivatives of the expected image's values in each dimension of one latent, by steps of `unit`."""

        def values(step: Array) -> Array:
            return self.decode_mean(params, (z + step * unit)[None]).ravel()

        zero = jnp.zeros_like(z)
        if not getattr(self.decoder, "on_maps", False):
            return jax.jacfwd(values)(zero)
        # The products for maps have gradients of their own and no forward ones: a column is what the pullback,
        # which is linear, is pulled back to.
        y, pullback = jax.vjp(values, zero)
        _, push = jax.vjp(lambda u: pullback(u)[0], jnp.zeros_like(y))
        return jax.vmap(lambda column: push(column)[0], out_axes=1)(jnp.eye(len(z)))

    def kl(self, params: Parameters, posterior: Posterior, z: Float[Array, "batch latent"]) -> Float[Array, " batch"]:
        """KL divergence of posteriors from the prior in nats; estimated from their samples z where it has no form."""
        return self.prior.kl(params.get("prior", {}), posterior, z)

    def log_prior(self, params: Parameters, z: Float[Array, "batch latent"]) -> Float[Array, " batch"]:
        """Log density of latents under the prior, in nats."""
        return self.prior.log_prob(params.get("prior", {}), z)

    @property
    def seen_shape(self) -> tuple[int, int, int]:
        """Of what the encoder sees: height, width, channels."""
        height, width, channels = self.image_shape
        return height, width, channels + bool(self.classes)

    @property
    def places(self) -> int:
        """Of the map that the decoder takes a latent for; 1 of a vector."""
        return getattr(self.decoder, "places", 1)

    @property
    def decoded_dim(self) -> int:
        """Numbers that the decoder sees of an image: its latent, and what says its class."""
        return self.latent_dim + (self.places * conditions.numbers_of(self.classes) if self.classes else 0)

    @property
    def chunk(self) -> int | None:
        """How many images to work on at a time: few for convolutions on a CPU, None for all others."""
        few = getattr(self.decoder, "on_maps", False) and jax.default_backend() == "cpu"
        return rows_at_once(self.image_shape, CHUNK) if few else None

    @property
    def rows(self) -> int:
        """How many images to work on at a time where no gradient is needed."""
        return self.chunk or rows_at_once(self.image_shape, ROWS)


def _apply(network: nn.Module, params: Parameters, x: Any, precision: str) -> Any:
    def cast(leaf: Any) -> Any:
        # A lone scalar costs nothing, and its gradient is a sum over all pixels.
        return leaf.astype(precision) if leaf.ndim else leaf

    x = jnp.asarray(x)
    result: Any = network.apply({"params": jax.tree.map(cast, params)}, x.astype(precision))
    return result.astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class VariationalAutoencoder(Model):
    """The VAE of Kingma & Welling (2014) and Rezende et al. (2014), its posterior a diagonal Gaussian."""

    prior: Prior = StandardNormal()  # type: ignore[misc]
    name = "VAE"
    stochastic = True

    def encode(self, params: Parameters, x: Images, labels: Labels = None) -> DiagonalGaussian:
        """Approximate posterior q(z | x) of images, or q(z | x, y) with the labels of a conditional model."""
        return DiagonalGaussian.from_features(self.features(params, x, labels))

    def generate(
        self, params: Parameters, key: Key[Array, ""], number: int, temperature: Any = 1.0, labels: Labels = None
    ) -> Float[Array, "number height width channels"]:
        """Expected images of latents drawn from the prior, at a temperature, and of the classes of a conditional one.

        The latents do not depend on the labels.
        """
        z = self.prior.sample(params.get("prior", {}), key, (number, self.latent_dim), temperature)
        return self.decode_mean(params, z, labels)


@dataclasses.dataclass(frozen=True)
class Autoencoder(Model):
    """The classic autoencoder: a code instead of a posterior, no KL term, no prior; its code may be sparse."""

    code_activation: str = "linear"
    """linear, relu or sigmoid."""
    sparsity: str = "none"
    """topk keeps the largest units only; other values change nothing here."""
    sparsity_target: float = 0.05
    """Share of the units kept (topk)."""
    name = "AE"
    stochastic = False

    def encode(self, params: Parameters, x: Images, labels: Labels = None) -> Delta:
        """Codes of images."""
        code = CODE_ACTIVATIONS[self.code_activation](self.features(params, x, labels))
        return Delta(keep_largest(code, self.sparsity_target) if self.sparsity == "topk" else code)

    def generate(
        self,
        params: Parameters,
        key: Key[Array, ""],
        number: int,
        temperature: Any = 1.0,
        labels: Labels = None,
        *,
        codes: Float[Array | np.ndarray, "codes latent"],
    ) -> Float[Array, "number height width channels"]:
        """Expected images of latents drawn from the Gaussian fitted to `codes`: an autoencoder has no prior.

        The temperature multiplies their distance from its mean.
        """
        codes = jnp.asarray(codes)
        centred = codes - jnp.mean(codes, axis=0, keepdims=True)
        # Draws of N(mean, covariance) without a factorisation: random combinations of the centred codes.
        noise = temperature * jax.random.normal(key, (number, len(codes))) / jnp.sqrt(float(len(codes)))
        return self.decode_mean(params, jnp.mean(codes, axis=0, keepdims=True) + noise @ centred, labels)


AnyModel = Model


def build_model(settings: Settings, image_shape: Any, classes: Any = None) -> Any:
    """The model that the settings describe.

    Args:
        settings: what it is like.
        image_shape: (height, width, channels).
        classes: for --condition labels the labels that there are, or how many from 0 on; without effect else.

    Raises:
        UsageError: a setting outside its domain, or networks or classes that do not fit.
    """
    check_settings(settings)
    known = _known(classes) if settings.condition == "labels" else ()
    shape = as_declared(image_shape, tuple[int, ...])  # as a model has to be hashable, whatever sequence was given
    if not (isinstance(shape, tuple) and len(shape) == 3 and all(type(side) is int and side > 0 for side in shape)):
        raise UsageError(f"image_shape must be (height, width, channels), integers above 0, got {image_shape!r}.")
    likelihood = LIKELIHOODS.make(settings.likelihood, settings, shape)
    features = 2 * settings.latent_dim if settings.model == "vae" else settings.latent_dim
    encoder, decoder = ARCHITECTURES.make(settings.arch, settings, shape, features, likelihood.parameters)
    common = (encoder, decoder, likelihood, shape, settings.latent_dim, known, settings.precision)
    if settings.model == "vae":
        return VariationalAutoencoder(*common, PRIORS.make(settings.prior, settings))
    return Autoencoder(*common, settings.code_activation, settings.sparsity, settings.sparsity_target)


def _known(classes: Any) -> tuple[int, ...]:
    labels = as_declared(tuple(range(classes)) if isinstance(classes, int) else classes, tuple[int, ...])
    if not (isinstance(labels, tuple) and all(type(label) is int for label in labels) and len(set(labels)) > 1):
        raise UsageError(
            f"--condition labels needs the labels of at least two classes, got {shortened(repr(classes), 60)}.\n"
            "Give build_model(settings, image_shape, classes), such as the number of classes."
        )
    return tuple(sorted(set(labels)))


def check_model(model: Model) -> None:
    """Check the shapes of what the networks of a model give, without computing anything.

    Raises:
        UsageError: the encoder's output does not make latents, or the decoder's no image, or a network does not run.
    """
    try:
        hash(model)
    except TypeError as error:
        raise UsageError(
            "The fields of a model and of its networks must be hashable: give tuples in place of lists."
        ) from error
    _check_shapes(model)


@functools.cache
def _check_shapes(model: Model) -> None:
    features = 2 if model.stochastic else 1
    try:
        params = jax.eval_shape(model.init, jax.random.key(0))
        x, z = jnp.zeros((2, *model.image_shape)), jnp.zeros((2, model.decoded_dim))
        labels = np.array(model.classes[:1] * 2, np.int32) if model.classes else None
        given = jax.eval_shape(partial(model.features, labels=labels), params, x).shape
        decoded = jax.eval_shape(lambda p, z: _apply(model.decoder, p["decoder"], z, model.precision), params, z).shape
    except flax.errors.FlaxError as error:
        reason = str(error).partition("\n")[0].split(" (http")[0]
        raise UsageError(
            f"The networks of this {model.name} can't be run as functions of parameters and images: {reason}\n"
            "Layers that draw at random, such as nn.Dropout, or keep statistics are not supported."
        ) from error
    wanted = (2, features * model.latent_dim)
    if given != wanted:
        raise UsageError(f"The encoder must give [batch, {wanted[1]}] for {model.latent_dim} latents, got {given[1:]}.")
    height, width, channels = model.image_shape
    wanted_decoded = (2, height, width, channels * model.likelihood.parameters)
    if decoded != wanted_decoded:
        raise UsageError(
            f"The decoder must give {wanted_decoded[1:]} for images {model.image_shape} under "
            f"{type(model.likelihood).__name__}, got {decoded[1:]}."
        )


def count_parameters(params: Parameters) -> int:
    """Number of trained values."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
