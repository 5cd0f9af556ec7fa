"""A run as a page knows it: its networks as programs, its codes of some images, how its scores spread."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vae_jax.data.dataset import Dataset
from vae_jax.data.split import Split
from vae_jax.errors import UsageError, counted
from vae_jax.explore.programs import WRITERS, Weights, steps_of
from vae_jax.measures.anomaly import model_scores
from vae_jax.measures.threshold import Threshold, calibrate
from vae_jax.models import conditions
from vae_jax.models.autoencoders import Autoencoder, VariationalAutoencoder
from vae_jax.models.beta_binomial import BetaBinomial
from vae_jax.models.codes import Codes
from vae_jax.models.discretized import DiscretizedGaussian, DiscretizedLogistic
from vae_jax.models.distributions import smooth_bound
from vae_jax.models.eight_bit import LOG_GAIN_BOUND
from vae_jax.models.likelihoods import (
    LOG_SIGMA_BOUND,
    Bernoulli,
    ContinuousBernoulli,
    Gaussian,
    LearnedGaussian,
    SquaredError,
)
from vae_jax.models.posteriors import Diagonal, Point
from vae_jax.models.priors import NoPrior, StandardNormal
from vae_jax.runs.run import Run

Record: TypeAlias = dict[str, Any]
CHECKED = 256
"""Latents whose images are compared with the page's."""
SLIDERS = 16
"""Dimensions that have one, the most informative first."""
MOST_WEIGHTS = 2**24
RATE = 0.01
"""Of false alarms, where the run has no threshold of its own."""
_LEVELS = 1001
_SCORES = ("squared_error", "scaled_error", "relative_error")


class RunOnPage(NamedTuple):
    """What a page holds of a run."""

    record: Record
    weights: bytes
    codes: bytes
    """Of the dots: float32 means [dots, latent], and of a VAE log variances."""


def _of_bytes(likelihood: Any, own: dict[str, Any]) -> Record:
    # Offsets and gains of each number, as `complete` uses them.
    gains = np.exp(np.asarray(smooth_bound(own["log_gains"], LOG_GAIN_BOUND), np.float64))
    return {"offsets": np.asarray(own["offsets"], np.float64).tolist(), "gains": gains.tolist()}


def _mixture(family: str) -> Callable[[Any, dict[str, Any]], Record]:
    def described(likelihood: Any, own: dict[str, Any]) -> Record:
        more = {"family": family, "components": likelihood.components, "conditioned": likelihood.conditioned}
        return {"name": "mixture", **more, **_of_bytes(likelihood, own)}

    return described


def _learned(likelihood: Any, own: dict[str, Any]) -> Record:
    return {"name": "gaussian", "sigma": float(np.exp(smooth_bound(own["log_sigma"], LOG_SIGMA_BOUND)))}


LIKELIHOODS: dict[type, Callable[[Any, dict[str, Any]], Record]] = {
    Bernoulli: lambda likelihood, own: {"name": "bernoulli"},
    ContinuousBernoulli: lambda likelihood, own: {"name": "continuous_bernoulli"},
    Gaussian: lambda likelihood, own: {"name": "gaussian", "sigma": likelihood.sigma},
    LearnedGaussian: _learned,
    SquaredError: lambda likelihood, own: {"name": "squared_error"},
    DiscretizedLogistic: _mixture("logistic"),
    DiscretizedGaussian: _mixture("normal"),
    BetaBinomial: lambda likelihood, own: {"name": "beta_binomial", **_of_bytes(likelihood, own)},
}
"""What likelihoods.js has to know of each."""


def check_explorable(run: Run) -> None:
    """Refuse a run whose model the page's own arithmetic does not cover, by a UsageError."""
    model, remedy = run.model, f"Look at it by vae-jax plot {run.path}, or by run.decode in Python."
    for what, part, known in (
        ("model", model, (VariationalAutoencoder, Autoencoder)),
        ("network", model.encoder, WRITERS),
        ("network", model.decoder, WRITERS),
        ("likelihood", model.likelihood, LIKELIHOODS),
        ("posterior", model.posterior, (Diagonal, Point)),
        ("prior", model.prior, (StandardNormal, NoPrior)),
    ):
        if type(part) not in known:  # a subclass may compute something else
            raise UsageError(
                f"{run.path} has the {what} {type(part).__name__}, which a page does not compute.\n{remedy}"
            )
    number = sum(np.prod(leaf.shape, dtype=int) for leaf in jax.tree.leaves(run.params))
    if number > MOST_WEIGHTS:
        raise UsageError(f"{run.path} has {number:,} parameters, and a page at most {MOST_WEIGHTS:,}.\n{remedy}")


def in_float32(run: Run) -> Run:
    """The run with networks that compute in float32, as the page does."""
    return run._replace(model=dataclasses.replace(run.model, precision="float32"))


def on_page(run: Run, dataset: Dataset, dots: Split, name: str) -> RunOnPage:
    """What a page holds of a run.

    Args:
        run: one that `check_explorable` passes, `in_float32`.
        dataset: its data.
        dots: test images whose codes are shown.
        name: what the page calls it.
    """
    codes, weights = run.encode(dots.images, dots.labels), Weights()
    record = {
        "name": name,
        **computed(run, weights),
        **_described(run),
        "dimensions": _dimensions(codes),
        "score": _score(run, dataset),
    }
    latents = latents_to_check(codes)
    levels = grey_levels(run, latents)
    half = levels <= 1
    record |= {"half": half, "grey_levels": levels if half else 0.0, "checked": CHECKED}
    flat = weights.joined().astype("<f2" if half else "<f4")
    parts = [codes.means] if codes.logvars is None else [codes.means, codes.logvars]
    return RunOnPage(record, flat.tobytes(), b"".join(part.astype("<f4").tobytes() for part in parts))


