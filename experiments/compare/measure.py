"""Measure the latent space of a run by the protocol for AE against VAE."""

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KNeighborsClassifier

from vae_jax.cli.figures import decode_mean
from vae_jax.data.dataset import Dataset
from vae_jax.measures.features import FrozenFeatures, as_rows, fit_features
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
from vae_jax.models.autoencoders import AnyModel, Parameters, VariationalAutoencoder
from vae_jax.models.evaluation import as_evaluated, encode_images, evaluate

if TYPE_CHECKING:
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
    model, params, key, binarize = run.model, run.params, run.evaluation_key, run.config.binarize
    encoded = {
        name: encode_images(model, params, getattr(dataset, name).images, key, binarize=binarize)
        for name in ("train", "test")
    }
    means = {name: pair[0] for name, pair in encoded.items()}
    latents = {name: _draw(*pair) for name, pair in encoded.items()}

    def images_of(z: np.ndarray) -> np.ndarray:
        return decode_mean(model, params, z)

    test = evaluate(model, params, dataset.test.images, key, binarize=binarize)
    decoded = images_of(means["test"])
    x = np.asarray(as_evaluated(jnp.asarray(dataset.test.images), jnp.arange(len(decoded)), key, binarize)[0])
    at_mean = _loss_at(model, params, jnp.asarray(means["test"]), jnp.asarray(x))
    gain = decoder_gain(model, params, means["test"][:1000], robust_spread(means["train"]))
    a, b = means["test"][yardstick.pairs]
    lines = linear_interpolation(a, b, POINTS)
    paths = images_of(lines.reshape(-1, model.latent_dim)).reshape(*lines.shape[:2], *decoded.shape[1:])
    rng = np.random.default_rng(run.config.seed)
    prior = rng.normal(size=(yardstick.samples, model.latent_dim))
    return {
        "reconstruction": test["reconstruction"],
        "reconstruction_at_mean": float(np.mean(at_mean)),
        "squared_error": float(np.sum((decoded - x) ** 2, axis=(1, 2, 3)).mean()),
        **({"kl": test["kl"]} if isinstance(model, VariationalAutoencoder) else {}),
        **_knn_accuracy(means, dataset),
        "gain_median": float(np.median(gain)),
        "gain_95": float(np.percentile(gain, 95)),
        **yardstick.continuity(paths),
        **yardstick.quality(images_of(prior), "prior"),
        **yardstick.quality(images_of(_mixture(latents["train"], yardstick.samples)), "mixture"),
        "distance_from_prior": distance_from_prior(latents["test"]),
    }


def measure_pca(latent_dim: int, dataset: Dataset, yardstick: Yardstick) -> dict[str, float]:
    """What of the comparison applies to principal components, whose own prior is the Gaussian of its codes."""
    rows = {name: as_rows(getattr(dataset, name).images) for name in ("train", "test")}
    pca = PCA(min(latent_dim, *rows["train"].shape), svd_solver="covariance_eigh").fit(rows["train"])
    dims = max(1, int(np.sum(pca.explained_variance_ > 1e-7)))  # pixels that never change have components of none
    pca = PCA(dims, svd_solver="covariance_eigh").fit(rows["train"])
    codes = {name: pca.transform(values) for name, values in rows.items()}
    shape = dataset.test.images.shape[1:]

    def images_of(z: np.ndarray) -> np.ndarray:
        return np.float32(np.clip(pca.inverse_transform(z), 0, 1)).reshape(len(z), *shape)

    scale = np.sqrt(pca.explained_variance_)
    prior = np.random.default_rng(0).normal(size=(yardstick.samples, dims)) * scale
    a, b = codes["test"][yardstick.pairs]
    lines = linear_interpolation(a, b, POINTS)
    error = np.sum((pca.inverse_transform(codes["test"]) - rows["test"]) ** 2, axis=1)
    return {
        "squared_error": float(error.mean()),
        **_knn_accuracy(codes, dataset),
        "gain_median": float(robust_spread(codes["train"]).max()),  # the components are orthonormal
        "gain_95": float(robust_spread(codes["train"]).max()),
        **yardstick.continuity(images_of(lines.reshape(-1, dims)).reshape(*lines.shape[:2], *shape)),
        **yardstick.quality(images_of(prior), "prior"),
        **yardstick.quality(images_of(_mixture(codes["train"], yardstick.samples)), "mixture"),
        "distance_from_prior": distance_from_prior(codes["test"] / scale),
    }


@partial(jax.jit, static_argnums=0)
def _loss_at(model: AnyModel, params: Parameters, z: jax.Array, x: jax.Array) -> Any:
    return model.likelihood.reconstruction_loss(model.decode(params, z), x)


def _draw(means: np.ndarray, logvars: np.ndarray | None) -> np.ndarray:
    # One sample of the aggregate posterior for each image; an AE's codes as they are.
    if logvars is None:
        return means
    noise = np.random.default_rng(0).normal(size=means.shape)
    return (means + np.exp(0.5 * logvars) * noise).astype(np.float32)


def _mixture(latents: np.ndarray, number: int) -> np.ndarray:
    fitted = GaussianMixture(min(MIXTURE, len(latents)), random_state=0).fit(latents[:20_000].astype(np.float64))
    return np.asarray(fitted.sample(number)[0])


def _knn_accuracy(latents: dict[str, np.ndarray], dataset: Dataset) -> dict[str, Any]:
    if dataset.train.labels is None or dataset.test.labels is None:
        return {}
    classifier = KNeighborsClassifier(5).fit(latents["train"], dataset.train.labels)
    return {"knn_accuracy": float(classifier.score(latents["test"], dataset.test.labels))}
