"""safetensors: the arrays of a run by their names, what the model is as JSON, and NumPy code that runs an mlp."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import load_file, save

from vae_jax.config import hidden_sizes
from vae_jax.errors import RunError
from vae_jax.exports import numpy_mlp
from vae_jax.exports.functions import gaussian_of
from vae_jax.models.networks import MLPDecoder, MLPEncoder
from vae_jax.models.priors import NoPrior, StandardNormal
from vae_jax.runs.run import Run

ARRAYS, ABOUT, CODE = "model.safetensors", "architecture.json", "numpy_mlp.py"
_TOLD = (
    *("model", "arch", "activation", "fourier_features", "dense_size", "latent", "likelihood", "sigma", "prior"),
    *("prior_components", "prior_layers", "posterior", "reflections", "condition"),
    *("mixture_components", "channel_conditioning", "binarize", "code_activation", "sparsity", "sparsity_target"),
)


def is_run_by_numpy(run: Run) -> bool:
    """Whether `numpy_mlp` runs such a model."""
    config = run.config
    plain = config.arch == "mlp" and not run.model.classes and config.sparsity != "topk"
    plain = plain and run.model.posterior.independent
    plain = plain and (type(run.model.encoder), type(run.model.decoder)) == (MLPEncoder, MLPDecoder)
    return plain and run.model.prior in (NoPrior(), StandardNormal()) and config.likelihood in numpy_mlp.MEANS


def write(run: Run, codes: np.ndarray | None, folder: Path) -> None:
    """Write the files; `codes` as of `functions_of`."""
    arrays = named_arrays(run)
    if codes is not None:
        arrays |= dict(zip(("generate/mean", "generate/spread"), gaussian_of(codes), strict=True))
    # In C order: others it writes as they lie in memory.
    content = save({name: np.asarray(array, order="C") for name, array in arrays.items()})
    (folder / ARRAYS).write_bytes(content)  # by itself it would make a file for the owner alone
    about: dict[str, Any] = {name: getattr(run.config, name) for name in _TOLD}
    about |= {"image_shape": run.model.image_shape, "latent_dim": run.model.latent_dim, "classes": run.model.classes}
    about["hidden_sizes"] = hidden_sizes(run.config)
    (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n")
    if is_run_by_numpy(run):
        (folder / CODE).write_text(Path(numpy_mlp.__file__).read_text())


def named_arrays(run: Run) -> dict[str, np.ndarray]:
    """The parameters by their paths, such as encoder/Dense_0/kernel."""
    leaves = jax.tree_util.tree_flatten_with_path(run.params)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}


def load(run: Run, folder: Path) -> dict[str, Callable[..., tuple[Any, ...]]]:
    """The functions of the files by NumPy, by their names; none of a model that it does not run.

    Raises:
        RunError: an array is not there as it was.
    """
    written = load_file(folder / ARRAYS)
    for name, array in named_arrays(run).items():
        if not np.array_equal(written[name], array):
            raise RunError(f"{name} differs in {ARRAYS} from what was written. Write it elsewhere.")
    if not is_run_by_numpy(run):
        return {}
    given = numpy_mlp.load(folder)
    return {
        "encode": lambda images: numpy_mlp.encode(*given, images),
        "decode": lambda latents: (numpy_mlp.decode(*given, latents),),
        "generate": lambda noise: (numpy_mlp.generate(*given, noise),),
    }
