"""Exports of a run: every model by every format gives what Python gives, and the card's code runs without vae_jax."""

import dataclasses
import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import vae_jax
from vae_jax.__main__ import tool
from vae_jax.cli import export
from vae_jax.config import Settings
from vae_jax.errors import UsageError
from vae_jax.exports import functions
from vae_jax.exports.functions import difference, functions_of, gaussian_of
from vae_jax.models.priors import FullGaussian, StandardNormal
from vae_jax.registry import LIKELIHOODS
from vae_jax.runs.run import Run

RUNS = Path(__file__).parents[1] / "runs"
PACKAGES = {"stablehlo": "flatbuffers", "onnx": "onnxruntime", "safetensors": "safetensors"}
BLOCKED = {"stablehlo": ["vae_jax", "flax"], "onnx": ["vae_jax", "jax"], "safetensors": ["vae_jax", "jax"]}


def module_of(form):
    if form == "onnx":
        pytest.importorskip("onnx", reason="onnx is not installed: pip install 'vae_jax[export]'")
    pytest.importorskip(PACKAGES[form], reason=f"{PACKAGES[form]} is not installed: pip install 'vae_jax[export]'")
    return importlib.import_module(f"vae_jax.exports.{export._MODULES[form]}")


def untrained(shape, **settings):
    settings = Settings(**{"hidden_sizes": (4, 5)} | settings)
    model = vae_jax.build_model(settings, shape, classes=(-2, 4, 7))
    params = model.init(jax.random.key(0))
    # So that no bias is 0 and no two outputs alike.
    params = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), params)
    return Run(Path("run"), model, params, settings, [], {}, None, 0)


RESIDUAL = {"arch": "residual", "hidden_sizes": (4,), "latent_dim": 4}
MODELS = [
    *({"likelihood": name, "model": "ae" if name == "squared_error" else "vae"} for name in LIKELIHOODS),
    {"activation": "silu", "model": "ae", "code_activation": "sigmoid", "sparsity": "topk", "latent_dim": 5},
    {"fourier_features": 3, "activation": "tanh"},
    {"condition": "labels", "activation": "relu"},
    {"condition": "inferred", "hidden_sizes": (4,)},
    {"arch": "conv", "fourier_features": 2, "dense_size": 3},
    {"arch": "patch", "model": "ae", "latent_dim": 8},
    {**RESIDUAL, "likelihood": "discretized_logistic", "condition": "labels"},
    {**RESIDUAL, "latent": "vector"},
]
SLOW = {
    *("continuous_bernoulli", "gaussian", "learned_gaussian", "logistic_mixture", "beta_binomial", "squared_error"),
    *("discretized_gaussian", "discretized_logistic", "bernoulli", "conv", "patch", "vector", "tanh", "topk"),
}


