"""What the tests of the page share: runs of random weights."""

import dataclasses

import pytest
from untrained import HOSTILE, made


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """A VAE of three dimensions and an AE of two, for the embedded digits."""
    folder, shape = tmp_path_factory.mktemp("explored"), (8, 8, 1)
    vae = made(folder / "a <b> run", shape, latent_dim=3, hidden_sizes=(6,))
    return [vae, made(folder / "ae", shape, model="ae", hidden_sizes=(6,), likelihood="squared_error")]


@pytest.fixture(scope="module")
def data(digits):
    return dataclasses.replace(digits, class_names=(HOSTILE, *"123456789"))
