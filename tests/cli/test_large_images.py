"""How much the figures of a run ask of its decoder."""

import numpy as np
import pytest

from vae_jax.__main__ import tool
from vae_jax.models.autoencoders import VariationalAutoencoder
from vae_jax.plots.animation import read_progress_grids
from vae_jax.runs import run as runs


@pytest.fixture
def asked(monkeypatch):
    """How many images were asked of a decoder, by every call."""
    numbers, decode, generate = [], runs.decode_latents, VariationalAutoencoder.generate

    def counted_decode(model, params, z, labels=None):
        numbers.append(len(z))
        return decode(model, params, z, labels)

    def counted_generate(model, params, key, number, *more, **given):
        numbers.append(number)
        return generate(model, params, key, number, *more, **given)

    monkeypatch.setattr(runs, "decode_latents", counted_decode)
    monkeypatch.setattr(VariationalAutoencoder, "generate", counted_generate)
    return numbers


def test_few_images_are_decoded_where_they_are_large(asked, tmp_path, capsys):
    images = np.random.default_rng(0).integers(0, 256, (12, 384, 512), np.uint8)
    np.savez(tmp_path / "own.npz", train_images=images[:8], test_images=images[8:])
    small = ["--arch", "mlp", "--hidden-sizes", "2", "--likelihood", "gaussian", "--epochs", "2", "--test-samples", "1"]
    path = str(tmp_path / "run")
    tool(["train", str(tmp_path / "own.npz"), *small, "--run-dir", path, "--no-compilation-cache"])
    # Two frames of the GIF, the PSNR of the test images, the latent grid, samples, reconstructions.
    assert sorted(asked) == [4, 4, 9, 9, 16, 16]
    assert len(read_progress_grids(tmp_path / "run" / "figures" / "training_progress.gif")) == 2
    asked.clear()
    tool(["plot", path, "--no-compilation-cache"])
    assert asked == [16, 1 + 2 * 11, 1 * 18]
    asked.clear()
    tool(["plot", path, "--grid-size", "5", "--traversals", "0", "--interpolations", "2", "--no-compilation-cache"])
    assert asked == [25, 2 * 18]
    capsys.readouterr()
