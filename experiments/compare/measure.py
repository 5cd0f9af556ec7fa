"""Measure the latent space of a run by the protocol for AE against VAE."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KNeighborsClassifier

from vae_jax.data.dataset import Dataset
from vae_jax.measures.dimensionality import PrincipalComponents, knn_accuracy
from vae_jax.measures.features import FrozenFeatures, fit_features
from vae_jax.measures.images import as_rows
from vae_jax.measures.latent_space import (
    decoder_gain,
    distance_from_prior,
    excess_flips,
    nearest_distance,
    path_stretch,
    robust_spread,
    sample_quality,
)
from vae_jax.measures.traversal import linear_interpolation
from vae_jax.models.autoencoders import AnyModel, Parameters
from vae_jax.runs.run import Run

POINTS = 33  # of a path
PAIRS = 200
MIXTURE = 10


@dataclasses.dataclass(frozen=True)
class Yardstick:
    """What every model of a study is measured against: features of real images, pairs of test images."""

    features: FrozenFeatures
    train: np.ndarray
    test: np.ndarray
    threshold: float
    """95th percentile of the distance from a test image's features to the nearest train image's."""
    pairs: np.ndarray
    """Indices of test images, [2, pairs]."""
    labeller: KNeighborsClassifier | None
    samples: int

    @classmethod
    def of(cls, dataset: Dataset, samples: int) -> "Yardstick":
        """Train the frozen classifier on the training images; the same data gives the same yardstick."""
        features = fit_features(dataset.train.images, dataset.train.labels)
        train, test = features(dataset.train.images), features(dataset.test.images)
        # No more samples than there are train images to compare their coverage with.
        samples = min(samples, len(train), len(test))
        test = test[np.random.default_rng(1).permutation(len(test))[:samples]]
        pairs = np.random.default_rng(0).integers(0, len(dataset.test), (2, PAIRS))
        labeller = None
        if dataset.train.labels is not None:
            labeller = KNeighborsClassifier(5).fit(train[:10_000], dataset.train.labels[:10_000])
        threshold = float(np.percentile(nearest_distance(test, train), 95))
        return cls(features, train, test, threshold, pairs, labeller, samples)

    def realness(self, images: np.ndarray) -> np.ndarray:
        """Distance to the nearest train image over that of the 95th percentile of test images: real-looking up to 1."""
        return nearest_distance(self.features(images), self.train) / self.threshold

    def quality(self, images: np.ndarray, prefix: str) -> dict[str, float]:
        """Precision, recall and Fréchet distance of generated images."""
        quality = sample_quality(self.features(images), self.train, self.test)._asdict()
        return {f"{prefix}_{name}": value for name, value in quality.items()}

    def continuity(self, images: np.ndarray) -> dict[str, float]:
        """Path stretch and label changes of decoded paths [pairs, points, height, width, channels]."""
        pairs, points = images.shape[:2]
        found = {"path_stretch": float(np.mean(path_stretch(images.reshape(pairs, points, -1))))}
        if self.labeller is not None:
            labels = self.labeller.predict(self.features(images.reshape(-1, *images.shape[2:])))
            flips = excess_flips(labels.reshape(pairs, points))
            found |= {"excess_flips": flips.per_path, "excess_flip_share": flips.share}
        return found


def measure(run: "Run", dataset: Dataset, yardstick: Yardstick) -> dict[str, float]:
    """Every number of the comparison for one run."""
    model, params, images = run.model, run.params, jnp.asarray(dataset.test.images)
    codes = {"train": run.encode(dataset.train.images), "test": run.encode(dataset.test.images)}
    means = {name: each.means for name, each in codes.items()}
    test, decoded = run.evaluate(dataset.test.images), run.decode(means["test"])
    x = np.asarray(run.inputs.batch(images, jnp.arange(len(images)), run.evaluation_key).x)
    at_mean = _loss_at(model, params, jnp.asarray(means["test"]), jnp.asarray(x))
    gain = decoder_gain(model, params, means["test"][:1000], robust_spread(means["train"]))
    prior = np.random.default_rng(run.config.seed).normal(size=(yardstick.samples, model.latent_dim))
    return {
        "reconstruction": test["reconstruction"],
        "reconstruction_at_mean": float(np.mean(at_mean)),
        "squared_error": float(np.sum((decoded - x) ** 2, axis=(1, 2, 3)).mean()),
        **({"kl": test["kl"]} if model.stochastic else {}),
        "gain_median": float(np.median(gain)),
        "gain_95": float(np.percentile(gain, 95)),
        **_of_space(means, dataset, yardstick, run.decode, prior, codes["train"].sample()),
        "distance_from_prior": distance_from_prior(codes["test"].sample()),
    }


def measure_pca(latent_dim: int, dataset: Dataset, yardstick: Yardstick) -> dict[str, float]:
    """What of the comparison applies to principal components, whose own prior is the Gaussian of its codes."""
    rows = {name: as_rows(getattr(dataset, name).images) for name in ("train", "test")}
    pca = PrincipalComponents.fit(rows["train"], latent_dim)
    dims = max(1, int(np.sum(pca.variances > 1e-7)))  # pixels that never change have components of none
    pca = pca.first(dims)
    codes = {name: pca.encode(values) for name, values in rows.items()}
    shape = dataset.test.images.shape[1:]

    def images_of(z: np.ndarray) -> np.ndarray:
        return np.float32(np.clip(pca.decode(z), 0, 1)).reshape(len(z), *shape)

    scale = np.sqrt(pca.variances)
    prior = np.random.default_rng(0).normal(size=(yardstick.samples, dims)) * scale
    error = np.sum((pca.decode(codes["test"]) - rows["test"]) ** 2, axis=1)
    return {
        "squared_error": float(error.mean()),
        "gain_median": float(robust_spread(codes["train"]).max()),  # the components are orthonormal
        "gain_95": float(robust_spread(codes["train"]).max()),
        **_of_space(codes, dataset, yardstick, images_of, prior, codes["train"]),
        "distance_from_prior": distance_from_prior(codes["test"] / scale),
    }


def _of_space(
    codes: dict[str, np.ndarray],
    dataset: Dataset,
    yardstick: Yardstick,
    decode: Callable[[np.ndarray], np.ndarray],
    prior: np.ndarray,
    latents: np.ndarray,
) -> dict[str, float]:
    # What only needs codes of train and test images, latents of train images and of the prior, and the way back.
    found = {}
    train, test = dataset.train, dataset.test
    if train.labels is not None and test.labels is not None:
        found["knn_accuracy"] = knn_accuracy(codes["train"], train.labels, codes["test"], test.labels, 5)
    a, b = codes["test"][yardstick.pairs]
    lines = linear_interpolation(a, b, POINTS)
    paths = decode(lines.reshape(-1, lines.shape[-1]))
    found |= yardstick.continuity(paths.reshape(*lines.shape[:2], *paths.shape[1:]))
    mixture = GaussianMixture(min(MIXTURE, len(latents)), random_state=0).fit(latents[:20_000].astype(np.float64))
    found |= yardstick.quality(decode(prior), "prior")
    return found | yardstick.quality(decode(np.asarray(mixture.sample(yardstick.samples)[0])), "mixture")


@partial(jax.jit, static_argnums=0)
def _loss_at(model: AnyModel, params: Parameters, z: jax.Array, x: jax.Array) -> Any:
    return model.likelihood.reconstruction_loss(model.decode(params, z), x)
