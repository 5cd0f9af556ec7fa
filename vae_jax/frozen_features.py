"""Features to compare images in: what a small classifier of the data set, trained once and frozen, sees in them."""

import warnings
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Integer, UInt8
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

Images = UInt8[np.ndarray, "n height width channels"] | Float[np.ndarray, "n height width channels"]


class FrozenFeatures(NamedTuple):
    """One linear layer, and a ReLU where it is a classifier's hidden layer."""

    weight: Float[np.ndarray, "pixels features"]
    bias: Float[np.ndarray, " features"]
    rectified: bool

    def __call__(self, images: Images) -> Float[np.ndarray, "n features"]:
        """Features of images, uint8 or floats in [0, 1]."""
        h = as_rows(images) @ self.weight + self.bias
        return np.maximum(h, 0) if self.rectified else h


def as_rows(images: Any) -> Float[np.ndarray, "n pixels"]:
    """Images as rows of float32 in [0, 1]."""
    rows = images.reshape(len(images), -1)
    return rows.astype(np.float32) / np.float32(255) if rows.dtype == np.uint8 else rows.astype(np.float32)


def fit_features(
    images: UInt8[np.ndarray, "n height width channels"], labels: Integer[np.ndarray, " n"] | None, size: int = 128
) -> FrozenFeatures:
    """The hidden layer of a classifier trained on labelled images; principal components where there are no labels.

    The same images and labels always give the same features.

    Args:
        images: to train on.
        labels: their classes, or None.
        size: units of the hidden layer; at most so many principal components.
    """
    rows = as_rows(images)
    if labels is None or len(np.unique(labels)) < 2:
        pca = PCA(min(size, *rows.shape), svd_solver="covariance_eigh").fit(rows)
        return FrozenFeatures(pca.components_.T.astype(np.float32), -pca.mean_ @ pca.components_.T, False)
    classifier = MLPClassifier((size,), batch_size=min(200, len(rows)), max_iter=10, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # ten epochs are meant
        classifier.fit(rows, labels)
    return FrozenFeatures(classifier.coefs_[0].astype(np.float32), classifier.intercepts_[0].astype(np.float32), True)
