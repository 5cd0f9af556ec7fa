"""The record of a checkpoint: what was saved, and whether that is what is there.

Orbax restores a flipped byte without a word. So the record holds type, shape and SHA-256 of every array, and a digest
of its own. Damage that hits neither harms nobody.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vae_jax.archives import read_bytes

_MOST_BYTES = 2**26  # of a record
_BROKEN = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


class DamagedError(Exception):
    """A checkpoint that can't be used, with the reason."""


def array_digests(tree: Any) -> dict[str, list[Any]]:
    """Type, shape and SHA-256 of every array by its name."""
    return {
        name: [str(leaf.dtype), list(leaf.shape), hashlib.sha256(np.asarray(leaf).tobytes()).hexdigest()]
        for name, leaf in _leaves(tree)
    }


def make_record(step: int, loss: float | None, seconds: float, items: dict[str, Any]) -> dict[str, Any]:
    """The record of items of arrays, to be saved beside them."""
    digests = {name: array_digests(item) for name, item in items.items()}
    record = {"step": step, "loss": loss, "seconds": seconds, "arrays": digests}
    return {**record, "sha256": _digest(record)}


def read_record(folder: Path) -> dict[str, Any]:
    """The record of the checkpoint in a folder.

    Up to schema 3 the loss and the digests were items of their own, and at first there were no digests.

    Raises:
        DamagedError: it can't be read, or is not what was saved.
    """
    try:
        if (folder / "metrics").is_dir():
            arrays = _read_json(folder / "digests" / "metadata") if (folder / "digests").is_dir() else {}
            loss = _read_json(folder / "metrics" / "metrics")["loss"]
            return {"step": int(folder.name), "loss": loss, "seconds": 0.0, "arrays": arrays}
        record: dict[str, Any] = _read_json(folder / "record" / "metadata")
        digest = record.pop("sha256")
    except _BROKEN as error:
        raise DamagedError("is damaged (no list of its arrays)") from error
    if digest != _digest(record):
        raise DamagedError("is damaged (its list of arrays is not what was saved)")
    if record["step"] != int(folder.name):
        raise DamagedError(f"is damaged (it is that of step {record['step']})")
    return record


def check_shapes(record: dict[str, Any], name: str, shapes: Any) -> None:
    """Raise DamagedError where an item has arrays of other names or shapes: a config may ask for any size."""
    asked = {leaf: [str(array.dtype), list(array.shape)] for leaf, array in _leaves(shapes)}
    if {leaf: entry[:2] for leaf, entry in record["arrays"].get(name, asked).items()} != asked:
        raise DamagedError("holds arrays of other names or shapes than its config.json asks for")


def check_arrays(record: dict[str, Any], name: str, item: Any) -> None:
    """Raise DamagedError, naming one, where the arrays of an item are not those that were saved."""
    found = {_plain(leaf): entry for leaf, entry in array_digests(item).items()}
    for leaf, entry in record["arrays"].get(name, {}).items():
        if found.get(_plain(leaf)) != entry:
            raise DamagedError(f"is damaged ({name}{leaf} is not what was saved)")


def _plain(leaf: str) -> str:
    # Read without its types, a named tuple is a dict.
    return re.sub(r"\.(\w+)", r"['\1']", leaf)


def _digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _read_json(file: Path) -> Any:
    return json.loads(read_bytes(file, _MOST_BYTES))


def _leaves(tree: Any) -> list[tuple[str, Any]]:
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]
