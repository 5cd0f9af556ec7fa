"""What the tests of the page share: runs of random weights, and a browser."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.config import Settings
from vae_jax.models.autoencoders import build_model
from vae_jax.runs.run import Run


def made(path, image_shape, **settings):
    """A run that was never trained, which a page does not mind."""
    settings = Settings(**settings)
    model, rng = build_model(settings, image_shape, 10), np.random.default_rng(1)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.float32(0.4 * rng.normal(size=leaf.shape)), shapes)
    test = {"loss": 45.0, "reconstruction": 40.0, "kl": 5.0}
    return Run(path, model, params, settings, [], {}, {"test": test}, 0)


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """A VAE of three dimensions and an AE of two, for the embedded digits."""
    folder, shape = tmp_path_factory.mktemp("explored"), (8, 8, 1)
    vae = made(folder / "a <b> run", shape, latent_dim=3, hidden_sizes=(6,))
    return [vae, made(folder / "ae", shape, model="ae", hidden_sizes=(6,), likelihood="squared_error")]


@pytest.fixture(scope="module")
def data(digits):
    return dataclasses.replace(digits, class_names=(HOSTILE, *"123456789"))


HOSTILE = "</script><script>window.bad = 1</script>"


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with api.sync_playwright() as driver:
        try:
            browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except api.Error:
            pytest.skip("needs Chromium")
        yield browser
        browser.close()
