"""Files that are never half-written, and a lock that no crash leaves behind."""

import contextlib
import errno
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from vae_jax.errors import RunError

LOCK = ".lock"
_held = threading.local()


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`; what is written there takes its place once it is whole and on disk."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    finally:
        with contextlib.suppress(OSError):  # it would hide what went wrong before
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: str | os.PathLike[str], remedy: str) -> Iterator[None]:
    """Say in one line and a remedy what the system has against writing a file or a folder.

    Raises:
        RunError: it refuses.
    """
    try:
        yield
    except OSError as error:
        raise RunError(f"{path} can't be written: {error.strerror or error}.\n{remedy}") from error


def cache_folder(name: str) -> Path:
    """A folder of that name in the user's cache directory; it may not be there yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vae_jax" / name


def append_line(path: Path, line: str) -> None:
    """Append a line to a text file and wait until it is on disk."""
    new = not path.exists()
    with open(path, "a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())
    if new:
        _sync(path.parent)


def is_leftover(path: Path) -> bool:
    """Whether a file or folder is what a killed process left: its lock, or something half-written."""
    return path.name == LOCK or (path.name.startswith(".") and path.name.endswith(".tmp"))


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left half-written in a folder that this process has locked."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if is_leftover(path) and path.name != LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder, made where it is missing, for this thread alone; within it, the same thread may ask again.

    The lock ends with the process, however that ends.

    Raises:
        RunError: another process has it, or the folder can't be written.
    """
    held: dict[str, os.stat_result] = _held.__dict__.setdefault("folders", {})
    name = os.path.realpath(folder)
    if name in held:
        yield
        return
    file = Path(name) / LOCK
    lock = FileLock(file, blocking=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        held[name] = file.stat()
    except Timeout as error:
        raise RunError(
            f"{folder} is being written by another process; nothing was changed.\n"
            "Wait until that one has ended, or give another --run-dir."
        ) from error
    except OSError as error:
        raise RunError(
            f"{folder} can't be written: {error.strerror}.\nGive another --run-dir, or make this one writable."
        ) from error
    try:
        yield
    finally:
        if _is_at(held.pop(name), file):
            with contextlib.suppress(OSError):
                file.unlink()
        lock.release()


def check_locked(folder: Path) -> None:
    """See that a folder which this thread has locked is still there, and not another one of its name.

    Raises:
        FileNotFoundError: it was moved or deleted.
    """
    # By the real path: a link that was put in its place leads to a name that is not held.
    lock = _held.__dict__.get("folders", {}).get(os.path.realpath(folder))
    if lock is None or not _is_at(lock, folder / LOCK):
        raise FileNotFoundError(errno.ENOENT, "it was moved or deleted")


def _is_at(lock: os.stat_result, path: Path) -> bool:
    # The open lock keeps its inode, so that no other file has it.
    try:
        return os.path.samestat(lock, path.stat())
    except OSError:
        return False


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
