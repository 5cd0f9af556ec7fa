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


@pytest.mark.slow
@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_holds_in_full(path, monkeypatch):
    monkeypatch.delenv("VAE_JAX_QUICK", raising=False)
    monkeypatch.setenv("VAE_JAX_LESSON_DATA", "digits")
    check(lessons.run(path))


def test_what_a_cell_prints_returns_and_draws_stands_below_it(tmp_path):
    path = tmp_path / "made_up.py"
    path.write_text(
        "# left out\n# %% [markdown]\n# # Title\n#\n# words\n\n# %%\nfrom matplotlib.figure import Figure\n\na = 1\n"
        'print("said")\na + 1\n# %%\nfigure = Figure()\nfigure.suptitle("a [circle]")\nfigure\n'
    )
    page, pictures = lessons.written(path, path.read_text())
    assert page.startswith("# Title\n\nwords\n\n```python\nfrom matplotlib")
    assert ".output }\nsaid\n2\n```" in page
    assert "![a  circle ](made_up_1.png)" in page
    assert pictures["made_up_1.png"].startswith(b"\x89PNG")
    assert "left out" not in page


def test_a_claim_that_fails_names_the_line_of_the_lesson(tmp_path):
    path = tmp_path / "made_up.py"
    path.write_text("# %%\na = 1\n\n# %%\n# of what was said\nassert a == 2\n")
    with pytest.raises(AssertionError) as caught:
        lessons.run(path)
    last = caught.traceback[-1]
    assert (Path(last.path), last.lineno + 1) == (path, 6)
