"""Numbers of the study of colour images: of reconstructions, and of samples, which may be mosaics or hang together."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float

from vae_jax.data.dataset import Dataset
from vae_jax.measures.denoising import mean_quality
from vae_jax.measures.features import FrozenFeatures, fit_features
from vae_jax.measures.images import Images, as_rows
from vae_jax.measures.latent_space import sample_quality
from vae_jax.models.priors import FullGaussian
from vae_jax.runs.run import Run

PRIOR, GAUSSIAN = "N(0, I)", "fitted Gaussian"
SHOWN = 36
_CELLS = 4


@dataclasses.dataclass(frozen=True)
class Yardstick:
    """What samples are measured against: features of train images and of as many test images as there are samples."""

    features: FrozenFeatures
    train: np.ndarray
    test: np.ndarray
    layout: float
    """`neighbour_correlation` of test images."""

    @classmethod
    def of(cls, dataset: Dataset, samples: int) -> "Yardstick":
        """Train the frozen classifier on the training images; the same data gives the same yardstick."""
        features = fit_features(dataset.train.images, dataset.train.labels)
        chosen = np.random.default_rng(1).permutation(len(dataset.test))[: min(samples, len(dataset.train))]
        test = np.asarray(dataset.test.images[np.sort(chosen)])
        return cls(features, features(np.asarray(dataset.train.images)), features(test), neighbour_correlation(test))


@dataclasses.dataclass(frozen=True)
class Measured:
    """Of one run."""

    numbers: dict[str, float]
    samples: dict[str, Float[np.ndarray, "n h w c"]]
    """By what they were drawn from."""
    reconstructions: Float[np.ndarray, "n h w c"]
    """Of the first test images."""


def neighbour_correlation(images: Images) -> float:
    """Correlation of the mean colours of neighbouring cells of 4 x 4 that an image is divided into, over all images.

    That of photographs is high; it is 0 where the parts of an image know nothing of each other.
    """
    cells = min(_CELLS, *images.shape[1:3])
    grid = as_rows(images).astype(np.float64).reshape(images.shape)
    for axis in (1, 2):
        grid = np.stack([part.mean(axis=axis) for part in np.array_split(grid, cells, axis=axis)], axis=axis)
    grid = grid - grid.mean(axis=0)
    pairs = (grid[:, 1:], grid[:, :-1]), (grid[:, :, 1:], grid[:, :, :-1])
    together, first, second = (sum(float(np.sum(a[i] * a[j])) for a in pairs) for i, j in ((0, 1), (0, 0), (1, 1)))
    return together / max(np.sqrt(first * second), float(np.finfo(np.float32).tiny))


def measure(run: Run, dataset: Dataset, yardstick: Yardstick) -> Measured:
    """Everything about one run; its prior is fitted to training images alone, and measured on test images."""
    images, number, summary = dataset.test.images, len(yardstick.test), run.summary
    assert summary is not None
    codes = run.encode(dataset.train.images)
    rebuilt = np.clip(run.reconstruct(images), 0, 1)
    numbers: dict[str, Any] = mean_quality(as_rows(np.asarray(images)).reshape(rebuilt.shape), rebuilt)
    numbers |= {name: summary[name] for name in ("parameters", "steps", "training_seconds")}
    if run.model.stochastic:
        prior = FullGaussian()
        fitted = run.with_prior(prior, prior.fit(codes.means, codes.logvars))
        for name, test in (
            (PRIOR, summary["test"]),
            (GAUSSIAN, fitted.evaluate(images, samples=run.config.test_samples)),
        ):
            numbers |= {f"{key}, {name}": test[key] for key in ("bits_per_dim", "bits_per_dim_se", "kl") if key in test}
        samples = {PRIOR: run.generate(number), GAUSSIAN: fitted.generate(number)}
    else:
        samples = {GAUSSIAN: run.generate(number, codes=codes)}
    for name, drawn in samples.items():
        quality = sample_quality(yardstick.features(drawn), yardstick.train, yardstick.test)
        numbers |= {f"precision, {name}": quality.precision, f"recall, {name}": quality.recall}
        numbers[f"layout, {name}"] = neighbour_correlation(np.clip(drawn, 0, 1))
    return Measured(numbers, {name: drawn[:SHOWN] for name, drawn in samples.items()}, rebuilt[:SHOWN])
