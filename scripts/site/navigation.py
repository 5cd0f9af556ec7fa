"""A hook of mkdocs: the site's menu, from the pages that lie in the folders of docs/."""

from typing import Any

SECTIONS = {
    "Lessons": "lessons",
    "Guides": "guides",
    "Models": "models",
    "Tables": "tables",
    "FAQ": "faq.md",
    "API": "api",
}
"""From left to right: a folder, whose pages are listed by their names, or a page. What is not there is left out."""


def on_files(files: Any, config: Any) -> Any:
    """List all pages in the menu."""
    pages = sorted(file.src_uri for file in files.documentation_pages())
    config["nav"] = ["index.md"]
    for title, place in SECTIONS.items():
        if place in pages:
            config["nav"].append({title: place})
        elif inside := tree(place, pages):
            config["nav"].append({title: inside})
    return files


def tree(folder: str, pages: list[str]) -> list[Any]:
    """The pages of a folder, its index first, and below them those of its folders, each under its name."""
    below = [page for page in pages if page.startswith(f"{folder}/")]
    here = [page for page in below if "/" not in page.removeprefix(f"{folder}/")]
    names = sorted({page.removeprefix(f"{folder}/").split("/")[0] for page in below if page not in here})
    return [
        *sorted(here, key=lambda page: (not page.endswith("/index.md"), page)),
        *({name: tree(f"{folder}/{name}", pages)} for name in names),
    ]