@pytest.mark.parametrize("form", ["onnx", "stablehlo"])
@pytest.mark.parametrize(
    "settings",
    [pytest.param(each, marks=pytest.mark.slow if SLOW & set(each.values()) else ()) for each in MODELS],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_what_is_exported_gives_what_python_gives(form, settings, tmp_path):
    module, codes = module_of(form), np.random.default_rng(0).normal(size=(20, settings.get("latent_dim", 2)))
    run = untrained((5, 6, 3), **settings)
    found = functions_of(run, codes.astype(np.float32))
    names = ["encode", "decode", *["classify"] * run.model.infers, "generate"]
    assert [function.name for function in found] == names
    for function in found[:-1]:
        path = tmp_path / function.name
        module.write(function, path)
        assert difference(function, module.load(path)) < 1e-5


def test_a_difference_is_found():
    function = functions_of(untrained((5, 4, 1)))[1]
    compiled = jax.jit(function.call)
    assert difference(function, compiled) == 0
    assert difference(function, lambda z: (compiled(z)[0] + 1e-3,)) == pytest.approx(1e-3, rel=1e-2)
    assert not difference(function, lambda z: (compiled(z)[0] * np.nan,)) <= 1
    assert difference(function, lambda z: (compiled(z)[0][:1],)) == np.inf


class Hills(StandardNormal):
    """Two hills: no function of white noise."""

    def from_noise(self, params, noise):
        return None

    def sample(self, params, key, shape, temperature=1.0):
        side, place = jax.random.split(key)
        far = jax.numpy.where(jax.random.bernoulli(side, shape=(shape[0], 1)), 3.0, -3.0)
        return far + temperature * jax.random.normal(place, shape)


def test_new_images_are_made_of_noise_or_where_the_prior_needs_it_of_random_bits(tmp_path):
    module, run = module_of("stablehlo"), untrained((5, 4, 1), likelihood="gaussian")
    generate = functions_of(run)[2]
    noise = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    np.testing.assert_allclose(jax.jit(generate.call)(noise)[0], run.decode(noise), atol=1e-6)
    run = run._replace(model=dataclasses.replace(run.model, prior=Hills()))
    generate = functions_of(run)[2]
    module.write(generate, tmp_path / "file")
    keys = np.random.default_rng(0).integers(0, 2**32, (40, 2), np.uint32)
    images = module.load(tmp_path / "file")(keys)[0]
    each = [run.generate(1, key=jax.random.wrap_key_data(key)) for key in keys[:3]]
    np.testing.assert_allclose(images[:3], np.concatenate(each), atol=1e-5)
    form = module_of("onnx")
    means = 2 + np.random.default_rng(1).normal(size=(9, 2)).astype(np.float32)
    gaussian = run._replace(
        model=dataclasses.replace(run.model, prior=FullGaussian()),
        params=run.params | {"prior": FullGaussian.fit(means)},
    )
    of_gaussian = functions_of(gaussian)[2]
    form.write(of_gaussian, tmp_path / "gaussian")
    assert difference(of_gaussian, form.load(tmp_path / "gaussian")) < 1e-5
    with pytest.raises(UsageError, match=r"--format onnx has no form of the operation random_.*\n.*stablehlo"):
        form.write(generate, tmp_path / "other")


@pytest.mark.parametrize(
    "settings",
    [
        {"prior": "class", "condition": "labels"},
        pytest.param({"prior": "vamp", "prior_components": 3}, marks=pytest.mark.slow),
        pytest.param({"prior": "mixture", "prior_components": 3}, marks=pytest.mark.slow),
    ],
    ids=lambda settings: settings["prior"],
)
def test_new_images_are_those_of_the_runs_own_prior(settings):
    run = untrained((5, 4, 1), **settings)
    if settings["prior"] == "class":  # far from each other
        far = {"mean": 4 * jax.numpy.arange(3.0)[:, None] - 4 + jax.numpy.zeros((1, 2))}
        run = run._replace(params=run.params | {"prior": run.params["prior"] | far})
    keys = np.random.default_rng(0).integers(0, 2**32, (3, 2), np.uint32)
    labels = [np.array([7, -2, 4], np.int32)] if run.model.classes else []
    images = jax.jit(functions_of(run)[2].call)(keys, *labels)[0]
    for i, key in enumerate(map(jax.random.wrap_key_data, keys)):
        known = {"labels": labels[0][i : i + 1]} if labels else {}
        np.testing.assert_allclose(images[i : i + 1], run.model.generate(run.params, key, 1, **known), atol=1e-5)


def test_an_ae_generates_from_the_gaussian_of_its_codes():
    codes = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32) @ np.float32(
        [[1, 2, 0], [0, 1, 0], [1, 1, 3]]
    )
    mean, spread = gaussian_of(codes)
    np.testing.assert_allclose(mean, codes.mean(0), atol=1e-5)
    np.testing.assert_allclose(spread.T @ spread, np.cov(codes.T, bias=True), rtol=1e-3, atol=1e-3)
    bare = untrained((5, 4, 1), model="ae")
    assert [function.name for function in functions_of(bare)] == ["encode", "decode"]
    # Of a prior that was fitted to the codes, whatever codes are given.
    fitted = bare.with_prior(FullGaussian(), FullGaussian.fit(codes[:, :2]))
    noise = jax.numpy.float32([[0.3, -1]])
    expected = fitted.decode(np.asarray(fitted.model.prior.from_noise(fitted.params["prior"], noise)))
    np.testing.assert_allclose(functions_of(fitted, 9 + codes[:, :2])[2].call(noise)[0], expected, atol=1e-6)


