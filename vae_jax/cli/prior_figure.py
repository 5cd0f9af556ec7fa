"""A learned prior of two dimensions: its density over the plane, and where the images lie."""

from pathlib import Path

import jax
import numpy as np

from vae_jax import plots
from vae_jax.models.codes import Codes
from vae_jax.runs.run import Run

POINTS = 200
"""Places a side at which the density is worked out."""
MARGIN = 0.08
"""Of the plane shown, beyond what lies farthest out."""


def has_drawn_density(run: Run) -> bool:
    """Whether a run has a prior that a picture tells something of: of two dimensions, and not N(0, I)."""
    prior = run.model.prior
    return run.model.latent_dim == 2 and prior.has_density and not prior.per_dimension


def draw_prior(run: Run, codes: Codes, labels: np.ndarray | None, title: str, path: Path) -> None:
    """Draw the density of the prior, of a conditional run the mean over the classes, beside the codes' means."""
    ends = np.concatenate([np.quantile(run.draw(2000), [0.01, 0.99], axis=0), codes.means])
    low, high = ends.min(axis=0), ends.max(axis=0)
    margin = MARGIN * (high - low) + 1e-3
    x, y = np.linspace(low - margin, high + margin, POINTS, axis=1)
    plane = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2).astype(np.float32)
    log_prior = jax.jit(run.model.log_prior)
    known: list[np.ndarray | None] = [np.full(len(plane), label, np.int32) for label in run.model.classes]
    known = known or [None]
    density = np.mean([np.exp(np.asarray(log_prior(run.params, plane, own))) for own in known], axis=0)
    what = f"{title}\nthe prior's density, and {codes.title}"
    of_plane = density.reshape(POINTS, POINTS)
    plots.save(plots.prior_density(x, y, of_plane, codes.means, labels, what, run.dataset.get("class_names")), path)
