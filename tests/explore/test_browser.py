"""The page in a real browser: what it decodes, what pointer and keys do, and that nothing leaves it."""

import contextlib
import re

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from untrained import made

from vae_jax.data.dataset import Dataset
from vae_jax.data.split import Split
from vae_jax.explore.page import page_of
from vae_jax.explore.records import grey_levels, latents_to_check


@pytest.fixture(scope="module")
def written(runs, data, tmp_path_factory):
    """The page of both runs."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(page_of(runs, [data, data], 256).text, "utf-8")
    return path


@contextlib.contextmanager
def opened(browser, path, **options):
    """A page; at the end it has asked for nothing and complained of nothing."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, "offline": True, **options})
    page, said, asked = context.new_page(), [], []
    # That the tests read what is drawn is not the page's doing.
    page.on("console", lambda message: "willReadFrequently" in message.text or said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    wait_for(page, "window.explorer")
    yield page
    page.wait_for_timeout(200)  # what is still to be decoded
    assert said == []
    assert asked == [path.as_uri()]
    context.close()


@pytest.fixture
def page(browser, written):
    with opened(browser, written) as page:
        yield page


def plane_of(page, place=0):
    return page.locator('[data-part="plane"]').nth(place)


def settled(page):
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def wait_for(page, condition):
    """Until it holds: the page's policy forbids what playwright waits by."""
    for _ in range(200):
        if page.evaluate(f"Boolean({condition})"):
            return
        page.wait_for_timeout(25)
    pytest.fail(f"{condition} came never true")


def z_of(page, place=0):
    return np.array(page.evaluate(f"Array.from(window.explorer.panels[{place}].z)"))


def image_of(page, part, place=0):
    """The grey levels of a canvas."""
    return np.array(
        page.evaluate(
            """([part, place]) => {
            const canvas = document.querySelectorAll(`[data-part="${part}"]`)[place];
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            const rows = Array.from({ length: canvas.height }, (_, i) =>
              Array.from({ length: canvas.width }, (_, j) => data[4 * (i * canvas.width + j)]));
            return rows;
            }""",
            [part, place],
        )
    )


def levels(images):
    return np.rint(255 * np.clip(images, 0, 1))[..., 0]


def test_pixels_are_those_of_python(page, runs, data):
    for place, run in enumerate(runs):
        codes = run.encode(data.test.images)
        latents, record = latents_to_check(codes), page.evaluate(f"window.explorer.panels[{place}].record")
        found = page.evaluate(
            """([place, latents]) => {
            const { model } = window.explorer.panels[place];
            return latents.map((z) => Array.from(model.decode(Float32Array.from(z))));
            }""",
            [place, latents.tolist()],
        )
        images = np.clip(run.decode(latents), 0, 1)
        difference = 255 * np.abs(np.clip(np.reshape(found, images.shape), 0, 1) - images).max()
        assert difference == pytest.approx(grey_levels(run, latents), abs=1e-3)
        assert difference < 1
        assert record["half"]
        assert f"{record['grey_levels']:.2g}" in page.locator('[data-part="exact"]').nth(place).inner_text()


def test_the_pointer_decodes_where_it_is_and_chooses_what_is_near(page, runs):
    plane, run = plane_of(page), runs[0]
    box = plane.bounding_box()
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.6 * box["height"])
    settled(page)
    z, axes = z_of(page), page.evaluate("window.explorer.panels[0].plane.axes")
    (left, right), (bottom, top) = page.evaluate("window.explorer.panels[0].plane.view")
    expected = [left + 0.3 * (right - left), top - 0.6 * (top - bottom)]
    np.testing.assert_allclose(z[axes], expected, atol=0.02)
    assert z[[i for i in range(3) if i not in axes]] == 0
    assert np.abs(image_of(page, "decoded") - levels(run.decode(z[None]))[0]).max() <= 1
    of_dots = "window.explorer.page.classes.map((_, i) => window.explorer.panels[0].plane.placeOf(i))"
    places = np.array(page.evaluate(of_dots))
    distances = np.linalg.norm(places[:256, None] - places[None], axis=-1)
    lonely = int(np.sort(distances, axis=1)[:, 1].argmax())
    page.mouse.click(*(places[lonely] + (box["x"] + 1, box["y"] + 1)))  # the border
    settled(page)
    chosen = page.evaluate("window.explorer.panels[0].chosen.dot")
    assert chosen == lonely
    held = page.evaluate(f"Array.from(window.explorer.panels[0].images[{chosen}])")
    code = run.encode(np.rint(255 * np.reshape(held, (1, 8, 8, 1))).astype(np.uint8))
    np.testing.assert_allclose(z_of(page), code.means[0], atol=1e-5)
    np.testing.assert_array_equal(image_of(page, "held-image"), np.rint(255 * np.reshape(held, (8, 8))))
    assert "±" in page.locator('[data-part="chosen"]').first.inner_text()


