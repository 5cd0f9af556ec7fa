"""The rows of a run's history: one an epoch, as in metrics.jsonl, and what they say of it."""

import math
from typing import Any

import numpy as np

from vae_jax.config import Settings
from vae_jax.errors import RunError
from vae_jax.training.optimizer import warmup_steps
from vae_jax.training.step import StepMetrics

Row = dict[str, Any]
_CHECKED = ("reconstruction", "kl", "objective", "gradient_norm")


def score(row: Row) -> float:
    """What the best checkpoint has the least of, and early stopping waits for: the loss, or the bound that is trained.

    With more importance samples the evidence lower bound may get worse while theirs still gets better.
    """
    validation = row["validation"]
    return validation.get("iwae_loss", validation["loss"])


def has_stopped(history: list[Row], settings: Settings, images: int) -> bool:
    """Whether early stopping ended the run: `patience` epochs without a lower validation loss since warm-up ended."""
    warm = max(warmup_steps(settings, images), settings.kl_warmup_steps)
    losses = [score(row) for row in history if row["step"] >= warm]
    patience = settings.patience
    return patience > 0 and len(losses) > patience and min(losses[-patience:]) >= min(losses[:-patience])


def make_row(
    epoch: int,
    step: int,
    metrics: StepMetrics,
    scores: dict[str, float],
    beta: float,
    seconds: float,
    kl_samples: tuple[int, int] | None = None,
) -> Row:
    """The row of metrics.jsonl for an epoch.

    `kl_samples` are the latents an image that its KL terms are estimated from, in training and in validation; None
    where they are exact.

    Raises:
        RunError: a validation loss that is not finite.
    """
    images = metrics.images.astype(np.float64)
    train = {
        name: float(np.average(getattr(metrics, name).astype(np.float64), weights=images))
        for name in ("reconstruction", "kl", "objective")
    }
    validation = {name: scores[name] for name in ("reconstruction", "kl", "iwae_loss", "error_rate") if name in scores}
    for name, value in validation.items():
        if not math.isfinite(value):
            raise _not_finite(f"validation {name}", step)
    # Of the bound itself, whatever beta.
    bits = {name: scores[name] for name in ("bits_per_dim",) if name in scores}
    of_train, of_validation = ({"kl_samples": number} for number in kl_samples) if kl_samples else ({}, {})
    # `loss` is reconstruction + beta * kl in every row, also while the KL weight still rises to beta.
    return {
        "epoch": epoch,
        "step": step,
        "beta": beta,
        "train": {"loss": train["reconstruction"] + beta * train["kl"], **train, **of_train},
        "validation": {
            "loss": validation["reconstruction"] + beta * validation["kl"],
            **validation,
            **bits,
            **of_validation,
        },
        "images_per_second": float(images.sum()) / seconds,
        "seconds": seconds,
    }


def check_finite(metrics: StepMetrics, first_step: int) -> None:
    """Check the metrics of steps, [steps].

    Raises:
        RunError: one is not finite, naming the term and the step.
    """
    finite = {name: np.isfinite(getattr(metrics, name)) for name in _CHECKED}
    bad = np.flatnonzero(~np.all(list(finite.values()), axis=0))
    if len(bad):
        term = next(name for name in _CHECKED if not finite[name][bad[0]])
        raise _not_finite(term, first_step + int(bad[0]) + 1)


def _not_finite(term: str, step: int) -> RunError:
    return RunError(
        f"The {term} is not finite at step {step}: training stopped; the checkpoint of the epoch before it, "
        "if there was one, is kept.\nUse a smaller --learning-rate."
    )
