"""Log-likelihoods of a trained run: importance-weighted bounds of test images, and of training images beside them."""

import math
from typing import Any

import numpy as np

from vae_jax.data.split import Split
from vae_jax.runs.run import Run

FEW = 100
"""Samples that every image gets."""
MOST_IMAGES = 10_000
"""Of a split that is measured."""


def measure(run: Run, train: Split, test: Split, samples: int, images: int) -> dict[str, Any]:
    """The numbers of a run, in nats: of test images, and those of as many training images under "train_..."."""
    summary = run.summary
    assert summary is not None
    of_train = bounds(run, train, samples, images, min(len(test), MOST_IMAGES))
    return {
        **bounds(run, test, samples, images, MOST_IMAGES),
        **{f"train_{name}": of_train[name] for name in ("nll", "nll_se", "loss")},
        "active_units": summary["test"]["active_units"],
        "latent_dim": run.config.latent_dim,
        "parameters": summary["parameters"],
        "steps": summary["steps"],
        "best_step": summary["best_step"],
        "epochs": summary["epochs"],
        "seconds": summary["training_seconds"],
        "device": summary["device"],
    }


def bounds(run: Run, split: Split, samples: int, images: int, most: int) -> dict[str, Any]:
    """Mean negative log-likelihood of at most `most` images of a split, and the negative evidence lower bound.

    All images get the bound of `FEW` samples, and the first `images` of a random order that of `samples`, of which the
    few are the first: the mean of the others' gain is estimated by theirs. If `samples` is at most `FEW`, all images
    get as many. The standard error "nll_se" is that of not having measured all; "nll_se_of_images" is that of these
    images as a sample of all that there could be.
    """
    # The first half of MNIST's test images is easier than the second.
    order = np.random.default_rng(0).permutation(len(split))[:most]
    seen = np.asarray(split.images)[order]
    few = run.losses(seen, samples=min(FEW, samples))
    number = min(images, len(seen)) if samples > FEW else len(seen)
    gain = np.zeros(number)
    if samples > FEW:
        gain = run.losses(seen[:number], samples=samples).bound.astype(np.float64) - few.bound[:number]
    each = few.reconstruction.astype(np.float64) + few.kl
    return {
        "nll": -float(np.mean(few.bound.astype(np.float64)) + gain.mean()),
        "nll_se": _standard_error(gain) * math.sqrt(1 - number / len(seen)),
        "nll_se_of_images": _standard_error(few.bound),
        "loss": float(each.mean()),
        "reconstruction": float(np.mean(few.reconstruction, dtype=np.float64)),
        "kl": float(np.mean(few.kl, dtype=np.float64)),
        "images": len(seen),
        "of_images": len(split),
        "nll_images": number,
        "samples": samples,
    }


def _standard_error(values: np.ndarray) -> float:
    return float(np.std(values, ddof=1, dtype=np.float64) / math.sqrt(len(values)))
