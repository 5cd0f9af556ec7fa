"""From a run to its codec: networks to integers, and the tables that its likelihood needs. Floats end here."""

import json
import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from vae_jax.codecs.container import fingerprint
from vae_jax.codecs.lossless import fixed_point, masses, pixels
from vae_jax.codecs.lossless.codec import FORMAT, Codec, check_binary, find_codec, write_codec
from vae_jax.codecs.lossless.fixed_point import UNIT, VALUE_BITS
from vae_jax.codecs.lossless.layers import networks_of
from vae_jax.errors import RunError, UsageError
from vae_jax.models import beta_binomial, discretized
from vae_jax.models.autoencoders import Model
from vae_jax.models.distributions import LOGVAR_BOUND, smooth_bound
from vae_jax.models.eight_bit import LOG_GAIN_BOUND
from vae_jax.models.likelihoods import Bernoulli
from vae_jax.models.networks import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder
from vae_jax.models.posteriors import Diagonal
from vae_jax.models.priors import StandardNormal
from vae_jax.models.residual import ResidualDecoder, ResidualEncoder
from vae_jax.runs.run import Run

_DRAWN = 256
"""Generated images, whose posteriors say how fine the grid of a latent has to be."""
_STEPS = 3.5
"""Of the grid in the standard deviation of a narrow posterior, at least."""
_COARSEST = 2


def check_codable(run: Run) -> None:
    """Refuse a run whose model has no lossless codec, by a UsageError with the remedy."""
    model, remedy = run.model, "Train a run that has one: "
    if not model.stochastic:
        reason, remedy = "an AE, which has no posterior to get bits back by", remedy + "--model vae."
    elif type(model.prior) is not StandardNormal:
        reason, remedy = f"the prior {type(model.prior).__name__}", remedy + "--prior standard."
    elif type(model.posterior) is not Diagonal:
        reason, remedy = f"the posterior {type(model.posterior).__name__}", remedy + "--posterior diagonal."
    elif _kind_of(model.likelihood) is None:
        known = "bernoulli for black and white, discretized_logistic, logistic_mixture, discretized_gaussian"
        reason = f"the likelihood {run.config.likelihood}, which gives no level of a pixel a probability"
        remedy += f"--likelihood {known} or beta_binomial."
    elif not (_is_known(model.encoder) and _is_known(model.decoder)):
        reason, remedy = "networks of its own", remedy + "--arch mlp, conv or residual."
    elif getattr(model.decoder, "fourier_features", 0):
        reason, remedy = "Fourier features", remedy + "--fourier-features 0."
    else:
        return
    raise UsageError(f"compress --lossless has no codec for the model of {run.path}: it has {reason}.\n{remedy}")


def check_images(run: Run, images: np.ndarray, name: str) -> None:
    """Refuse a run without a codec, and images that its likelihood has no masses for, before anything is written."""
    check_codable(run)
    if _kind_of(run.model.likelihood) == "binary":
        check_binary(images, name)


def _is_known(network: Any) -> bool:
    known = (MLPEncoder, MLPDecoder, ConvEncoder, ConvDecoder, ResidualEncoder, ResidualDecoder)
    return type(network) in known


def _kind_of(likelihood: Any) -> str | None:
    kinds = {
        Bernoulli: "binary",
        discretized.DiscretizedLogistic: "logistic",
        discretized.DiscretizedGaussian: "logistic",
        beta_binomial.BetaBinomial: "beta_binomial",
    }
    return kinds.get(type(likelihood))


def codec_of(run: Run) -> tuple[Codec, str]:
    """The codec that the run keeps, and where; at first it is made and written.

    Raises:
        UsageError: as of `check_codable`; the one that it keeps is damaged.
        RunError: it can't be made of these parameters, or not be written.
    """
    check_codable(run)
    model = fingerprint(run.params)
    codec = find_codec(run.path, model)
    if codec is not None:
        return codec, ""
    codec = make_codec(run)
    return codec, str(write_codec(run.path, codec))


