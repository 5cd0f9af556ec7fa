"""Settings against each other: what can't stand together, and what acts on nothing. Imports no JAX."""

import dataclasses
from typing import Any, TypeVar

from vae_jax.config import Settings
from vae_jax.domains import check_fields, flag_of
from vae_jax.errors import UsageError
from vae_jax.registry import OBJECTIVES

S = TypeVar("S", bound=Settings)


_OF_BYTES = ("discretized_logistic", "logistic_mixture", "discretized_gaussian", "beta_binomial")


def check_settings(settings: Any) -> None:
    """Check every field of a settings dataclass, and those of `Settings` against each other.

    Raises:
        UsageError: naming the flag, the value and what is allowed, for the first bad field; also of a field that is
            not its default where it has no effect.
    """
    check_fields(settings)
    if not isinstance(settings, Settings):
        return
    for wrong, message in _combinations(settings):
        if wrong:
            raise UsageError(message)
    for name, (words, value) in without_effect(settings).items():
        raise UsageError(
            f"{flag_of(name)} {value} has no effect: it needs {words}.\nLeave {flag_of(name)} out, or change the other."
        )


def _combinations(settings: Settings) -> list[tuple[bool, str]]:
    # Whether it is wrong, and what then is said.
    ae, arch, corruption = settings.model == "ae", settings.arch, settings.corruption
    level, objective = settings.corruption_level, settings.objective
    return [
        (
            arch in ("conv", "patch", "residual") and settings.hidden_sizes == (),
            f"--hidden-sizes must name at least one layer for --arch {arch}, got none.",
        ),
        (arch == "patch" and not ae, "--arch patch needs --model ae, got --model vae."),
        (
            settings.prior == "class" and settings.condition == "none",
            "--prior class needs --condition labels, got --condition none.\nUse --prior mixture without classes.",
        ),
        (
            settings.likelihood == "squared_error" and not ae,
            "--likelihood squared_error needs --model ae, got --model vae "
            "(--likelihood gaussian --sigma 0.70710678 is the same loss and a bound).",
        ),
        (
            settings.sparsity == "kl" and settings.code_activation != "sigmoid",
            "--sparsity kl needs a code in (0, 1): add --code-activation sigmoid, or use --sparsity l1 or topk, got "
            f"--code-activation {settings.code_activation}.",
        ),
        (
            objective in ("elbo", "sparse") and (objective == "sparse") != (settings.sparsity in ("l1", "kl")),
            f"--objective must be sparse with --sparsity l1 or kl, and elbo without, got {objective}.",
        ),
        (
            settings.prior == "vamp" and settings.posterior != "diagonal",
            f"--prior vamp is a mean of diagonal Gaussians: it needs --posterior diagonal, got {settings.posterior}.",
        ),
        (
            settings.latent_dim == 1 and settings.posterior == "householder",
            "--posterior householder needs a --latent-dim of at least 2, got 1.\nUse --posterior diagonal for one.",
        ),
        (settings.condition == "inferred" and ae, "--condition inferred needs --model vae, got --model ae."),
        (
            objective is not None
            and objective in OBJECTIVES
            and not OBJECTIVES.own(objective)
            and OBJECTIVES[objective].infers != (settings.condition == "inferred"),
            f"--objective must be m2 with --condition inferred, and another without, got {objective}.",
        ),
        (
            objective == "tc" and (settings.latent_dim == 1 or settings.posterior == "householder"),
            "--objective tc needs a --latent-dim of at least 2 and --posterior diagonal, got "
            f"{settings.latent_dim} and {settings.posterior}.",
        ),
        (
            objective == "tc" and settings.batch_size == 1,
            "--objective tc compares the images of a batch: it needs a --batch-size of at least 2, got 1.",
        ),
        (objective in ("iwae", "dreg", "tc") and ae, f"--objective {objective} needs --model vae, got --model ae."),
        (
            corruption in ("salt_and_pepper", "masking") and level > 1,
            f"--corruption-level must be a share of at most 1 for --corruption {corruption}, got {level}.",
        ),
        (
            settings.steps is not None and settings.epochs is not None,
            f"--steps {settings.steps} and --epochs {settings.epochs} both say when a run ends. Leave one out.",
        ),
        (
            settings.likelihood in _OF_BYTES and settings.binarize != "none",
            f"--binarize must be none for --likelihood {settings.likelihood}, whose masses are those of 256 levels, "
            f"got {settings.binarize}.\nLeave --binarize out, or use --likelihood bernoulli.",
        ),
        (
            settings.iwae_samples > 0 and not ae and (settings.likelihood, settings.binarize) == ("bernoulli", "none"),
            "--iwae-samples needs a likelihood, which bernoulli on grey pixels is not: add --binarize dynamic or "
            f"another --likelihood, got {settings.iwae_samples}.",
        ),
    ]


def without_effect(settings: Settings) -> dict[str, tuple[str, Any]]:
    """The fields that are not their default and act on nothing: by name, what they need in words, and the value."""
    found = {}
    for field in dataclasses.fields(Settings):
        needs, value = field.metadata.get("needs"), getattr(settings, field.name)
        # None, where it is not the default, is what the images will decide.
        if needs and value not in (None, field.default) and not needs[1](settings):
            found[field.name] = (needs[0], value)
    return found


def with_effect(settings: S) -> S:
    """The same without what acts on nothing: those fields are their defaults."""
    while idle := without_effect(settings):
        settings = dataclasses.replace(settings, **{name: getattr(Settings, name) for name in idle})
    return settings
