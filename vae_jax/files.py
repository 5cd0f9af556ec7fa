"""Files that are never half-written, and a lock that no crash leaves behind."""

import contextlib
import errno
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

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

    The lock belongs to the open file, so it ends with the process, however that ends.

    Raises:
        RunError: another process has it, or the folder can't be written.
    """
    import fcntl

    held: dict[Path, int] = _held.__dict__.setdefault("folders", {})
    name = Path(os.path.realpath(folder))
    if name in held:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _open_lock(folder / LOCK, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RunError(
            f"{folder} is being written by another process{_owner(folder / LOCK)}; nothing was changed.\n"
            "Wait until that one has ended, or give another --run-dir."
        ) from error
    except OSError as error:
        raise RunError(
            f"{folder} can't be written: {error.strerror}.\nGive another --run-dir, or make this one writable."
        ) from error
    held[name] = file
    try:
        yield
    finally:
        del held[name]
        with contextlib.suppress(OSError):
            if _is_at(file, folder / LOCK):
                (folder / LOCK).unlink()
        os.close(file)


def check_locked(folder: Path) -> None:
    """See that a folder which this thread has locked is still there, and not another one of its name.

    Raises:
        FileNotFoundError: it was moved or deleted.
    """
    # By the real path: a link that was put in its place leads to a name that is not held.
    file = _held.__dict__.get("folders", {}).get(Path(os.path.realpath(folder)))
    try:
        there = file is not None and _is_at(file, folder / LOCK)
    except OSError:
        there = False
    if not there:
        raise FileNotFoundError(errno.ENOENT, "it was moved or deleted")


def _is_at(file: int, path: Path) -> bool:
    return os.path.samestat(os.fstat(file), os.stat(path))


def _open_lock(path: Path, how: int) -> int:
    import fcntl

    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, how)
            # Whoever held it may have removed the file since it was opened: then this lock is worth nothing.
            if path.exists() and _is_at(file, path):
                os.ftruncate(file, 0)
                os.write(file, str(os.getpid()).encode())
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _owner(path: Path) -> str:
    with contextlib.suppress(OSError, ValueError):
        return f" (pid {int(path.read_text())})"
    return ""


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
