"""Checkpoints as earlier versions wrote them: without metrics up to schema 3, other names of the layers beside maps."""

from collections import Counter
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from vae_jax.archives import read_bytes

_MOST_BYTES = 2**26  # of orbax's list of arrays
_OLD_KINDS = {"Conv": "Conv3x3", "ConvTranspose": "ConvTranspose3x3", "DenseFromMaps": "Dense", "DenseToMaps": "Dense"}


def as_saved(folder: Path, shapes: dict[str, Any]) -> dict[str, Any]:
    """The shapes of items as the checkpoint in a folder has them; `shapes` itself where they are the same.

    Up to schema 3 "training" had no metrics, as only whole epochs were saved.
    """
    if "training" in shapes and (folder / "metrics").is_dir():
        training = {name: part for name, part in shapes["training"].items() if name != "metrics"}
        shapes = {**shapes, "training": training}
    file = folder / "params" / "_METADATA"
    if not file.is_file() or b"Conv3x3_" not in read_bytes(file, _MOST_BYTES):
        return shapes

    def renamed(part: Any) -> Any:
        if not _are_parameters(part):
            return part
        flat = flatten_dict(part)
        return unflatten_dict({old: _old_shape(flat[new]) for new, old in _old_paths(flat).items()})

    return jax.tree.map(renamed, shapes, is_leaf=_are_parameters)


def as_now(items: dict[str, Any], shapes: dict[str, Any]) -> dict[str, Any]:
    """The way back: the items that `as_saved` describes as `shapes` has them; metrics that were not saved are 0."""
    if "metrics" not in items.get("training", {"metrics": None}):
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes["training"]["metrics"])
        items = {**items, "training": {**items["training"], "metrics": zeros}}

    def renamed(wanted: Any, found: Any) -> Any:
        if not _are_parameters(wanted):
            return found
        flat, old = flatten_dict(wanted), flatten_dict(found)
        if set(flat) == set(old):
            return found
        return unflatten_dict({new: old[path].reshape(flat[new].shape) for new, path in _old_paths(flat).items()})

    return jax.tree.map(renamed, shapes, items, is_leaf=_are_parameters)


def _are_parameters(part: Any) -> bool:
    return isinstance(part, dict) and {"encoder", "decoder"} <= set(part)


def _is_dense(kernel: Any) -> bool:
    # What is a convolution of 1x1 now was a dense layer.
    return len(kernel.shape) == 4 and kernel.shape[:2] == (1, 1)


def _old_shape(leaf: Any) -> Any:
    return jax.ShapeDtypeStruct(leaf.shape[2:], leaf.dtype) if _is_dense(leaf) else leaf


def _old_paths(flat: dict[tuple[str, ...], Any]) -> dict[tuple[str, ...], tuple[str, ...]]:
    # By the path of each array now (network, layer, kernel or bias) the one it had then. Layers of one kind are
    # numbered as they are applied: the dense layer at the maps comes before the others.
    names: dict[tuple[str, ...], str] = {}
    counts = Counter[tuple[str, str]]()
    layers = {(path[0], path[1]) for path in flat if len(path) == 3}
    for network, layer in sorted(layers, key=lambda path: (path[1].startswith("Dense_"), len(path[1]), path[1])):
        kind = layer.rpartition("_")[0]
        kind = "Dense" if _is_dense(flat[network, layer, "kernel"]) else _OLD_KINDS.get(kind, kind)
        names[network, layer] = f"{kind}_{counts[network, kind]}"
        counts[network, kind] += 1
    return {path: (path[0], names[path[:2]], path[2]) if path[:2] in names else path for path in flat}
