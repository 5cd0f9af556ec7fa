"""The house: which room imports which. No circle, no arrow back up, no study that another leans on."""

import ast
import functools
from pathlib import Path

ROOT = Path(__file__).parents[1]
FLOORS = [
    {"errors", "_xla", "files", "archives", "registry", "domains", "config", "combinations"},
    *({"data"}, {"models"}, {"training"}, {"runs"}, {"measures"}, {"codecs", "exports", "sklearn"}),
    *({"plots"}, {"explore"}, {"cli"}),
]
"""From the ground up; plots leans on files alone."""


@functools.cache
def modules():
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(path.read_text())
        for folder in ("vae_jax", "experiments")
        for path in (ROOT / folder).rglob("*.py")
    }


def imports(tree, known):
    """The modules of this project that a module names, also within functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in known else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def floor(module):
    parts = module.split(".")
    if parts[0] == "experiments":
        return len(FLOORS) + (len(parts) > 1 and parts[1] not in ("flags", "study", "markdown"))
    return next((i for i, rooms in enumerate(FLOORS) if len(parts) > 1 and parts[1] in rooms), None)


@functools.cache
def arrows():
    known = modules()
    return {(a, b) for a, tree in known.items() for b in imports(tree, known) if b in known and a != b}


def test_no_arrow_runs_back_up():
    up = [(a, b) for a, b in arrows() if None not in (floor(a), floor(b)) and floor(b) > floor(a)]
    assert up == []
    assert all(floor(b) == 0 or b.split(".")[1] == "plots" for a, b in arrows() if a.startswith("vae_jax.plots."))


def test_there_is_no_circle():
    left = arrows()
    while True:
        sources = {a for a, _ in left}
        kept = {(a, b) for a, b in left if b in sources}
        if kept == left:
            break
        left = kept
    assert left == set()


def test_what_one_study_has_no_other_uses():
    def study(module):
        return module.split(".")[1] if module.startswith("experiments.") else None

    shared = {"flags", "study", "markdown", "contestants", None}
    writer = "experiments.results"  # of the README's tables, from all of them
    assert [(a, b) for a, b in arrows() if study(b) not in {*shared, study(a)} and not a.startswith(writer)] == []


def test_modules_are_named_for_what_they_hold():
    names = {name.rpartition(".")[2] for name in modules()}
    assert not names & {"utils", "helpers", "common", "misc"}
    assert [name for name in modules() if name.startswith("experiments") and "._" in name.replace("__main__", "")] == []
