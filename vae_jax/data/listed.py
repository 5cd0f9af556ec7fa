"""Lists of pictures: a CSV file that names each file, its class and its split. Imports no JAX."""

import csv
import io
import os
from pathlib import Path

from vae_jax.archives import read_bytes
from vae_jax.data.folders import SPLITS, Places, read_listed
from vae_jax.data.raw import Raw, Reading
from vae_jax.errors import UsageError

LIST = "files.csv"
"""The list that a folder holds."""
_COLUMNS = ("path", "label", "split")
_MOST_BYTES = 2**30


def list_of(given: Path) -> Path | None:
    """The list that is given by itself, or by the folder that holds it; None where it is none."""
    if given.suffix.lower() == ".csv" and not given.is_dir():
        return given
    return given / LIST if os.path.isfile(given / LIST) else None


def read_list(given: Path, reading: Reading) -> Raw:
    """Read the pictures of a list: a CSV file with the columns path, label and split, or the folder that holds it.

    Paths begin at the folder of the list. Labels are names of classes, split is train, validation (val, valid, dev,
    eval) or test; both columns may be missing, others may be there.

    Raises:
        UsageError: the list can't be understood, naming its line and column, or a picture can't be read.
    """
    file = list_of(given)
    assert file is not None
    rows = _rows(file)
    places: Places = {}
    lines: dict[str, int] = {}
    for line, row in rows:
        path, label, split = (row.get(column, "").strip() for column in _COLUMNS)
        name = Path(path).as_posix()
        if not path or not os.path.isfile(file.parent / name):  # which takes any text
            raise _bad(file, line, "path", "be that of a file", path, f"It is looked for in {file.parent}")
        if name in lines:
            raise _bad(file, line, "path", "be there once", path, f"It stands in line {lines[name]}, too")
        if "split" in row and split.lower() not in SPLITS:
            allowed = f"be one of {', '.join(SPLITS)}"
            raise _bad(file, line, "split", allowed, split, "Leave the column out to have splits drawn")
        if "label" in row and not label:
            remedy = "Leave the column out where classes are not known"
            raise _bad(file, line, "label", "be the name of a class", label, remedy)
        lines[name] = line
        places[name] = SPLITS.get(split.lower(), "train"), label or None
    if not any(split == "train" for split, _ in places.values()):
        raise UsageError(
            f"{file} must hold pictures to train on, got {len(places)} in all.\nGive some the split train."
        )
    return read_listed(file.parent, places, f"images of {file}", reading, [])


def _rows(file: Path) -> list[tuple[int, dict[str, str]]]:
    # With the number of the line, from 1 for the heading.
    try:
        text = read_bytes(file, _MOST_BYTES).decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        heads = [head.strip().lower() for head in reader.fieldnames or ()]
        reader.fieldnames = heads
        rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{file} can't be read as CSV: {error}.\nWrite it in UTF-8, with commas.") from error
    if "path" not in heads or len(set(heads)) < len(heads):
        raise UsageError(
            f"{file} must have in its first line the column path, and may have label and split, each once, separated "
            f"by commas, got {', '.join(heads)[:120] or 'nothing'}.\n"
            f"If it is no list of images, give it another name than {LIST}."
        )
    for line, row in rows:
        if None in row or None in row.values():
            raise UsageError(
                f"{file}, line {line}, must have {len(heads)} values, as its first line has.\n"
                'Put values that hold a comma between quotes: "a,b.png".'
            )
    return rows


def _bad(file: Path, line: int, column: str, must: str, value: str, remedy: str) -> UsageError:
    return UsageError(f"{file}, line {line}, column {column}, must {must}, got {value[-120:]!r}.\n{remedy}.")
