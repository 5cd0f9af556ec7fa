"""What the tests of the page share: runs as small as they get, and a browser."""

import shutil

import pytest

from experiments.study import trained_together
from vae_jax.config import Settings


@pytest.fixture(scope="session")
def runs(tmp_path_factory, digits):
    """A VAE of three dimensions and an AE of two, of the embedded digits; they must not be changed."""
    folder = tmp_path_factory.mktemp("explored")
    common = {"dataset": "digits", "epochs": 2, "batch_size": 256}
    vae = Settings(latent_dim=3, hidden_sizes=(16,), **common)
    ae = Settings(model="ae", arch="conv", hidden_sizes=(4,), likelihood="squared_error", **common)
    return [trained_together([folder / name], [each], digits)[0] for name, each in (("a <b> run", vae), ("ae", ae))]


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
