"""What Python puts into the page, and what it refuses."""

import dataclasses
import json
import re

import numpy as np
import pytest
from PIL import Image, ImageDraw
from untrained import HOSTILE

from vae_jax.data.dataset import Dataset
from vae_jax.data.split import Split
from vae_jax.errors import UsageError
from vae_jax.explore.page import drawing_of, page_of
from vae_jax.explore.records import check_explorable
from vae_jax.measures.anomaly import model_scores
from vae_jax.measures.threshold import Threshold, calibrate
from vae_jax.models.networks import MLPDecoder
from vae_jax.models.posteriors import Householder


def test_names_are_text_and_nothing_else(runs, data):
    text = page_of(runs, [data, data], 3).text
    assert HOSTILE not in text
    assert "<title>a &lt;b&gt; run beside ae: latent space</title>" in text
    record = json.loads(re.search(r'id="record">(.*?)</script>', text)[1])
    assert (record["images"], record["dots"], record["names"][0]) == (3, 359, HOSTILE)
    assert "//" not in re.sub(r"^ *//.*|\S  ?// .*|<script type=.*?</script>", "", text, flags=re.MULTILINE)


def test_a_score_is_ranked_among_validation_images_and_a_threshold_of_the_runs_own_is_kept(runs, digits, tmp_path):
    own, run = Threshold("scaled_error", 0.25, 0.05, 129, 16, 5, 0), runs[0]._replace(path=tmp_path)
    held = digits.validation
    scores = model_scores(run.model, run.params, held.images, run.evaluation_key, samples=1, binarize="none")
    for known in (None, own):
        if known:
            known.write(tmp_path)
        found = page_of([run], [digits], 0).record["runs"][0]["score"]
        name = known.score if known else "relative_error"
        assert (found["name"], found["number"]) == (name, len(held))
        np.testing.assert_allclose(found["validation"], np.sort(scores[name]), rtol=1e-5)
        expected = known.threshold if known else calibrate(scores[name], 0.01)
        assert found["threshold"] == pytest.approx(expected)


class Own(MLPDecoder):
    pass


def test_what_a_page_can_not_compute_is_refused(runs, digits):
    decoder = Own((16,), "gelu", (8, 8, 1))
    own = runs[0]._replace(model=dataclasses.replace(runs[0].model, decoder=decoder))
    with pytest.raises(UsageError, match=r"has the network Own, which a page does not compute.\n.*vae-jax plot"):
        check_explorable(own)
    reflected = dataclasses.replace(runs[0].model, posterior=Householder())
    with pytest.raises(UsageError, match="has the posterior Householder"):
        check_explorable(runs[0]._replace(model=reflected))
    other = Dataset("other", *(Split(255 - split.images, split.labels) for split in digits.splits.values()))
    with pytest.raises(UsageError, match="BESIDE must be a run on the same images"):
        page_of(runs, [digits, other], 1)


def test_weights_that_16_bits_can_not_hold_are_kept_in_32(runs, digits):
    large = {**runs[0].params, "encoder": runs[0].params["encoder"]}
    kernel = np.array(large["decoder"]["Dense_0"]["kernel"])
    kernel[0, 0] = 1e6
    large["decoder"] = {**large["decoder"], "Dense_0": {**large["decoder"]["Dense_0"], "kernel": kernel}}
    page = page_of([runs[0]._replace(params=large)], [digits], 0)
    assert not page.record["runs"][0]["half"]
    assert "by nothing but rounding" in page.in_words()


def stroke(width, *, side=28, scale=8):
    image = Image.new("L", (side * scale, side * scale))
    ImageDraw.Draw(image).line([(9 * scale, 4 * scale), (19 * scale, 24 * scale)], fill=255, width=round(width * scale))
    pixels = np.asarray(image, np.float64).reshape(side, scale, side, scale).mean(axis=(1, 3))
    return np.rint(pixels).astype(np.uint8)[..., None]


@pytest.mark.parametrize("paper", [0, 1])
def test_how_a_drawing_becomes_an_image_is_read_off_the_data(paper):
    images = np.stack([stroke(3), stroke(3)])
    found = drawing_of(255 - images if paper else images)
    assert found["paper"] == paper
    assert found["stroke"] == pytest.approx(3, abs=0.5)
    assert found["box"] == pytest.approx(21, abs=1)
    assert found["by_mass"]
    assert drawing_of(np.zeros((2, 28, 28, 3), np.uint8)) is None
    assert drawing_of(np.zeros((2, 28, 28, 1), np.uint8))["box"] == 0