def test_keys_move_the_pointer_choose_a_dot_and_set_a_way(page):
    plane = plane_of(page)
    plane.focus()
    start = z_of(page)
    unit = page.evaluate("window.explorer.panels[0].plane.view.map(([low, high]) => (high - low) / 80)")
    axes = page.evaluate("window.explorer.panels[0].plane.axes")
    for keys, moved in ((["ArrowRight", "ArrowUp"], (1, 1)), (["Shift+ArrowLeft", "ArrowDown"], (-7, 0))):
        for key in keys:
            page.keyboard.press(key)
        np.testing.assert_allclose((z_of(page) - start)[axes], np.multiply(moved, unit), rtol=1e-4, atol=1e-6)
    page.keyboard.press("a")
    page.keyboard.press("Enter")
    assert page.evaluate("window.explorer.panels[0].chosen.dot") >= 0
    page.keyboard.press("b")
    ends = np.array(page.evaluate("window.explorer.panels[0].ends.map((end) => Array.from(end))"))
    page.locator('input[data-part="way"]').first.fill("0.25")
    np.testing.assert_allclose(z_of(page), 0.75 * ends[0] + 0.25 * ends[1], atol=1e-6)
    assert image_of(page, "way-images").shape == (8, 9 * 8)
    plane.focus()
    page.keyboard.press("g")
    wait_for(page, "window.explorer.panels[0].plane.picture")
    page.keyboard.press("Escape")
    assert page.evaluate("window.explorer.panels[0].chosen") is None


def test_everything_is_reached_by_tab_and_has_a_name(page):
    number = page.evaluate("document.querySelectorAll('button, input, select, summary, [tabindex]').length")
    reached = set()
    for _ in range(number):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "(({ activeElement: e }) => "
                "[e.tagName, e.dataset.part ?? e.id, e.ariaLabel ?? e.textContent].join(' '))(document)"
            )
        )
    for word in (
        "CANVAS plane Latent plane of a <b> run",
        "CANVAS pad Drawing pad",
        "SELECT up",
        "INPUT file",
        "BUTTON A",
    ):
        assert any(each.startswith(word) for each in reached), (word, reached)


def test_sliders_move_one_dimension_the_most_informative_first(page, runs, data):
    order = runs[0].encode(data.test.images).order()
    assert page.evaluate("window.explorer.panels[0].record.dimensions.map((each) => each.index)") == order.tolist()
    assert page.evaluate("window.explorer.panels.map((panel) => Boolean(panel.sliders))") == [True, False]
    slider = page.locator('.row input[type="range"]').nth(1)
    slider.focus()
    before = z_of(page)
    page.keyboard.press("ArrowRight")
    moved = z_of(page) - before
    assert np.flatnonzero(moved).tolist() == [order[1]]
    strip = "document.querySelector('.row canvas').getContext('2d')"
    wait_for(page, f"{strip}.getImageData(55, 7, 1, 1).data[3]")  # the last pixel of seven images
    page.locator('[data-part="up"]').first.select_option("2")
    assert page.evaluate("window.explorer.panels[0].plane.axes") == [order[0], order[2]]


def test_classes_are_hidden_and_shown_and_their_names_are_no_markup(page):
    keys = page.locator("#keys button")
    assert keys.count() == 10
    assert keys.first.inner_text().strip().startswith("</script><script>window.bad")
    assert page.evaluate("window.bad === undefined")
    keys.nth(3).click()
    assert keys.nth(3).get_attribute("aria-pressed") == "false"
    assert page.evaluate("Array.from(window.explorer.panels[1].hidden)") == [3]
    page.locator("#none").click()
    plane_of(page).focus()
    page.keyboard.press("Enter")
    assert page.evaluate("window.explorer.panels[0].chosen === undefined")
    page.locator("#all").click()
    assert page.evaluate("window.explorer.panels[0].hidden.size") == 0


def seen_by(page):
    return np.array(page.evaluate("Array.from(window.explorer.own.image)")).reshape(1, 8, 8, 1)


