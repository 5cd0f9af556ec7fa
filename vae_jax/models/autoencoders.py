"""The two models, as pure functions of (parameters, data, key)."""

import dataclasses
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from vae_jax.combinations import check_settings
from vae_jax.config import Settings
from vae_jax.models import conditions
from vae_jax.models.chunks import ROWS, in_chunks, rows_at_once
from vae_jax.models.conditions import Labels
from vae_jax.models.convolutions import CHUNK
from vae_jax.models.distributions import Delta, Posterior
from vae_jax.models.inputs import as_image_shape, as_pixels
from vae_jax.models.layers import applied, begun
from vae_jax.models.likelihoods import Likelihood
from vae_jax.models.objectives import keep_largest
from vae_jax.models.posteriors import Diagonal, Family, Point
from vae_jax.models.priors import NoPrior, Prior, StandardNormal, drawn_about
from vae_jax.registry import ARCHITECTURES, LIKELIHOODS, POSTERIORS, PRIORS

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
    prior: Prior = NoPrior()
    """An autoencoder has one only where it was fitted to the codes of the trained model."""
    classifier: nn.Module | None = dataclasses.field(default=None, kw_only=True)
    """Of a model that infers classes: images in, a number for each class out."""
    name: ClassVar[str]
    stochastic: ClassVar[bool]
    """Whether a latent is drawn, so that more samples tell more."""
    posterior: ClassVar[Family] = Point()

    @partial(jax.jit, static_argnums=0)  # one program for each model: layer by layer it takes seconds at each call
    def init(self, key: Key[Array, ""]) -> Parameters:
        """Draw initial parameters {"encoder", "decoder"}; "prior", "condition", "classifier" where there are some."""
        encoder_key, decoder_key = jax.random.split(key)
        params = {
            "encoder": begun(self.encoder, encoder_key, self.seen_shape),
            "decoder": {**begun(self.decoder, decoder_key, (self.decoded_dim,)), **self.likelihood.init()},
        }
        prior = self.prior.init(jax.random.fold_in(key, 2), self.latent_dim)
        params |= {"prior": prior} if prior else {}
        if self.classes:
            params["condition"] = conditions.init(jax.random.fold_in(key, 4), self.classes, self.image_shape)
        if self.classifier:
            params["classifier"] = begun(self.classifier, jax.random.fold_in(key, 5), self.image_shape)
        return params

    def features(self, params: Parameters, x: Images, labels: Labels = None) -> Float[Array, "batch features"]:
        """The encoder's raw output; a UsageError for what are no images, or no labels, of this model."""
        x = as_pixels(x, self.image_shape)
        if self.classes:
            x = conditions.beside_image(params["condition"], conditions.one_hot(labels, x.shape[0], self.classes), x)
        return applied(self.encoder, params["encoder"], x, self.precision)

    def classify(self, params: Parameters, x: Images) -> Float[Array, "batch classes"]:
        """Log probabilities q(y | x) of the classes, in their order, by the classifier of a model that infers them."""
        assert self.classifier is not None
        scores = applied(self.classifier, params["classifier"], as_pixels(x, self.image_shape), self.precision)
        return jax.nn.log_softmax(scores)

    @property
    def infers(self) -> bool:
        """Whether it has a classifier for classes that are not known."""
        return self.classifier is not None

    @property
    def tried(self) -> int:
        """Classes with which the networks see an image in training."""
        return len(self.classes) if self.infers else 1

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
        return self.likelihood.complete(applied(self.decoder, params["decoder"], z, self.precision), own)

    def decode_mean(
        self, params: Parameters, z: Latents, labels: Labels = None
    ) -> Float[Array, "batch height width channels"]:
        """Expected images for latents."""
        z = jnp.asarray(z)
        labelled = [conditions.check_labels(labels, z.shape[0], self.classes)] if self.classes else []
        arrays: Any = [z, *map(jnp.asarray, labelled)]
        return in_chunks(lambda *part: self.likelihood.mean(self.decode(params, *part)), self.chunk, *arrays)

    def prepared(self, params: Parameters) -> Parameters:
        """The same, where the prior has done its part of the networks' work, so that no batch has to do it again."""
        own = params.get("prior")
        return params if own is None else {**params, "prior": self.prior.prepared(own, partial(self.encode, params))}

    def prior_params(self, params: Parameters, labels: Labels = None) -> Parameters:
        """What the prior's own methods take, for examples of these classes where it depends on them."""
        own: Parameters = self.prepared(params).get("prior", {})
        if not self.prior.by_class:
            return own
        number = 0 if labels is None else labels.shape[0]
        return self.prior.of_examples(own, conditions.one_hot(labels, number, self.classes))

    def log_prior(
        self, params: Parameters, z: Float[Array, "batch latent"], labels: Labels = None
    ) -> Float[Array, " batch"]:
        """Log density of latents under the prior in nats; zeros for an autoencoder that has none."""
        return self.prior.log_prob(self.prior_params(params, labels), z)

    def kl(
        self, params: Parameters, posterior: Posterior, z: Float[Array, "batch latent"], labels: Labels = None
    ) -> Float[Array, " batch"]:
        """KL divergence of posteriors from the prior in nats; estimated from their samples z where it has no form."""
        own = self.prior_params(params, labels)
        if posterior.independent or self.prior.per_dimension:
            return self.prior.kl(own, posterior, z)
        # The closed form of any other prior is that for independent dimensions.
        return Prior.kl(self.prior, own, posterior, z)

    @property
    def estimates_kl(self) -> bool:
        """Whether `kl` is an estimate, log q(z) - log p(z) at the latent sample."""
        closed = self.posterior.independent and not self.prior.estimated
        return self.stochastic and not (closed or self.prior.per_dimension)

    def draw(
        self, params: Parameters, key: Key[Array, ""], number: int, temperature: Any = 1.0, labels: Labels = None
    ) -> Float[Array, "number latent"]:
        """Latents drawn from the prior; the temperature multiplies how far they spread."""
        return self.prior.sample(self.prior_params(params, labels), key, (number, self.latent_dim), temperature)

    def generate(
        self, params: Parameters, key: Key[Array, ""], number: int, temperature: Any = 1.0, labels: Labels = None
    ) -> Float[Array, "number height width channels"]:
        """Expected images of latents drawn from the prior, at a temperature, and of the classes of a conditional one.

        The latents depend on the labels only where the prior does.
        """
        return self.decode_mean(params, self.draw(params, key, number, temperature, labels), labels)

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


