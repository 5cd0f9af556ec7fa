"""StableHLO by `jax.export`: a file that JAX alone runs on a CPU, a GPU or a TPU, for any number of images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import flatbuffers  # noqa: F401  (what jax.export writes with, and would ask for only then)
import jax
from jax import export

from vae_jax.exports.functions import Function

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def write(function: Function, path: Path) -> None:
    """Write the function, its parameters within."""
    (number,) = export.symbolic_shape("n")
    shapes = [jax.ShapeDtypeStruct((number, *given.shape), given.dtype) for given in function.inputs]
    exported = export.export(jax.jit(function.call), platforms=PLATFORMS)(*shapes)
    path.write_bytes(exported.serialize())


def load(path: Path) -> Callable[..., Any]:
    """The function of such a file."""
    exported = export.deserialize(bytearray(path.read_bytes()))
    return jax.jit(exported.call)
