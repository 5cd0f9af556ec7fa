"""A hook of mkdocs: what the theme leaves out for readers with a keyboard or a screen reader."""

from typing import Any

NAMELESS = 'class="md-search" data-md-component="search" role="dialog"'


def on_post_page(output: str, **_: Any) -> str:
    """Name the search dialog; what a script adds to the page later is seen to by assets/access.js."""
    return output.replace(NAMELESS, f'{NAMELESS} aria-label="Search"')