def make_codec(run: Run) -> Codec:
    """Make the codec of a run.

    Raises:
        RunError: its parameters are too large or not finite.
    """
    try:
        return Codec(_arrays(run))
    except OverflowError as error:
        raise RunError(f"{run.path} has parameters that no lossless codec can be made of: {error}.") from error


def _arrays(run: Run) -> dict[str, np.ndarray]:
    model, params = run.model, run.params
    kind = _kind_of(model.likelihood)
    tables, layout, last = _likelihood(model, params["decoder"])
    networks = networks_of(model, params, last)
    spec = {
        "format": FORMAT,
        "image_shape": list(model.image_shape),
        "classes": list(model.classes),
        "pixels": kind,
        "layout": layout,
        **{build.name: build.layers for build in networks},
    }
    arrays = {name: array for build in networks for name, array in build.arrays.items()}
    activation = model.encoder.activation
    arrays[f"activation.{activation}"] = fixed_point.store_steps(fixed_point.activation_table(activation))
    arrays |= {f"pixels.{name}": table for name, table in tables.items()}
    arrays |= {"normal": masses.distribution_table("normal"), "octave": masses.steps_in_octave()}
    arrays |= {"spread": pixels.deviations(LOGVAR_BOUND), "bits": grid_bits(run)}
    arrays |= {"model": np.frombuffer(fingerprint(params), np.uint8)}
    if model.classes:
        arrays |= {name: np.rint(UNIT * np.asarray(params["condition"][name])).astype(np.int32) for name in CONDITION}
    arrays["spec"] = np.frombuffer(json.dumps(spec).encode(), np.uint8)
    return arrays


CONDITION = ("pictures", "numbers")


def _likelihood(model: Model, own: dict[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any], dict[str, Any]]:
    # Its tables; how the decoder's output is laid out; scale and offset of the decoder's last layer.
    likelihood: Any = model.likelihood
    kind = _kind_of(likelihood)
    if kind == "binary":
        return pixels.Binary.tables(), {}, {}
    layout = {"channels": model.image_shape[-1]}
    units = np.ones((likelihood.parameters, layout["channels"]))
    if kind == "logistic":
        normal = type(likelihood) is discretized.DiscretizedGaussian
        bounds = discretized.LOG_SCALE_BOUND, discretized.LOGIT_BOUND if likelihood.components > 1 else None
        tables = pixels.Logistic.tables("normal" if normal else "logistic", *bounds)
        layout |= {"components": likelihood.components, "conditioned": bool(likelihood.conditioned)}
        units[: likelihood.components] = 255  # locations in levels
    else:
        tables = pixels.BetaBinomial.tables(beta_binomial.LOGIT_BOUND, beta_binomial.LOG_CONCENTRATION_BOUND)
    gains = np.exp(np.asarray(smooth_bound(jnp.asarray(own["log_gains"]), LOG_GAIN_BOUND), np.float64))
    last = {"scale": gains * units.ravel(), "offset": np.float64(own["offsets"]) * units.ravel()}
    return tables, layout, last


def grid_bits(run: Run) -> np.ndarray:
    """How fine the grid of each latent has to be for the posteriors of generated images: steps of 2^-bits.

    A finer one costs bits that a file of few images does not get back.
    """
    drawn = run.generate(_DRAWN)
    if isinstance(run.model.likelihood, Bernoulli):
        drawn = drawn > 0.5
    images = np.rint(255 * np.clip(np.float64(drawn), 0, 1)).astype(np.uint8)
    given = np.resize(run.model.classes, _DRAWN) if run.model.classes else None
    labels = None if given is None else given.astype(np.int32)
    logvars = run.encode(images, labels).logvars
    narrow = np.quantile(0.5 * np.float64(logvars) / math.log(2), 0.1, axis=0)
    bits = np.ceil(math.log2(_STEPS) - narrow)  # of a posterior like the prior _COARSEST
    return np.clip(bits, _COARSEST, VALUE_BITS).astype(np.int8)
