"""Decoded pictures, kept in the user's cache directory, so that they are decoded once. Imports no JAX.

An entry is an .npy file of bytes and a record beside it. It is found by what the system says of every file, not by the
files' content, which takes as long to read as to decode: name, size, both times, and the number of the file itself. The
time of the last change (ctime) can't be set by a program, so that a file that was replaced is another one.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import PIL

from vae_jax.archives import read_bytes
from vae_jax.data import stored
from vae_jax.data.decoding import Decoded, decode
from vae_jax.data.raw import Pictures, Reading
from vae_jax.files import cache_folder, is_leftover, replacing

VARIABLE = "VAE_JAX_CACHE_DIR"
"""The environment variable that names another folder; "off" keeps nothing."""
SLOW_SECONDS = 1.0
"""What is decoded sooner, and is small, is not kept."""
MOST_BYTES = 20 * 10**9
"""Of all entries but the newest."""
SETTLED_SECONDS = 2.0
"""A file that was changed later than so long ago might be changed again without another time of change."""
_READER = 1  # another number, where the same files become other images
_SHARE = 0.1  # of the free disk, that all entries but the newest may have
_MOST_RECORD = 2**28
_LEFT_SECONDS = 86400.0


@dataclasses.dataclass(frozen=True)
class Kept:
    """Pictures, and the entry of the cache that keeps them."""

    decoded: Decoded
    path: Path | None
    """Of the .npy file; None where they are not kept."""
    sha256: str = ""
    """The fingerprint of the data set, which was remembered."""

    def remember(self, sha256: str) -> None:
        """Keep the fingerprint of the data set, so that the next start need not read all images."""
        if self.path and sha256 != self.sha256:
            with contextlib.suppress(OSError):
                _write_record(self.path, self.decoded, sha256)


def decoded(folder: Path, names: Sequence[str], reading: Reading) -> Kept:
    """Pictures as `decode` gives them, of the cache where they are in it; large ones stay in its file.

    Raises:
        UsageError: as of `decode`.
    """
    path = _path(folder, names, reading)
    if path is None:
        return Kept(decode(folder, names, reading), None)
    if found := _read(path, names):
        return found
    began, spill = time.time(), path.with_name(f".{path.stem}.{os.getpid()}.images.tmp")
    try:
        result = decode(folder, names, reading, spill=spill)
        worth = time.time() - began >= SLOW_SECONDS or isinstance(result.images, stored.StoredImages)
        if not worth or _path(folder, names, reading, before=began - SETTLED_SECONDS) != path:
            return Kept(result, None)
        try:
            _keep(path, spill, result)
        except OSError as error:
            note = f"not kept for the next start in {path.parent}: {error.strerror or error}; {VARIABLE} names another."
            return Kept(result._replace(notes=[*result.notes, note]), None)
        return Kept(result, path)
    finally:
        with contextlib.suppress(OSError):  # whoever has it open reads on
            spill.unlink(missing_ok=True)


def _path(folder: Path, names: Sequence[str], reading: Reading, before: float | None = None) -> Path | None:
    # Where the entry is; None where nothing is to be kept, or a file was changed after that time.
    chosen = os.environ.get(VARIABLE)
    if chosen == "off":
        return None
    digest = hashlib.sha256(f"{_READER} {PIL.__version__} {reading._replace(data_dir=None)}".encode())
    root = str(folder)
    try:
        for name in names:
            seen = os.stat(os.path.join(root, name))
            if before is not None and seen.st_ctime > before:
                return None
            numbers = seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino, seen.st_dev
            digest.update(f"{name}\0{numbers}\n".encode("utf-8", "surrogateescape"))
    except OSError:
        return None
    place = Path(chosen).expanduser() if chosen else cache_folder("images")
    return place / f"{digest.hexdigest()[:40]}.npy"


def _record(path: Path) -> Path:
    return path.with_suffix(".json")


def _read(path: Path, names: Sequence[str]) -> Kept | None:
    # None also of an entry that is damaged, or none of ours.
    try:
        record: dict[str, Any] = json.loads(read_bytes(_record(path), _MOST_RECORD))
        seen, left_out = path.stat(), set(record["left_out"])
        if [seen.st_size, seen.st_mtime_ns] != record["file"]:
            return None
        how = Pictures.of(record["how"])
        images, kept = stored.open_npy(path), [name for name in names if name not in left_out]
        if images.shape != (len(kept), *how.size, how.channels) or images.dtype != "uint8":
            return None
        notes = [str(note) for note in record["notes"]]
        result = Kept(Decoded(images, kept, how, notes, sorted(left_out)), path, str(record["sha256"]))
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    with contextlib.suppress(OSError):
        os.utime(_record(path))  # the entries that were used longest ago are removed first
    return result


def _keep(path: Path, spill: Path, result: Decoded) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with replacing(path) as temporary:
        if isinstance(result.images, stored.StoredImages):
            os.replace(spill, temporary)
        else:
            stored.write_npy(temporary, result.images.shape, [result.images])
    _write_record(path, result, "")
    _trim(path)


def _write_record(path: Path, result: Decoded, sha256: str) -> None:
    seen = path.stat()
    record = {
        "file": [seen.st_size, seen.st_mtime_ns],
        "how": result.how._asdict(),
        "notes": result.notes,
        "left_out": result.left_out,
        "sha256": sha256,
    }
    with replacing(_record(path)) as temporary:
        temporary.write_text(json.dumps(record), encoding="utf-8")


def _trim(newest: Path) -> None:
    # The others are removed, those that were used longest ago first, down to the size that the cache may have.
    folder, now = newest.parent, time.time()
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            if is_leftover(path) and now - path.stat().st_mtime > _LEFT_SECONDS:
                path.unlink()
    left = min(MOST_BYTES, int(_SHARE * shutil.disk_usage(folder).free))
    used: dict[Path, float] = {}
    for path in folder.glob("*.npy"):
        with contextlib.suppress(OSError):
            used[path] = _record(path).stat().st_mtime if _record(path).exists() else 0.0
    for path in sorted(used, key=used.__getitem__, reverse=True):
        with contextlib.suppress(OSError):
            left -= 0 if path == newest else path.stat().st_size
            if left < 0 and path != newest:
                path.unlink()
                _record(path).unlink(missing_ok=True)