@dataclasses.dataclass(frozen=True)
class VariationalAutoencoder(Model):
    """The VAE of Kingma & Welling (2014) and Rezende et al. (2014)."""

    prior: Prior = StandardNormal()
    posterior: Family = Diagonal()  # type: ignore[misc]
    name = "VAE"
    stochastic = True

    def encode(self, params: Parameters, x: Images, labels: Labels = None) -> Posterior:
        """Approximate posterior q(z | x) of images, or q(z | x, y) with the labels of a conditional model."""
        return self.posterior.of(self.features(params, x, labels))


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

    def kl(self, params: Parameters, posterior: Posterior, z: Any, labels: Labels = None) -> Float[Array, " batch"]:
        """Zeros: nothing is paid for a code, whatever prior was fitted to codes."""
        return posterior.kl()

    def generate(
        self,
        params: Parameters,
        key: Key[Array, ""],
        number: int,
        temperature: Any = 1.0,
        labels: Labels = None,
        *,
        codes: Float[Array | np.ndarray, "codes latent"] | None = None,
    ) -> Float[Array, "number height width channels"]:
        """Expected images of latents drawn from the Gaussian fitted to `codes`, or without them from a fitted prior.

        The temperature multiplies their distance from its mean.
        """
        if codes is None:
            return super().generate(params, key, number, temperature, labels)
        return self.decode_mean(params, drawn_about(jnp.asarray(codes), key, number, temperature), labels)


AnyModel = Model


def build_model(settings: Settings, image_shape: Any, classes: Any = None) -> Any:
    """The model that the settings describe.

    Args:
        settings: what it is like.
        image_shape: (height, width, channels).
        classes: with a --condition the labels that there are, or how many from 0 on; without effect else.

    Raises:
        UsageError: a setting outside its domain, or networks or classes that do not fit.
    """
    check_settings(settings)
    known = conditions.known_classes(classes) if settings.condition != "none" else ()
    shape = as_image_shape(image_shape)
    likelihood = LIKELIHOODS.make(settings.likelihood, settings, shape)
    posterior = POSTERIORS.make(settings.posterior, settings) if settings.model == "vae" else Autoencoder.posterior
    features = posterior.features(settings.latent_dim)
    encoder, decoder = ARCHITECTURES.make(settings.arch, settings, shape, features, likelihood.parameters)
    common = (encoder, decoder, likelihood, shape, settings.latent_dim, known, settings.precision)
    if settings.model == "vae":
        prior = PRIORS.make(settings.prior, settings).suited(shape, settings.latent_dim, known)
        classifier = _classifier(settings, shape, len(known)) if settings.condition == "inferred" else None
        return VariationalAutoencoder(*common, prior, posterior, classifier=classifier)
    sparse = {name: getattr(settings, name) for name in ("code_activation", "sparsity", "sparsity_target")}
    return Autoencoder(*common, **sparse)


def _classifier(settings: Settings, image_shape: tuple[int, int, int], classes: int) -> nn.Module:
    # An encoder of the same kind, with a number for each class of the whole image.
    of_image = dataclasses.replace(settings, latent="vector", latent_dim=classes)
    return ARCHITECTURES.make(settings.arch, of_image, image_shape, classes, 1)[0]
