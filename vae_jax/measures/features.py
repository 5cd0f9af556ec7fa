"""Features to compare images in: what a small classifier of the data set, trained once and frozen, sees in them."""

import warnings
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Integer
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from vae_jax.data.checks import as_images
from vae_jax.measures.dimensionality import PrincipalComponents
from vae_jax.measures.images import Images, as_rows


class FrozenFeatures(NamedTuple):
    """Linear layers, with ReLUs and a last scaling to unit length where they are those of a classifier."""

    layers: tuple[tuple[Float[np.ndarray, "inputs outputs"], Float[np.ndarray, " outputs"]], ...]
    classifier: bool

    def __call__(self, images: Images) -> Float[np.ndarray, "n features"]:
        """Features of images, uint8 or floats in [0, 1]."""
        h = as_rows(images)
        for weight, bias in self.layers:
            h = h @ weight + bias
            if self.classifier:
                h = np.maximum(h, 0)
        return h / np.maximum(np.linalg.norm(h, axis=1, keepdims=True), 1e-6) if self.classifier else h


def fit_features(
    images: Any, labels: Integer[np.ndarray, " n"] | None, sizes: tuple[int, ...] = (256, 64)
) -> FrozenFeatures:
    """The last hidden layer of a classifier trained on labelled images; principal components without labels.

    The layer is scaled to unit length: an image that is blurred, or a mean of several, excites it less, and would be
    near every image if distances were not measured by angle.
    The same images, of any kind that `as_images` takes, and labels always give the same features.

    `sizes` are the units of the hidden layers; there are at most as many principal components as the last has.
    """
    rows = as_rows(np.asarray(as_images(images)))
    if labels is None or len(np.unique(labels)) < 2:
        pca = PrincipalComponents.fit(rows, sizes[-1])
        return FrozenFeatures(((pca.components.T, -pca.mean @ pca.components.T),), False)
    classifier = MLPClassifier(sizes, batch_size=min(200, len(rows)), max_iter=8, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # eight epochs are meant
        classifier.fit(rows, labels)
    hidden = list(zip(classifier.coefs_, classifier.intercepts_, strict=True))[:-1]
    layers = tuple((weight.astype(np.float32), bias.astype(np.float32)) for weight, bias in hidden)
    return FrozenFeatures(layers, True)
