"""The site as it is built: complete, without another host, and readable by keyboard and screen reader."""

import functools
import http.server
import os
import re
import subprocess
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path

import pytest

import vae_jax

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "site"))

import maths  # noqa: E402
import reference  # noqa: E402

LOADING = {("script", "src"), ("img", "src"), ("link", "href"), ("iframe", "src"), ("source", "src"), ("use", "href")}
SEEN = ("index", "lessons/index", "lessons/3_loss", "api/index", "api/models/priors", "api/config")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Built with the lessons in their short form."""
    pytest.importorskip("material", reason="needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "VAE_JAX_QUICK": "1", "VAE_JAX_LESSON_DATA": "digits"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr[-3000:]
    return folder


class Loads(HTMLParser):
    """What a browser fetches for a page."""

    def __init__(self, text):
        super().__init__()
        self.addresses = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        if tag == "link" and named.get("rel") == "canonical":
            return
        self.addresses += [value for name, value in attrs if (tag, name) in LOADING and value]


@pytest.mark.slow
def test_nothing_is_loaded_from_another_host(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 100
    loaded = [(page.name, address) for page in pages for address in Loads(page.read_text()).addresses]
    assert any(address.endswith(".css") for _, address in loaded)
    assert [one for one in loaded if re.match(r"(\w+:)?//", one[1])] == []
    styles = "".join(path.read_text() for path in site.rglob("*.css"))
    assert re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//[^)]*", styles) == []


@pytest.mark.slow
def test_formulas_are_drawn_and_every_public_name_is_there(site):
    loss = (site / "lessons" / "3_loss.html").read_text()
    assert loss.count("<math ") > 20
    assert "arithmatex" not in loss
    listed = (site / "api" / "index.html").read_text()
    for name in vae_jax.__all__:
        place = re.search(rf"<code>vae_jax.{name}</code></a>", listed)
        assert place, name
        page, anchor = re.findall(r'href="([^"#]*)#([^"]*)"', listed[: place.end()])[-1]
        assert anchor.endswith(f".{name}")
        assert f'id="{anchor}"' in (site / "api" / page).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_are_read_by_keyboard_and_screen_reader_at_any_width(site, browser, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python").Axe()
    handler = functools.partial(Quiet, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        home = f"http://127.0.0.1:{server.server_port}/"
        for name in SEEN:
            page, outside = browser.new_page(viewport={"width": width, "height": 844}), []
            page.on("request", lambda request, seen=outside: seen.append(request.url))
            page.goto(f"{home}{name}.html")
            page.wait_for_timeout(500)
            found = {one["id"]: one["nodes"][0]["html"][:200] for one in axe.run(page).response["violations"]}
            assert found == {}, name
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
            assert [address for address in outside if not address.startswith((home, "data:", "blob:"))] == []
            page.close()
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A server that logs nothing."""

    def log_message(self, *_):
        pass


def test_a_public_name_without_a_docstring_is_found():
    griffe = pytest.importorskip("griffe", reason="needs the extra docs")
    code = '"""."""\ndef told():\n    """."""\ndef _own(): ...\nclass Untold:\n    def method(self): ...\n'
    module = griffe.visit("made_up", filepath=Path("made_up.py"), code=code)
    assert reference.undocumented(module) == ["made_up.Untold", "made_up.Untold.method"]


def test_a_formula_becomes_mathml_that_is_also_read_aloud():
    pytest.importorskip("latex2mathml", reason="needs the extra docs")
    drawn = maths.on_page_content(r'<p>a <span class="arithmatex">\(x &lt; \frac{1}{2}\)</span> b</p>')
    assert re.fullmatch(r'<p>a <span class="formula"><math .*<mfrac>.*</math></span> b</p>', drawn)
    assert r'alttext="x &lt; \frac{1}{2}"' in drawn