def run_card(folder, blocked):
    """What the card's code prints in a process that can't import these packages, nor anything of this one."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    code = f"import sys\nsys.modules.update(dict.fromkeys({blocked}))\n{code}"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")


@pytest.mark.parametrize("form", PACKAGES)
@pytest.mark.parametrize("name", ["schema4_vae", pytest.param("schema4_ae", marks=pytest.mark.slow)])
def test_a_run_is_exported_and_the_code_on_its_card_runs_without_vae_jax(form, name, tmp_path, capsys):
    module_of(form)
    shutil.copytree(RUNS / name, tmp_path / "run")
    tool(["export", str(tmp_path / "run"), "--format", form])
    said, folder = capsys.readouterr().out, tmp_path / f"run-{form}"
    assert [float(number) < 1e-5 for number in re.findall(r"differs from Python by (\S+) at most", said)] == [True] * 3
    assert f": {folder}" in said
    card = (folder / "README.md").read_text()
    for words in ("1,295 images of digits", "d25a0b8513a483c7", "| loss | ", "bytes.astype(np.float32) / 255"):
        assert words in card
    latent = vae_jax.load_run(tmp_path / "run").model.latent_dim
    means = f"(5, {latent})"
    expected = [f"{means} {means}" if name == "schema4_vae" else means, "(5, 8, 8, 1)", "(5, 8, 8, 1)", ""]
    assert run_card(folder, BLOCKED[form]) == expected
    with pytest.raises(SystemExit):
        tool(["export", str(tmp_path / "run"), "--format", form])
    assert "nothing is overwritten" in capsys.readouterr().err


def test_the_arrays_of_any_model_are_written_by_their_names(tmp_path, capsys):
    module_of("safetensors")
    from safetensors.numpy import load_file

    tool(["export", str(RUNS / "schema4_conv"), "--format", "safetensors", "--output", str(tmp_path / "out")])
    assert "NumPy code is there for plain fully connected models only" in capsys.readouterr().out
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "README.md",
        "model.safetensors",
        "architecture.json",
    }
    params = vae_jax.load_run(RUNS / "schema4_conv").params
    arrays = load_file(tmp_path / "out" / "model.safetensors")
    np.testing.assert_array_equal(arrays["encoder/Conv_0/kernel"], params["encoder"]["Conv_0"]["kernel"])
    assert len(jax.tree.leaves(params)) <= len(arrays)
    about = json.loads((tmp_path / "out" / "architecture.json").read_text())
    assert (about["arch"], about["image_shape"]) == ("conv", [8, 8, 1])
    assert "```python" not in (tmp_path / "out" / "README.md").read_text()


def test_what_differs_or_lacks_its_package_is_not_written(tmp_path, capsys, monkeypatch):
    arguments = ["export", str(RUNS / "schema4_ae"), "--output", str(tmp_path / "out"), "--format"]
    for form, package in (("stablehlo", "flatbuffers"), ("onnx", "onnx"), ("safetensors", "safetensors")):
        with monkeypatch.context() as patch:
            for module in (export._MODULES[form], "numpy_mlp"):
                patch.delitem(sys.modules, f"vae_jax.exports.{module}", raising=False)
            patch.setitem(sys.modules, package, None)
            patch.setitem(sys.modules, f"{package}.numpy", None)
            with pytest.raises(SystemExit) as stop:
                tool([*arguments, form])
        assert stop.value.code == 2
        error = capsys.readouterr().err
        assert re.match(rf"{package}[.a-z]* is not installed. Install it by pip install 'vae_jax\[export\]'", error)
    assert list(tmp_path.iterdir()) == []
    module_of("safetensors")

    def gone(*_):
        raise UsageError("The data is gone.")

    monkeypatch.setattr("vae_jax.runs.run.load_dataset_of", gone)
    with monkeypatch.context() as patch:
        patch.setattr(functions, "difference", lambda *_: 0.5)
        with pytest.raises(SystemExit) as stop:
            tool([*arguments, "safetensors"])
        assert stop.value.code == 1
        assert "encode differs from Python by 5.0e-01 as safetensors" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    tool([*arguments, "safetensors"])
    assert "generate is left out, as an AE makes new images like those it has seen: The data is gone" in (
        capsys.readouterr().out
    )
