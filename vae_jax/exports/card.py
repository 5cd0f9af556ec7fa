"""The model card beside an export: what it is, what it was trained on, what it is worth, how to load it."""

import datetime
import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from vae_jax.config import hidden_sizes
from vae_jax.errors import counted
from vae_jax.exports.functions import Function, Input
from vae_jax.models.shapes import count_parameters
from vae_jax.runs.run import Run

NAME = "README.md"
_NEEDS = {"stablehlo": "jax flatbuffers numpy", "onnx": "onnxruntime numpy", "safetensors": "safetensors numpy"}
_LOADERS = {
    "stablehlo": """\
from jax import export


def load(name):
    with open(f"{name}.stablehlo", "rb") as file:
        return export.deserialize(bytearray(file.read())).call
""",
    "onnx": """\
import onnxruntime


def load(name):
    session = onnxruntime.InferenceSession(f"{name}.onnx")
    names = [given.name for given in session.get_inputs()]
    return lambda *arrays: session.run(None, dict(zip(names, arrays)))
""",
    "safetensors": """\
import numpy_mlp

arrays, about = numpy_mlp.load(".")


def load(name):
    found = getattr(numpy_mlp, name)
    return lambda *given: found(arrays, about, *given)
""",
}
_SEEN = {
    "threshold": "Pixels are 1 from one half on: `images = (images >= 0.5).astype(np.float32)`.",
    "dynamic": "Pixels are drawn, 1 with their value as the probability: "
    "`images = (np.random.default_rng(0).random(images.shape) < images).astype(np.float32)`.",
}


def model_card(
    run: Run, form: str, functions: Sequence[Function], differences: dict[str, float], runnable: bool = True
) -> str:
    """The card as Markdown.

    Args:
        run: what was exported.
        form: stablehlo, onnx or safetensors.
        functions: those that were exported.
        differences: of each function from Python, where it was run.
        runnable: whether there is code that runs the files.
    """
    parts = [f"# {run.dataset['name']}: {run.model.name} by vae_jax", *_about(run), *_worth(run)]
    parts += ["## Use", *_use(run), "## Files", *_files(form, functions, differences, runnable)]
    if runnable:
        parts += ["## How to load it", f"`pip install {_NEEDS[form]}`, then, in this folder:", _code(form, functions)]
    versions = ", ".join(f"{name} {version(name)}" for name in ("vae_jax", "jax", "flax", "numpy"))
    made = f"Made on {datetime.date.today()} by {versions}, Python {platform.python_version()}."
    return "\n\n".join([*parts, f"{made} Numbers are float32.\n"])


def _about(run: Run) -> list[str]:
    config, record = run.config, run.dataset
    sizes = " ".join(map(str, hidden_sizes(config))) or "none"
    shape = " x ".join(map(str, run.model.image_shape))
    known = f" It sees the class of each image: {', '.join(run.classes)}." if run.model.classes else ""
    known += " `classify` tells the class of an image where it is not known." if run.model.infers else ""
    return [
        f"Architecture {config.arch}, hidden sizes {sizes}, {counted(config.latent_dim, 'latent dimension')}, "
        f"likelihood {config.likelihood}, {counted(count_parameters(run.params), 'parameter')}.{known}",
        f"Trained on {counted(record['train'], 'image')} of {record['name']}, {shape} (height x width x channels), "
        f"SHA-256 of the data `{record['sha256']}`; {counted(run.step, 'step')}, seed {config.seed}.",
    ]


def _worth(run: Run) -> list[str]:
    test = (run.summary or {}).get("test")
    if not test:
        return ["It has no test numbers: the run was not finished."]
    unit = run.model.likelihood.unit
    told = {"loss": unit, "reconstruction": unit, "kl": unit, "bits_per_dim": "bits", "psnr": "dB", "iwae_nll": "nats"}
    if not run.model.stochastic:
        del told["kl"]
    rows = [f"| {name} | {test[name]:.4g} | {of} |" for name, of in told.items() if name in test]
    number = run.dataset.get("test")
    title = f"Of {counted(number, 'test image')}, none of them trained on" if number else "Of the test images"
    return [f"{title}, means an image:", "\n".join(["| what | value | unit |", "|---|---|---|", *rows])]


def _use(run: Run) -> list[str]:
    seen = _SEEN.get(run.inputs.binarize, "")
    return [
        "For images like those it was trained on: to encode them, to rebuild them, to make new ones. Of other images "
        "it says little, what it makes shows nothing that there is, and a code may tell more of an image than is "
        "wanted. What may be done with it depends on the licence of the images, too.",
        f"The encoder sees bytes over 255, `images = bytes.astype(np.float32) / 255`. {seen}".rstrip(),
    ]


def _files(form: str, functions: Sequence[Function], differences: dict[str, float], runnable: bool) -> list[str]:
    def row(given: Input) -> str:
        shape = ", ".join(["n", *map(str, given.shape)])
        return f"`{given.name}` {np.dtype(given.dtype).name} [{shape}] ({given.about})"

    lines = []
    for each in functions if runnable else ():
        name = f"`{each.name}.{form}`" if form != "safetensors" else f"`{each.name}`"
        checked = f"; differs from Python by {differences[each.name]:.1e}" if each.name in differences else ""
        takes = ", ".join(map(row, each.inputs))
        lines.append(f"- {name}: {takes} to {', '.join(f'`{output}`' for output in each.outputs)}{checked}")
    words = ["For any number n of images.", "\n".join(lines)] if lines else []
    if form == "safetensors":
        words.append("`model.safetensors` holds the arrays by their paths, `architecture.json` what they are part of.")
    return words


def _code(form: str, functions: Sequence[Function]) -> str:
    lines = ["import numpy as np", _LOADERS[form], "", "rng = np.random.default_rng(0)"]
    for each in functions:
        names = []
        for given in each.inputs:
            lines.append(f"{given.name} = {_made(given)}")
            names.append(given.name)
        alone = form == "safetensors" and len(each.outputs) == 1 and each.name != "encode"
        results = each.outputs[0] if alone else ", ".join(each.outputs)
        if len(each.outputs) == 1 and not alone:
            results = f"({results},)"
        lines.append(f'{results} = load("{each.name}")({", ".join(names)})')
        lines.append(f"print({', '.join(f'{name}.shape' for name in each.outputs)})")
    return "\n".join(["```python", *lines, "```"])


def _made(given: Input) -> str:
    shape: Any = (5, *given.shape)
    if given.dtype == np.uint32:
        return f"rng.integers(0, 2**32, {shape}, np.uint32)"
    if given.dtype == np.int32:
        return f"np.full({shape}, {given.about.split('(')[1].split(',')[0].strip(')')}, np.int32)"
    if given.name == "images":
        return f"rng.random({shape}, np.float32)  # your own, in [0, 1]"
    return f"rng.normal(size={shape}).astype(np.float32)"
