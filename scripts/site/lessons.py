"""A hook of mkdocs: the lessons, Python files of cells in jupytext's percent form, run and written as pages.

A cell's printed text, and its last expression as in a notebook, stand below it; figures become pictures. A cell that
raises, as by an `assert` of what the lesson claims, ends the build. The tests run the same cells by `run`.
"""

import ast
import contextlib
import functools
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

MARK = re.compile(r"^# %%(?P<markdown> \[markdown\])?.*$", re.MULTILINE)


class Cell(NamedTuple):
    """A piece of a lesson."""

    is_code: bool
    text: str
    line: int
    """The number of its first line, from 0."""


class Output(NamedTuple):
    """What a cell gave."""

    text: str
    figures: list[Any]


def cells(text: str) -> Iterator[Cell]:
    """The cells of a file; what stands before the first mark is none."""
    marks = list(MARK.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    for mark, end in zip(marks, ends, strict=True):
        body, line = text[mark.end() + 1 : end], text.count("\n", 0, mark.end()) + 1
        if mark["markdown"]:
            yield Cell(False, re.sub(r"^# ?", "", body, flags=re.MULTILINE).strip(), line)
        elif body.strip():
            yield Cell(True, body.rstrip(), line)


def run(path: Path) -> list[tuple[Cell, Output | None]]:
    """Run all cells of a lesson, one after the other, with what each of code gave."""
    names: dict[str, Any] = {"__name__": path.stem}
    return [(cell, _run(cell, path, names) if cell.is_code else None) for cell in cells(path.read_text())]


def _run(cell: Cell, path: Path, names: dict[str, Any]) -> Output:
    from matplotlib.figure import Figure

    tree = ast.increment_lineno(ast.parse(cell.text), cell.line)  # so that a traceback names the line of the file
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    value, printed = None, io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, path, "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), path, "eval"), names)
    figures = [value] if isinstance(value, Figure) else []
    shown = "" if value is None or figures else repr(value)
    return Output(printed.getvalue() + shown, figures)


def on_files(files: Any, config: Any) -> Any:
    """Add a page for each lesson, and its pictures; the file itself can be had from the page."""
    from mkdocs.structure.files import File

    lessons = Path(config["docs_dir"], "lessons")
    for path in sorted(lessons.glob("*.py")):
        page, pictures = written(path, path.read_text())
        for name, content in {f"{path.stem}.md": page, **pictures}.items():
            files.append(File.generated(config, f"lessons/{name}", content=content))
    return files


@functools.cache
def written(path: Path, text: str) -> tuple[str, dict[str, bytes]]:
    """The page of a lesson in Markdown, and its pictures by name; `text` is what the file holds."""
    parts, pictures = [], {}
    for cell, output in run(path):
        if output is None:
            parts.append(cell.text)
            continue
        parts.append(f"```python\n{cell.text.strip()}\n```")
        if output.text.strip():
            parts.append(f"``` {{ .text .output }}\n{output.text.rstrip()}\n```")
        for figure in output.figures:
            name = f"{path.stem}_{len(pictures) + 1}.png"
            pictures[name] = _png(figure)
            parts.append(f"![{described(figure)}]({name})")
    parts.append(f"[This lesson as a Python file]({path.name}), which Jupyter opens as a notebook through jupytext.")
    return "\n\n".join(parts) + "\n", pictures


def described(figure: Any) -> str:
    """What a figure shows, for those who do not see it: its titles."""
    titles = [figure.get_suptitle(), *(axes.get_title() for axes in figure.axes)]
    words = "; ".join(dict.fromkeys(title for title in titles if title))
    assert words, "A figure of a lesson must have a title: it is read to those who do not see it."
    return re.sub(r"[\[\]\n$]", " ", words)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