def test_a_drawing_is_encoded_rebuilt_and_judged(page, runs, data):
    pad = page.locator('[data-part="pad"]')
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    assert page.locator(".result").first.is_hidden()
    page.mouse.move(box["x"] + 90, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 130, box["y"] + 220, steps=5)
    page.mouse.up()
    settled(page)
    image = seen_by(page)
    assert image.max() > 0.8
    assert abs(np.argwhere(image[0, ..., 0] > 0.3).mean(axis=0) - 3.5).max() < 0.8  # in the middle
    for place, run in enumerate(runs):
        posterior = run.model.encode(run.params, jnp.float32(image))
        np.testing.assert_allclose(z_of(page, place), posterior.mean[0], atol=0.01)
        rebuilt = run.decode(np.asarray(posterior.mean))
        assert np.abs(image_of(page, "rebuilt", 2 + place) - levels(rebuilt)[0]).max() <= 2
        rows = page.locator(".result").nth(place).locator("tbody tr").all_inner_texts()
        terms = {name: float(own.replace("−", "-")) for name, own, _ in (row.split("\t") for row in rows)}
        loss = run.model.likelihood.reconstruction_loss
        if place == 0:
            sigma = np.exp(0.5 * np.asarray(posterior.logvar))
            z = posterior.mean + sigma * np.random.default_rng(0).normal(size=(4000, 3))
            each = loss(run.model.decode(run.params, jnp.float32(z)), jnp.repeat(jnp.float32(image), 4000, axis=0))
            error = 5 * float(np.std(each)) / 4 + 0.1  # of 16 samples, and of rounding
            assert terms["reconstruction"] == pytest.approx(float(np.mean(each)), abs=error)
            assert terms["KL"] == pytest.approx(float(posterior.kl()[0]), abs=0.1)
            assert terms["loss"] == pytest.approx(terms["reconstruction"] + terms["KL"], abs=0.11)
        else:
            assert list(terms) == ["reconstruction"]
        said = page.locator(".result").nth(place).locator('[data-part="rank"]').inner_text()
        assert re.match(r"Score \(relative error\): \d", said)
        error = np.sum((image - rebuilt) ** 2) / np.sum(image**2)
        assert float(re.search(r": ([\d.]+),", said)[1]) == pytest.approx(error, rel=0.02)
    nearest = page.locator('[data-part="nearest-said"]').first.inner_text()
    assert nearest.count(",") == 4
    page.locator('[data-part="clear"]').click()
    assert page.locator(".result").first.is_hidden()


def test_one_draws_by_keyboard_too(page):
    page.locator('[data-part="pad"]').focus()
    page.keyboard.press("Space")
    for _ in range(8):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    settled(page)
    image = seen_by(page)[0, ..., 0]
    assert image.sum(axis=0).argmax() in (3, 4)
    assert page.locator(".result").first.is_visible()


def test_a_picture_is_taken_as_it_is_and_what_is_none_is_refused(page, data, tmp_path):
    Image.fromarray(data.test.images[3, ..., 0]).save(tmp_path / "three.png")
    (tmp_path / "none.png").write_text("no picture")
    page.locator('[data-part="file"]').set_input_files(tmp_path / "three.png")
    wait_for(page, "window.explorer.own.image")
    np.testing.assert_allclose(255 * seen_by(page)[0], data.test.images[3], atol=1e-3)
    page.locator('[data-part="file"]').set_input_files(tmp_path / "none.png")
    wait_for(page, "document.querySelector('#own [data-part=said]').textContent.includes('no picture')")


def test_it_fits_a_phone(browser, written):
    with opened(browser, written, viewport={"width": 390, "height": 800}, has_touch=True) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        box = plane_of(page).bounding_box()
        page.touchscreen.tap(box["x"] + 50, box["y"] + 60)
        settled(page)
        assert np.abs(z_of(page)).max() > 1


RARE = {
    "colour-without-labels": ((8, 8, 3), {"arch": "conv", "hidden_sizes": (4,), "latent_dim": 1}),
    "a-map-with-classes": (
        (8, 8, 1),
        {"arch": "residual", "hidden_sizes": (4,), "latent_dim": 20, "condition": "labels", "binarize": "dynamic"},
    ),
}


@pytest.mark.parametrize("name", ["a-map-with-classes", pytest.param("colour-without-labels", marks=pytest.mark.slow)])
def test_it_opens_for_rare_runs(name, browser, digits, tmp_path):
    shape, settings = RARE[name]
    labelled, run = "condition" in settings, made(tmp_path, shape, **settings)
    parts = {part: split.rows(slice(40)) for part, split in digits.splits.items()}
    images = {part: np.repeat(split.images, shape[-1], axis=3) for part, split in parts.items()}
    data = Dataset(
        "rare", **{part: Split(images[part], split.labels if labelled else None) for part, split in parts.items()}
    )
    (tmp_path / "page.html").write_text(page_of([run], [data], 256).text, "utf-8")
    with opened(browser, tmp_path / "page.html") as page:
        plane_of(page).focus()
        page.keyboard.press("Enter")
        settled(page)
        page.locator('#own [data-part="chosen"]').click()
        settled(page)
        panel = page.evaluate("(({ chosen, label }) => [Array.from(chosen.mean), label])(window.explorer.panels[0])")
        label = run.model.classes[panel[1]] if labelled else None
        expected = np.clip(run.decode(np.float32([panel[0]]), label and [label]), 0, 1)
        found = page.evaluate("Array.from(window.explorer.panels[0].image)")
        assert np.abs(255 * (np.reshape(found, shape) - expected[0])).max() < 1
        assert page.locator(".result").is_visible()
        assert page.locator('[data-part="pad"]').is_visible() == (shape[-1] == 1)
        assert page.locator(".row").count() == (16 if labelled else 0)
        assert page.locator("#legend").is_visible() == labelled
