"""A hook of mkdocs: formulas, written in LaTeX between $ or $$, become MathML, which browsers draw without a script."""

import html
import re
from typing import Any

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """Turn each formula that arithmatex has marked into MathML."""
    return FORMULA.sub(_drawn, content)


def _drawn(match: re.Match[str]) -> str:
    tag, bracket, latex = match.groups()
    display = "block" if bracket == "[" else "inline"
    # A reader who copies or hears the formula gets its LaTeX; one that is too wide for the screen can be scrolled.
    label = html.escape(html.unescape(latex).strip(), quote=True)
    drawn = convert(html.unescape(latex), display=display).replace("<math ", f'<math alttext="{label}" ', 1)
    focus = ' tabindex="0"' if display == "block" else ""
    return f'<{tag} class="formula"{focus}>{drawn}</{tag}>'
