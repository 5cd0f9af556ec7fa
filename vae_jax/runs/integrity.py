"""SHA-256 of what a checkpoint holds: of its arrays, which decide whether it is used, and of its files.

A file may be damaged where no array is: orbax keeps some things twice. That is said, and the checkpoint is used.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vae_jax.archives import read_bytes
from vae_jax.files import is_leftover, remove_leftovers, replacing

FILES = "files.json"
"""In the folder of a checkpoint: SHA-256 of each other file by its name."""
_MOST_BYTES = 2**26  # of that list


def leaves(tree: Any) -> list[tuple[str, Any]]:
    """The arrays of a tree with their names."""
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def array_digests(tree: Any) -> dict[str, list[Any]]:
    """Type, shape and SHA-256 of every array by its name."""
    return {
        name: [str(leaf.dtype), list(leaf.shape), hashlib.sha256(np.asarray(leaf).tobytes()).hexdigest()]
        for name, leaf in leaves(tree)
    }


def record_digest(record: dict[str, Any]) -> str:
    """SHA-256 of what becomes JSON."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def list_files(folder: Path) -> None:
    """Write the list of a finished checkpoint's files into it."""
    remove_leftovers(folder)
    digests = _file_digests(folder)
    with replacing(folder / FILES) as temporary:
        temporary.write_text(json.dumps({"files": digests, "sha256": record_digest(digests)}), encoding="utf-8")


def is_listed(folder: Path) -> bool:
    """Whether a checkpoint has a list of its files."""
    return (folder / FILES).exists()


def changed_files(folder: Path) -> list[str] | None:
    """Names of the files of a checkpoint that are not as listed, not there, or not listed; None without a list."""
    try:
        content = json.loads(read_bytes(folder / FILES, _MOST_BYTES))
        listed, digest = content["files"], content["sha256"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return [FILES]
    if not isinstance(listed, dict) or digest != record_digest(listed):
        return [FILES]
    found = _file_digests(folder)
    return sorted(name for name in {*listed, *found} if listed.get(name) != found.get(name, ""))


def _file_digests(folder: Path) -> dict[str, str | None]:
    # None of a file that can't be read.
    found: dict[str, str | None] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / FILES and not is_leftover(path):
            try:
                with path.open("rb") as file:
                    digest: str | None = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError:
                digest = None
            found[str(path.relative_to(folder))] = digest
    return found
