"""One HTML file from what a page holds: no server, no request, no word that another site has a say in."""

import base64
import hashlib
import html
import json
import math
import re
from importlib import resources
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import UInt8

from vae_jax.data.dataset import Dataset
from vae_jax.data.split import Split
from vae_jax.domains import shortened
from vae_jax.errors import counted
from vae_jax.explore.records import CHECKED, Record, RunOnPage, check_explorable, check_same_data, in_float32, on_page
from vae_jax.plots.style import COLOURS, MARKERS
from vae_jax.runs.run import Run

SCRIPTS = (
    "arithmetic.js",
    "likelihoods.js",
    "model.js",
    "pictures.js",
    "plane.js",
    "sliders.js",
    "panel.js",
    "own.js",
    "page.js",
)
"""In this order: each uses what stands before it."""
MOST_DOTS = 2000
FEWEST_DOTS = 100
CODE_BYTES = 200_000
"""Of the dots' codes of a run, unless these are the fewest."""
IMAGE_BYTES = 2**18
Images: TypeAlias = UInt8[np.ndarray, "n height width channels"]


def dots_of(runs: list[Run], dataset: Dataset) -> Split:
    """The test images whose codes a page shows: always the same, in an order in which no class hides another."""
    latent = max(run.model.latent_dim for run in runs)
    number = max(FEWEST_DOTS, min(MOST_DOTS, CODE_BYTES // (8 * latent)))
    return dataset.test.rows(np.random.default_rng(0).permutation(len(dataset.test))[:number])


class Page(NamedTuple):
    """A page, and what it says of itself."""

    text: str
    record: Record

    def in_words(self) -> str:
        """What is in it that others may see."""
        held, record = [], self.record
        for run in record["runs"]:
            exact = f"by at most {run['grey_levels']:.2g} of 255 levels" if run["half"] else "by nothing but rounding"
            held.append(f"{run['name']}: what the page decodes differs from Python {exact}, over {CHECKED} latents.")
        held.append(
            f"Whoever has the page has the codes of {counted(record['dots'], 'test image')} and "
            f"{record['images']:,} of the images themselves: think of that before you share it."
        )
        return "\n".join(held)


def page_of(runs: list[Run], datasets: list[Dataset], most_images: int) -> Page:
    """The page of a run, or of two runs on the same data.

    Args:
        runs: one, or two to be shown side by side.
        datasets: of each, as `load_dataset_of` gives it.
        most_images: test images that the page holds; as many as fit in `IMAGE_BYTES`, but at least 8, where it may.

    Raises:
        UsageError: a model that the page can't compute, or runs on different data.
    """
    for run in runs:
        check_explorable(run)
    check_same_data(runs, datasets)
    dataset, dots = datasets[0], dots_of(runs, datasets[0])
    names = [run.path.resolve().name.encode("utf-8", "replace").decode() for run in runs]  # which may be of any bytes
    if len(set(names)) < len(names):
        names = [f"{name} ({letter})" for name, letter in zip(names, "AB", strict=False)]
    held = [on_page(in_float32(run), each, dots, name) for run, each, name in zip(runs, datasets, names, strict=True)]
    number = min(most_images, max(8, IMAGE_BYTES // math.prod(dataset.image_shape)), len(dots))
    images = np.asarray(dots.images[:number])
    record: Record = {
        "dataset": dataset.name,
        **{"shape": dataset.image_shape, "dots": len(dots), "images": number, "tests": len(dataset.test)},
        **_classes(dots, dataset),
        **{"colours": COLOURS, "markers": MARKERS, "runs": [each.record for each in held]},
        "drawing": drawing_of(np.asarray(dots.images)),
        "background": runs[0].config.background,
        "crop": runs[0].config.fit == "crop",
    }
    return Page(_written(record, held, images), record)


def _classes(dots: Split, dataset: Dataset) -> Record:
    if dots.labels is None:
        return {"names": [], "classes": []}
    labels, places = np.unique(dots.labels, return_inverse=True)
    return {"names": [shortened(dataset.name_of(label), 40) for label in labels.tolist()], "classes": places.tolist()}


def drawing_of(images: Images) -> Record | None:
    """How a drawing becomes an image like these, in pixels; None for images in colour.

    "paper" is the level around them, 0 or 1, and "stroke" the width of a line: twice its area over its outline. Where
    nearly all of them are as large, the larger side of a drawing becomes "box", and it goes to the middle: of its mass
    as in MNIST, or of its sides. Elsewhere it stays as it was drawn, and the box is 0.
    """
    _, height, width, channels = images.shape
    if channels > 1 or min(height, width) < 5:
        return None
    pixels = images[..., 0] / np.float64(255)
    border = np.concatenate([pixels[:, 0], pixels[:, -1], pixels[:, :, 0], pixels[:, :, -1]], axis=1)
    paper = int(np.median(border) > 0.5)
    ink = np.abs(pixels - paper)
    ink = ink[ink.sum(axis=(1, 2)) > 1]
    if not len(ink):
        return {"paper": paper, "stroke": min(height, width) / 12, "box": 0.0, "by_mass": False}
    area, (down, across) = ink.sum(axis=(1, 2)), np.gradient(ink, axis=(1, 2))
    larger = np.maximum(*(np.sum(ink.max(axis=axis) > 0.1, axis=1) for axis in (1, 2)))
    few, many = np.percentile(larger, (10, 90))
    rows = (ink.sum(axis=2) @ np.arange(height)) / area
    return {
        "paper": paper,
        "stroke": float(np.median(2 * area / np.hypot(down, across).sum(axis=(1, 2)))),
        "box": float(np.median(larger)) if many - few <= max(height, width) / 10 else 0.0,
        "by_mass": bool(np.std(rows) < height / 40),
    }


def _written(record: Record, held: list[RunOnPage], images: Images) -> str:
    folder = resources.files("vae_jax.explore")
    text = {name: (folder / name).read_text("utf-8") for name in ("page.html", "page.css", *SCRIPTS)}
    script = "\n".join(['"use strict";', *(text[name] for name in SCRIPTS)])
    blocks = {"images": images.tobytes()}
    for place, each in enumerate(held):
        blocks |= {f"weights-{place}": each.weights, f"codes-{place}": each.codes}
    data = [f'<script type="text/plain" id="{name}">{_base64(block)}</script>' for name, block in blocks.items()]
    # A name that holds </script> must not end it.
    plain = json.dumps(record, allow_nan=False).replace("<", "\\u003c")
    data.append(f'<script type="application/json" id="record">{plain}</script>')
    parts: dict[str, Any] = {
        "title": html.escape(f"{' beside '.join(each.record['name'] for each in held)}: latent space"),
        "policy": "default-src 'none'; base-uri 'none'; form-action 'none'; "
        f"script-src {_digest(script)}; style-src {_digest(text['page.css'])}",
        **{"style": text["page.css"], "data": "\n".join(data), "script": script},
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], text["page.html"])


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _digest(text: str) -> str:
    return f"'sha256-{_base64(hashlib.sha256(text.encode()).digest())}'"
