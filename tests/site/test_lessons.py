"""The lessons run, and what they claim holds: in a short form; in the slow tests in full, and built into a site."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "site"))

import lessons  # noqa: E402

LESSONS = sorted((ROOT / "docs" / "lessons").glob("*.py"))


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_holds_in_its_short_form(path, monkeypatch):
    monkeypatch.setenv("VAE_JAX_QUICK", "1")
    monkeypatch.delenv("VAE_JAX_LESSON_DATA", raising=False)
    check(lessons.run(path))


def check(ran):
    words = [cell.text for cell, output in ran if output is None]
    figures = [figure for _, output in ran if output for figure in output.figures]
    assert words[0].startswith("# ")
    assert "## Exercises" in words[-1]
    assert words[-1].count("<details markdown") == 1
    assert sum(cell.text.count("assert ") for cell, output in ran if output) >= 3
    assert len(figures) >= 2
    assert all(map(lessons.described, figures))
