"""The report of the study of colour images: its table, what the samples look like in words, published numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.colour.measure import GAUSSIAN, PRIOR
from experiments.markdown import interval, markdown_table, with_half

NAMES = {"ae": "AE, map", "vae-vector": "VAE, vector", "vae-map": "VAE, map"}
# Name among the numbers, what the table calls it, digits after the point.
ROWS = [
    *(
        row
        for name, words in ((PRIOR, "prior N(0, I)"), (GAUSSIAN, "prior fitted afterwards: Gaussian"))
        for row in (
            (f"bits_per_dim, {name}", f"bits/dim, {words}", 3),
            (f"bits_per_dim_se, {name}", "its standard error over test images", 3),
            (f"kl, {name}", "KL, nats", 1),
        )
    ),
    ("psnr", "PSNR, dB", 2),
    ("ssim", "SSIM", 3),
    *(
        (f"{key}, {name}", f"{words} from {'N(0, I)' if name == PRIOR else 'the fitted Gaussian'}", 3)
        for key, words in (
            ("precision", "precision of samples"),
            ("recall", "recall of samples"),
            ("layout", "neighbour correlation of samples"),
        )
        for name in (PRIOR, GAUSSIAN)
    ),
    ("parameters", "parameters", 0),
    ("steps", "steps", 0),
    ("training_seconds", "seconds of training", 0),
]
_NOTES = """\
On the test images. Bits a dimension: the bound reconstruction + KL in nats, over values an image times ln 2; an AE \
has none. The Gaussian has the mean and the full covariance of the latents of all training images (of the mixture of \
the posteriors): nothing more is trained. Reconstructions: means, decoded from the latent means. Precision and recall: \
in the last hidden layer of a small classifier of the data, where other real images have 0.95. Neighbour correlation: \
of the mean colours of cells side by side, 4 x 4 an image."""
_CORRELATED = 0.3
"""Cells of real images are alike at least so far, where samples that are not are mosaics."""
_ALIKE = 0.75
"""Share of the test images' neighbour correlation that samples must have for them to hang together."""
_REAL_LOOKING = 0.7
"""Precision that reads as praise."""
_MOSAIC = "a mosaic of patches that know little of each other; "
_LAYOUT = "layouts that hang together as those of real images do; "
PUBLISHED = [
    ("multivariate Gaussian, no network: the least that a model must beat", "4.70", "V2"),
    ("VAE of the VQ-VAE paper (van den Oord et al. 2017), 250,000 steps of 128", "4.51", "V2"),
    ("ResNet VAE, factorised Gaussian, depth 4 / 8 / 12 (Kingma et al. 2016)", "3.71 / 3.55 / 3.44", "V2"),
    ("hierarchical VAE of Bit-Swap (Kingma et al. 2019), 2 / 4 / 8 layers", "3.83 / 3.81 / 3.78", "C"),
    ("IAF / BIVA / NVAE / VDVAE (39M parameters, a week on two GPUs)", "3.11 / 3.08 / 2.91 / 2.87", "V2, V"),
]
_MARKS = "V: read in the project's own files; V2: quoted by a third party; C: recomputed. On the 10,000 test images."


def report(
    title: str,
    models: Mapping[str, Sequence[Mapping[str, float]]],
    data: Mapping[str, float],
    sizes: tuple[int, int],
    published: bool,
) -> str:
    """The report in Markdown.

    Args:
        title: what the data is called.
        models: by name, the numbers of each seed.
        data: of the test images themselves: "layout".
        sizes: how many training and test images there are.
        published: whether the published numbers of CIFAR-10 belong beside these.
    """
    rows = []
    for key, words, digits in ROWS:
        cells = [_cell([one[key] for one in each if key in one], digits) for each in models.values()]
        rows += [[words, *cells]] if any(cells) else []
    seeds = len(next(iter(models.values())))
    spread = "One seed." if seeds == 1 else f"Means over {seeds} seeds with 95% intervals (Student's t)."
    parts = [
        f"# Colour images: {title}",
        markdown_table([f"{sizes[0]:,} train, {sizes[1]:,} test images", *(NAMES[name] for name in models)], rows),
        f"{spread} {_NOTES}",
        "\n".join(samples_in_words(models, data["layout"])),
    ]
    if published:
        header = ["published, CIFAR-10, bits/dim", "bits/dim", "source"]
        parts += [markdown_table(header, PUBLISHED), _MARKS]
    return "\n\n".join(parts)


def _cell(values: Sequence[float], digits: int) -> str:
    if not values:
        return ""
    mean, half = interval(values)
    return with_half(mean, half or None, digits)


def samples_in_words(models: Mapping[str, Sequence[Mapping[str, Any]]], real: float) -> list[str]:
    """What samples look like, by their neighbour correlation; `real` is that of test images."""
    lines, fooled = [], 0.0
    for name, each in models.items():
        for source in (PRIOR, GAUSSIAN):
            if f"layout, {source}" in each[0]:
                found, precision = (interval([o[f"{k}, {source}"] for o in each])[0] for k in ("layout", "precision"))
                looks, is_mosaic = "", found < _ALIKE * real
                if real > _CORRELATED:
                    looks, fooled = (_MOSAIC, max(fooled, precision)) if is_mosaic else (_LAYOUT, fooled)
                lines.append(
                    f"- {NAMES[name]}, samples from {'the ' if source == GAUSSIAN else ''}{source}: {looks}neighbour "
                    f"correlation {found:.2f}, of test images {real:.2f}; precision {precision:.2f}."
                )
    if fooled > _REAL_LOOKING:
        lines.append(
            f"- Precision can't tell such a mosaic from real images here: it gives one {fooled:.2f}, and them 0.95. "
            "Its features, those of a small classifier, see too little."
        )
    return [
        *lines,
        "",
        "No number here says whether a sample shows an object: see the sheets. One layer of latents, trained for "
        "minutes on photographs, gives patches or layouts of colour, and no objects.",
    ]
