"""Where a command writes: never over what is there."""

import os
from pathlib import Path

from vae_jax.errors import UsageError

_OF_FILES = (
    *(".csv", ".tsv", ".txt", ".json", ".npz", ".npy", ".vaez", ".pdf", ".html", ".zip", ".gz", ".tgz", ".tar"),
    *(".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".svg"),
)
"""Endings that say file: a folder called out.png is a mistake, one called photos.v2 is not."""


def free_output(given: Path | None, source: Path, added: str, *endings: str) -> Path:
    """Where to write what is made of a user's images or run: --output, or a name beside them.

    Args:
        given: --output.
        source: the images or the run.
        added: what their name ends in instead, such as "-scores.csv".
        endings: as in `check_name`, by default that of `added`.

    Raises:
        UsageError: it is taken, can't be made, or ends in something else.
    """
    source, endings = Path(os.path.abspath(source.expanduser())), endings or (Path(added).suffix,)
    if given is None and not source.name:
        raise UsageError(f"{source} has no name to write beside. Give one by --output.")
    output = given or source.with_name((source.stem if source.is_file() else source.name) + added)
    if given:
        check_name(output, *endings)
    check_free(output, folder=output.suffix.lower() not in filter(None, endings))
    return output


def check_name(path: Path, *endings: str, flag: str = "--output", other: str = "a folder") -> None:
    """Refuse a name that says something else than what will be written there.

    Args:
        path: the file or folder to be.
        endings: what its name may end in, in small or capital letters; "" is any ending that no type of file has.
        flag: that gives it.
        other: what has the ending "".

    Raises:
        UsageError: it ends in something else.
    """
    named = path.suffix.lower()
    if named not in filter(None, endings) and ("" not in endings or named in _OF_FILES):
        kinds = [f"end in {' or '.join(filter(None, endings))}"] if any(endings) else []
        kinds += [f"be the name of {other} without the ending {path.suffix}"] * ("" in endings)
        raise UsageError(f"{flag} must {', or '.join(kinds)}, got {str(path)!r}.")


def check_free(path: Path, *, flag: str = "--output", folder: bool = False) -> None:
    """Refuse to write where something is already; a folder may be there if it is empty.

    Raises:
        UsageError: something is there, or no folder to write it into.
    """
    is_empty = folder and path.is_dir() and not path.is_symlink() and not any(path.iterdir())
    if (path.exists() or path.is_symlink()) and not is_empty:
        raise UsageError(f"{path} exists, and nothing is overwritten. Give another {flag}.")
    if not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
        raise UsageError(f"{flag} must lie in a folder that exists and can be written, got {str(path)!r}.")


def make_folder(path: Path) -> Path:
    """Make the folder that --output names, if it is not there yet.

    Raises:
        UsageError: its name ends like that of a file, or it can't be made or written.
    """
    reason = "Permission denied"
    try:
        if not path.exists():
            check_name(path, "")
        path.mkdir(parents=True, exist_ok=True)
        if os.access(path, os.W_OK):
            return path
    except OSError as error:
        reason = str(error.strerror)
    raise UsageError(f"--output must be a folder that can be made and written, got {str(path)!r} ({reason}).")
