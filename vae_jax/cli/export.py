"""A run for other programs: `vae-jax export RUN --format stablehlo`, onnx or safetensors."""

import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from vae_jax.cli.command import RunConfig
from vae_jax.cli.images import REMEDY, new_folder
from vae_jax.cli.outputs import free_output
from vae_jax.errors import RunError, UsageError
from vae_jax.files import writing

if TYPE_CHECKING:
    import numpy as np

    from vae_jax.exports.functions import Function
    from vae_jax.runs.run import Run

_MODULES = {"stablehlo": "stablehlo", "onnx": "onnx_graph", "safetensors": "tensors"}
LARGEST_DIFFERENCE = 1e-4
"""From Python, over the size of what is given: more is no rounding."""


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Export encoder, decoder and generator for programs that have no vae_jax.

    For any number of images, tried against Python on the spot, with a model card that says how to load them.
    """

    format: Literal["stablehlo", "onnx", "safetensors"] = "stablehlo"
    """For JAX on a CPU, GPU or TPU; for ONNX Runtime; or the arrays alone, with NumPy code that runs an mlp."""
    output: Path | None = None
    """The folder to write. Default: the run's name with - and the format, beside it."""
    data_dir: Path | None = None
    """Where the run's data lies, if no longer where the run found it; read for an AE without a prior only."""


def run(config: Config) -> Path:
    """Export, try, write the card and print the differences."""
    output = free_output(config.output, config.run, f"-{config.format}", "")
    # Here, as they import JAX, which --help and a bad flag do not wait for.
    from vae_jax.exports import card
    from vae_jax.exports.functions import difference, functions_of
    from vae_jax.runs.run import load_run

    restored, form = load_run(config.run), _form(config.format)
    # The numbers of a program elsewhere are float32, whatever the run computes with here.
    restored = restored._replace(model=dataclasses.replace(restored.model, precision="float32"))
    codes = _codes(restored, config)
    functions = functions_of(restored, codes)
    with new_folder(output) as folder:
        exported = _write(form, config.format, restored, codes, functions, folder)
        differences = {f.name: difference(f, exported[f.name]) for f in functions if f.name in exported}
        for name, found in differences.items():
            if not found <= LARGEST_DIFFERENCE:
                raise RunError(
                    f"{name} differs from Python by {found:.1e} as {config.format}: nothing was written.\n"
                    "Export it in another --format."
                )
        written = [function for function in functions if function.name in exported]
        text = card.model_card(restored, config.format, written, differences, runnable=bool(exported))
        with writing(folder / card.NAME, REMEDY):
            (folder / card.NAME).write_text(text)
        size = sum(file.stat().st_size for file in folder.iterdir())
    for name, found in differences.items():
        print(f"{name}: differs from Python by {found:.1e} at most, over the size of what it gives")
    if not exported:
        print("The arrays were read back as they are; NumPy code is there for plain fully connected models only.")
    print(f"{size:,} bytes: {output}")
    return output


def _write(
    form: ModuleType,
    name: str,
    run: "Run",
    codes: "np.ndarray | None",
    functions: "list[Function]",
    folder: Path,
) -> dict[str, Callable[..., Any]]:
    # The files, and what they give when they are read again, by the names of the functions.
    if name == "safetensors":
        form.write(run, codes, folder)
        found: dict[str, Callable[..., Any]] = form.load(run, folder)
        return found
    exported = {}
    for function in functions:
        path = folder / f"{function.name}.{name}"
        try:
            form.write(function, path)
        except UsageError as error:
            if function.name != "generate":
                raise UsageError(f"{function.name}: {error}") from error
            print(f"generate is left out, as its prior is none for this format: {error}", flush=True)
            path.unlink(missing_ok=True)
            continue
        exported[function.name] = form.load(path)
    return exported


def _codes(run: "Run", config: Config) -> "np.ndarray | None":
    # Of the validation images, of an AE without a prior; without them it can still encode and decode.
    if run.model.prior.has_density:
        return None
    from vae_jax.runs.run import load_dataset_of

    try:
        part = load_dataset_of(run, config.data_dir).validation
    except UsageError as error:
        if config.data_dir:
            raise
        print(f"generate is left out, as an AE makes new images like those it has seen: {error}", flush=True)
        return None
    return run.encode(part.images, part.labels).means


def _form(name: str) -> ModuleType:
    try:
        return importlib.import_module(f"vae_jax.exports.{_MODULES[name]}")
    except ModuleNotFoundError as error:
        raise UsageError(f"{error.name} is not installed. Install it by pip install 'vae_jax[export]'.") from error
