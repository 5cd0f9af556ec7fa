"""Test log-likelihoods of binary images beside published ones: `python -m experiments.tables --data dynamic`.

A row is a data set, a network and a model: VAE, IWAE, priors and posteriors that are more than Gaussians. Protocol of
Tomczak & Welling (2018), and for `--arch mlp` the network of Burda et al. (2015): the best epoch on validation images,
early stopping, importance-weighted bounds of 5,000 samples on test images; but a budget in minutes. A finished row is
kept in the output folder, so that a table is made bit by bit: each call writes all rows that are there.
"""

import dataclasses
import importlib
from pathlib import Path
from typing import Any, Literal

from experiments.tables.rows import ARCHS, DATA, MODELS, is_data
from vae_jax.domains import (
    MOST_EPOCHS,
    MOST_SAMPLES,
    MOST_SHOWN,
    are_different,
    at_least,
    positive,
    setting,
)

__all__ = ["Config", "run"]
DEFAULT_MINUTES = 10.0


@dataclasses.dataclass(frozen=True)
class Config:
    """Train models of binary images, and write their test log-likelihoods beside published ones."""

    data: tuple[str, ...] = setting(
        ("dynamic",),
        f"different ones of {', '.join(DATA)}, each with =PATH where it lies in a file of your own",
        lambda v: bool(v) and all(map(is_data, v)) and are_different(tuple(each.partition("=")[0] for each in v)),
    )
    """static (Larochelle's binarised MNIST), dynamic (MNIST, drawn anew at each step), fashion (Fashion-MNIST) and
    omniglot, both dynamic as well, digits (8x8, to try it). NAME=PATH reads an .npz file in place of the published
    files."""
    arch: tuple[Literal["gated", "mlp", "residual"], ...] = setting(
        ("gated",), f"different ones of {', '.join(ARCHS)}", are_different
    )
    """Networks: gated, 300 300, latent dimension 40; mlp, 200 200 with tanh, 50; residual, 40."""
    models: tuple[Literal["vae", "iwae-5", "iwae-50", "mixture", "vamp", "flow", "householder+flow"], ...] = setting(
        tuple(MODELS), f"different ones of {', '.join(MODELS)}", are_different
    )
    """Which models: each is the VAE but for the one or two things that it is named for."""
    seeds: tuple[int, ...] = setting(
        (0,),
        f"different integers from 0 to 4294967295, at most {MOST_SHOWN}",
        lambda v: are_different(v) and all(0 <= seed < 2**32 for seed in v),
    )
    """One run for each. With --patience 0 they are trained together in one program; else one after another, as each
    stops where it does, and one that was interrupted goes on."""
    minutes: float | None = setting(None, "a number above 0 and at most 1e6", lambda v: v is None or 0 < v <= 1e6)
    """Train each run for about so long, at the pace of the first steps. Default: 10."""
    steps: int | None = at_least(1, None)
    """Steps of each run, in place of --minutes."""
    patience: int = at_least(0, 50, " (0: off)", most=MOST_EPOCHS)
    """Stop after so many epochs without a lower validation loss. The best epoch is measured, in any case."""
    batch_size: int = at_least(1, 125)
    """Images a step."""
    learning_rate: float = positive(2e-3)
    """Peak of Adam's learning rate, which falls along one cosine."""
    kl_warmup: float | None = setting(None, "a number in [0, 1)", lambda v: v is None or 0 <= v < 1)
    """Share of the steps over which the weight of the KL term rises; not of IWAE, which has none. Default: 0, and 0.1
    for residual networks."""
    samples: int = at_least(1, 5000, most=MOST_SAMPLES)
    """Importance samples of an image for the log-likelihood."""
    nll_images: int = at_least(2, 1000)
    """Images that get as many, of the test and of the training images; all others get 100, and the mean gain of those
    is added. Residual networks decode slowly: 50 are enough there for an error of some 0.2 nats."""
    data_dir: Path | None = None
    """Where the data lies. Default: the environment variable VAE_JAX_DATA_DIR."""
    output: Path = Path("runs/tables")
    """Folder of the rows and of their runs, of results.csv, results.md and the figure."""
    compilation_cache: bool = True
    """Keep compiled programs in the user's cache directory, so that the next start is fast."""


def run(config: Config) -> dict[str, Any]:
    """Train and measure what is missing; gives back the summary."""
    summary: dict[str, Any] = importlib.import_module("experiments.tables.study").run(config)
    return summary