def computed(run: Run, weights: Weights) -> Record:
    """What the page computes with: the networks' steps, and what stands around them; weights are appended."""
    model, params = run.model, run.params
    return {
        **{"latent": model.latent_dim, "shape": model.image_shape, "stochastic": model.stochastic},
        "likelihood": _likelihood(run),
        "binarize": run.config.binarize,
        "encoder": steps_of(model.encoder, params["encoder"], weights, model.seen_shape),
        "decoder": steps_of(model.decoder, params["decoder"], weights, (model.decoded_dim,)),
        "code": _code(model),
        "condition": _condition(run, weights),
    }


def _described(run: Run) -> Record:
    # What is said of it.
    model, config = run.model, run.config
    test = {} if run.summary is None else {name: run.summary["test"][name] for name in ("loss", "reconstruction", "kl")}
    return {
        **{"model": model.name, "arch": config.arch, "unit": model.likelihood.unit, "classes": list(run.classes)},
        "likelihood_name": config.likelihood,
        "grey_bernoulli": (config.likelihood, config.binarize) == ("bernoulli", "none"),
        "noisy": config.corruption != "none",
        "test": test if test and np.isfinite(list(test.values())).all() else None,
    }


def latents_to_check(codes: Codes) -> Float[np.ndarray, "checked latent"]:
    """Samples of the posteriors of the first images; where there are fewer, of these again."""
    return np.resize(codes.sample(), (CHECKED, codes.means.shape[1]))


def grey_levels(run: Run, latents: Float[np.ndarray, "n latent"]) -> float:
    """Largest change of a pixel, of 255 levels, by weights of 16 bits; infinite where these can't hold one."""
    own = run.model.likelihood.init()

    def rounded(path: Any, leaf: Any) -> Any:
        return leaf if path[-1].key in own else jnp.asarray(np.asarray(leaf).astype(np.float16), jnp.float32)

    labels = np.resize(run.model.classes, len(latents)) if run.model.classes else None
    with np.errstate(over="ignore"):
        params = jax.tree_util.tree_map_with_path(rounded, run.params)
    images, others = (np.clip(each.decode(latents, labels), 0, 1) for each in (run, run._replace(params=params)))
    found = 255 * float(np.max(np.abs(images - others)))
    return found if np.isfinite(found) else np.inf


def _likelihood(run: Run) -> Record:
    likelihood = run.model.likelihood
    return LIKELIHOODS[type(likelihood)](likelihood, {name: run.params["decoder"][name] for name in likelihood.init()})


def _code(model: Any) -> Record | None:
    if model.stochastic:
        return None
    kept = max(1, round(model.sparsity_target * model.latent_dim)) if model.sparsity == "topk" else 0
    return {"activation": model.code_activation, "kept": kept}


def _condition(run: Run, weights: Weights) -> Record | None:
    if not run.model.classes:
        return None
    own = run.params["condition"]
    starts = {"pictures": weights.add(own["pictures"]), "numbers": weights.add(own["numbers"])}
    return {**starts, "places": run.model.places, "each": conditions.numbers_of(run.model.classes)}


def _dimensions(codes: Codes) -> list[Record]:
    # The most informative ones, with how far they spread.
    information, order = codes.information(), codes.order()[:SLIDERS]
    low, high = np.quantile(codes.means, (0.005, 0.995), axis=0)
    if codes.logvars is not None:  # the prior's own range, too
        low, high = np.minimum(low, -3), np.maximum(high, 3)
    return [
        {"index": int(i), "said": codes.measure.format(information[i]), "low": float(low[i]), "high": float(high[i])}
        for i in order
    ]


def _score(run: Run, dataset: Dataset) -> Record:
    # As many validation scores as a rank needs, and the threshold: the run's own, or one for a rate.
    found = Threshold.read(run.path)
    own = found if found and found.step == run.step and found.score in _SCORES else None
    name, rate = (own.score, own.false_alarm_rate) if own else ("relative_error", RATE)
    held = dataset.validation
    options: Any = {"samples": 1, "binarize": run.config.binarize, "labels": run.taken_for(held.images, held.labels)}
    scores = model_scores(run.model, run.params, held.images, run.evaluation_key, **options)[name]
    if not np.isfinite(scores).all():
        raise UsageError(f"{run.path} gives no finite scores: its training has diverged. Train it anew.")
    threshold = own.threshold if own else calibrate(scores, rate) if rate * (len(scores) + 1) >= 1 else None
    levels = np.linspace(0, 1, min(len(scores), _LEVELS))
    kept = np.quantile(scores, levels, method="inverted_cdf").astype(float)
    return {
        **{"name": name, "threshold": threshold, "rate": rate, "number": len(scores)},
        "validation": [float(f"{value:.6g}") for value in kept],
    }


def check_same_data(runs: list[Run], datasets: list[Dataset]) -> None:
    """Refuse two runs that can't be shown side by side, by a UsageError."""
    first, *others = zip(runs, datasets, strict=True)
    for run, dataset in others:
        if (dataset.sha256, run.config.classes) != (first[1].sha256, first[0].config.classes) or (
            dataset.image_shape != first[1].image_shape
        ):
            raise UsageError(
                f"BESIDE must be a run on the same images as {first[0].path}, "
                f"{counted(len(first[1].test), 'test image')} of {first[1].name}, got one on {dataset.name}.\n"
                "Make a page for each."
            )
