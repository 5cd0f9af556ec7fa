"""A fully connected model of vae_jax by NumPy: model.safetensors and architecture.json, read and run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

ACTIVATIONS: dict[str, Any] = {
    "gelu": lambda h: 0.5 * h * (1 + np.tanh(np.sqrt(np.float32(2 / np.pi)) * (h + np.float32(0.044715) * h**3))),
    "relu": lambda h: np.maximum(h, 0),
    "silu": lambda h: h / (1 + np.exp(-h)),
    "tanh": np.tanh,
}
CODES: dict[str, Any] = {
    "linear": lambda z: z,
    "relu": lambda z: np.maximum(z, 0),
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
}
MEANS: dict[str, Any] = {
    "bernoulli": lambda y: 1 / (1 + np.exp(-y)),
    "gaussian": lambda y: y,
    "learned_gaussian": lambda y: y,
    "squared_error": lambda y: y,
}
"""The expected value of a pixel, by the likelihood."""


def load(folder: str | Path = ".") -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays by their names, and what the model is."""
    folder = Path(folder)
    return load_file(folder / "model.safetensors"), json.loads((folder / "architecture.json").read_text())


def encode(arrays: dict[str, np.ndarray], about: dict[str, Any], images: np.ndarray) -> tuple[np.ndarray, ...]:
    """Means, and log variances of a VAE, [n, latent] of images [n, height, width, channels] in [0, 1]."""
    features = _layers(arrays, about, "encoder", images.reshape(len(images), -1))
    if about["model"] == "ae":
        return (CODES[about["code_activation"]](features),)
    means, raw = np.split(features, 2, axis=1)
    return means, 15 * np.tanh(raw / 15)


def decode(arrays: dict[str, np.ndarray], about: dict[str, Any], latents: np.ndarray) -> np.ndarray:
    """Expected images [n, height, width, channels] of latents [n, latent]."""
    h = latents
    if about["fourier_features"]:
        phases = h @ arrays["decoder/frequencies"]
        h = np.concatenate([h, np.sin(phases), np.cos(phases)], axis=1)
    y = MEANS[about["likelihood"]](_layers(arrays, about, "decoder", h))
    return y.reshape(-1, *about["image_shape"])


def generate(arrays: dict[str, np.ndarray], about: dict[str, Any], noise: np.ndarray) -> np.ndarray:
    """New images of white noise [n, latent], drawn from N(0, 1)."""
    if "generate/mean" in arrays:  # of an autoencoder: the Gaussian fitted to codes of its validation images
        noise = arrays["generate/mean"] + noise @ arrays["generate/spread"]
    return decode(arrays, about, noise)


def _layers(arrays: dict[str, np.ndarray], about: dict[str, Any], network: str, h: np.ndarray) -> np.ndarray:
    number = len(about["hidden_sizes"])
    for layer in range(number + 1):
        h = h @ arrays[f"{network}/Dense_{layer}/kernel"] + arrays[f"{network}/Dense_{layer}/bias"]
        if layer < number:
            h = ACTIVATIONS[about["activation"]](h)
    return h
