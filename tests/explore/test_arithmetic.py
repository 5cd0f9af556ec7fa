"""What the page computes is what Python computes: every network and every likelihood, by Node."""

import base64
import json
import shutil
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.config import Settings
from vae_jax.explore.page import SCRIPTS
from vae_jax.explore.programs import Weights
from vae_jax.explore.records import check_explorable, computed
from vae_jax.models.autoencoders import build_model
from vae_jax.models.inputs import preprocess
from vae_jax.registry import ARCHITECTURES, LIKELIHOODS
from vae_jax.runs.run import Run

FOLDER = Path(__file__).parents[2] / "vae_jax" / "explore"
SHAPE = (6, 9, 3)  # sides that neither a stride nor a block divides
LABELS = np.array([7, -2, 4], np.int32)
IMAGES = np.random.default_rng(0).integers(0, 256, (3, *SHAPE), dtype=np.uint8)
IMAGES[0, 0], IMAGES[0, 1] = 0, 255
CASES = {
    "bernoulli": {"fourier_features": 3, "binarize": "threshold", "condition": "labels"},
    "continuous_bernoulli": {"arch": "conv", "fourier_features": 3, "condition": "labels", "dense_size": 0},
    "gaussian": {"model": "ae", "arch": "patch", "hidden_sizes": (4, 4, 6), "latent_dim": 6, "activation": "silu"},
    "learned_gaussian": {"arch": "conv", "hidden_sizes": (4, 5), "activation": "tanh", "dense_size": 5},
    "squared_error": {"model": "ae", "sparsity": "topk", "sparsity_target": 0.5, "code_activation": "sigmoid"},
    "discretized_logistic": {"arch": "residual", "latent_dim": 12, "condition": "labels"},
    "logistic_mixture": {
        **{"arch": "residual", "latent": "vector", "hidden_sizes": (4, 6)},
        **{"activation": "relu", "mixture_components": 2},
    },
    "discretized_gaussian": {"arch": "gated"},
    "beta_binomial": {"model": "ae", "code_activation": "relu"},
}
"""By likelihood, with what else changes what is computed."""


def run_of(name):
    """A run with random weights that 16 bits hold."""
    settings = Settings(**{"hidden_sizes": (5,), "latent_dim": 4, "likelihood": name, **CASES[name]})
    model, rng = build_model(settings, SHAPE, LABELS), np.random.default_rng(1)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.float32(np.float16(0.4 * rng.normal(size=leaf.shape))), shapes)
    return Run(Path("run"), model, params, settings, [], {}, None, 0)


def expected(run):
    """Decoded latents and what is known of images, by Python."""
    model, rng = run.model, np.random.default_rng(2)
    labels = jnp.asarray(LABELS) if model.classes else None
    latents = jnp.float32(1.5 * rng.normal(size=(3, model.latent_dim)))
    x = preprocess(jnp.asarray(IMAGES), run.config.binarize)

    @jax.jit
    def everything(params):
        posterior = model.encode(params, x, labels)
        decoded = model.decode(params, posterior.mean, labels)
        error = jnp.sum((x - model.likelihood.mean(decoded)) ** 2, axis=(1, 2, 3))
        known = {
            **{"mean": posterior.mean, "logvar": posterior.logvar, "kl": posterior.kl()},
            "reconstruction": model.likelihood.reconstruction_loss(decoded, x),
            "score": error / jnp.sum(x**2, axis=(1, 2, 3)),
        }
        return model.likelihood.mean(model.decode(params, latents, labels)), known

    return latents, *everything(run.params)


def case_of(run, latents):
    """The same for JavaScript."""
    weights = Weights()
    record = {**computed(run, weights), "half": True, "score": {"name": "relative_error"}}
    return {
        "record": record,
        "weights": base64.b64encode(weights.joined().astype("<f2").tobytes()).decode(),
        "images": IMAGES.reshape(3, -1).tolist(),
        "latents": np.asarray(latents).tolist(),
        "labels": np.searchsorted(run.model.classes, LABELS).tolist() if run.model.classes else [0, 0, 0],
    }


def by_node(cases, folder):
    file = folder / "cases.json"
    file.write_text(json.dumps(cases))
    scripts = [FOLDER / name for name in SCRIPTS[:3]]
    command = ["node", Path(__file__).with_name("arithmetic.js"), file, *scripts]
    return json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)


def test_the_cases_name_everything():
    assert set(CASES) >= set(LIKELIHOODS)
    assert {case.get("arch", "mlp") for case in CASES.values()} >= set(ARCHITECTURES)


QUICK = ("bernoulli", "learned_gaussian", "discretized_logistic")


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
@pytest.mark.parametrize(
    "names",
    [QUICK, pytest.param([name for name in CASES if name not in QUICK], marks=pytest.mark.slow)],
    ids=["some", "the others"],
)
def test_every_network_and_likelihood_gives_in_javascript_what_it_gives_in_python(names, tmp_path):
    runs = {name: run_of(name) for name in names}
    right = {name: expected(run) for name, run in runs.items()}
    found = by_node([case_of(run, right[name][0]) for name, run in runs.items()], tmp_path)
    for (name, run), result in zip(runs.items(), found, strict=True):
        check_explorable(run)
        _, decoded, known = right[name]
        close = {"rtol": 2e-5, "atol": 2e-5, "err_msg": name}
        # Float32 cancels in the mean of a wide mixture: a tenth of a grey level at the most.
        np.testing.assert_allclose(np.reshape(result["decoded"], decoded.shape), decoded, **{**close, "atol": 4e-4})
        for part, values in known.items():
            each = [one[part] for one in result["encoded"]]
            if values is None:
                assert each == [None] * 3
            else:
                np.testing.assert_allclose(each, values, **{**close, "err_msg": f"{name}, {part}"})
