"""The rate-distortion curves of the study experiments.compression: measured, drawn, put into words."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.compression.figures import Curve, Row, compressed, rate_distortion
from experiments.study import markdown_table
from vae_jax import plots
from vae_jax.cli.figures import DISPLAY_NAMES
from vae_jax.codecs import container
from vae_jax.codecs.entropy_coding import encode_symbols
from vae_jax.codecs.image_codecs import LinearModel, cut_mosaic, mosaic, most_in_mosaic, rate_at, through_pillow
from vae_jax.codecs.lossy import QUALITIES, Codec, psnr, quantise, step_of
from vae_jax.data.dataset import Dataset
from vae_jax.models.evaluation import encode_images
from vae_jax.runs.run import Run

FORMATS = {"JPEG": (1, 5, 10, 20, 30, 50, 70, 85, 95), "WebP": (0, 2, 5, 10, 20, 40, 60, 80, 95)}
ALONE = 100
"""Images that are also compressed each to a file of its own."""
SHOWN = 10
SHOWN_QUALITY = 5


class Point(NamedTuple):
    """One setting of one codec."""

    setting: int
    bits_per_pixel: float
    psnr: float
    psnr_of_mean_mse: float
    alone: float
    """Bits per pixel of the first images, each a file of its own; without our header."""
    alone_psnr: float
    images: np.ndarray
    """The first few, decoded."""


@dataclasses.dataclass(frozen=True)
class Results:
    """All curves by name, ours first, and lossless rates."""

    originals: np.ndarray
    number: int
    curves: dict[str, list[Point]]
    ours: list[str]
    lossless: dict[str, float]
    classes: dict[str, int]

    def curve(self, name: str, alone: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Bits per pixel and PSNR of the points."""
        points = self.curves[name]
        pairs = [(p.alone, p.alone_psnr) if alone else (p.bits_per_pixel, p.psnr) for p in points]
        rates, psnrs = np.array(pairs).T
        return rates, psnrs

    def numbers(self) -> dict[str, Any]:
        """What goes into summary.json."""
        fields = [name for name in Point._fields if name != "images"]
        curves = {n: {f: [getattr(p, f) for p in points] for f in fields} for n, points in self.curves.items()}
        factors = {name: equal_quality(self, name) for name in self.ours}
        return {
            "images": self.number,
            "curves": curves,
            "at_equal_psnr": factors,
            "lossless": self.lossless,
            "classes": self.classes,
            "header_bytes": container.HEADER_BYTES,
        }


def measure(runs: Mapping[str, Run], dataset: Dataset) -> Results:
    """Compress the test images in every way."""
    images = dataset.test.images[: most_in_mosaic(dataset.image_shape)]
    curves, classes = {}, {}
    for name, run in runs.items():
        codec = _codec_of(run, dataset)
        curves[name] = _run_curve(run, codec, images)
        classes[name] = int(codec.prior(1).classes.size)
    dim = next(iter(runs.values())).model.latent_dim
    most = min(images[0].size, len(dataset.train.images))
    for dimensions in sorted({min(dim, most), min(4 * dim, most)}):
        linear = LinearModel.fit(dataset.train.images, dataset.validation.images, dimensions)
        curves[f"PCA, {dimensions} dimensions"] = _pca_curve(linear, images)
    for name in FORMATS:
        curves[name] = _format_curve(name, images)
    picture = mosaic(images)
    sizes = {name: through_pillow(picture, name.upper(), None)[0] for name in ("PNG", "WebP")}
    lossless = {f"{name} lossless": 8 * size / _pixels(images) for name, size in sizes.items()}
    return Results(images[:SHOWN], len(images), curves, list(runs), lossless, classes)


def _point(
    setting: int, images: np.ndarray, decoded: np.ndarray, size: int, sizes: list[int], decoded_alone: np.ndarray
) -> Point:
    each, some = psnr(images, decoded), images[: len(sizes)]
    rate, alone = 8 * size / _pixels(images), 8 * sum(sizes) / _pixels(some)
    of_mean = -10 * np.log10(np.mean(10 ** (-each / 10)))
    alone_psnr = float(np.mean(psnr(some, decoded_alone)))
    return Point(setting, rate, float(np.mean(each)), float(of_mean), alone, alone_psnr, decoded[:SHOWN])


def _pixels(images: np.ndarray) -> int:
    return images.shape[0] * images.shape[1] * images.shape[2]


def _codec_of(run: Run, dataset: Dataset) -> Codec:
    path = container.codec_path(run)
    if path.exists():
        return container.read_codec(path, run.model.latent_dim)
    codec = container.fit_codec_of(run, dataset.train.images, dataset.validation.images)
    container.write_codec(path, codec)
    return codec


def _run_curve(run: Run, codec: Codec, images: np.ndarray) -> list[Point]:
    points = []
    codes, _ = encode_images(run.model, run.params, images[:ALONE], run.evaluation_key, binarize=run.config.binarize)
    for quality in QUALITIES:
        content = container.compress(run, codec, images, quality)
        decoded = container.decompress(run, codec, content)
        symbols = quantise(codes, codec.transform, step_of(quality))
        sizes = [len(encode_symbols(symbols[i : i + 1], codec.prior(quality))) for i in range(len(symbols))]
        points.append(_point(quality, images, decoded, len(content), sizes, decoded[:ALONE]))
    return points


def _pca_curve(linear: LinearModel, images: np.ndarray) -> list[Point]:
    points = []
    for quality in QUALITIES:
        prior, symbols = linear.codec.prior(quality), linear.encode(images, quality)
        size = container.HEADER_BYTES + len(encode_symbols(symbols, prior))
        decoded = linear.decode(symbols, quality, images.shape[1:])
        sizes = [len(encode_symbols(symbols[i : i + 1], prior)) for i in range(len(images[:ALONE]))]
        points.append(_point(quality, images, decoded, size, sizes, decoded[:ALONE]))
    return points


def _format_curve(name: str, images: np.ndarray) -> list[Point]:
    picture, points = mosaic(images), []
    for quality in FORMATS[name]:
        size, decoded = through_pillow(picture, name.upper(), quality)
        alone = [through_pillow(image, name.upper(), quality) for image in images[:ALONE]]
        decoded = cut_mosaic(decoded, len(images), images.shape[1:])
        sizes = [size for size, _ in alone]
        points.append(_point(quality, images, decoded, size, sizes, np.stack([image for _, image in alone])))
    return points


def equal_quality(results: Results, ours: str) -> list[dict[str, float | None]]:
    """For each of our points: our bits per pixel, and those of the others at its PSNR (None beyond their ends)."""
    pca = [name for name in results.curves if name.startswith("PCA")]
    rows: list[dict[str, float | None]] = []
    for point in results.curves[ours]:
        rates = {name: rate_at(point.psnr, *results.curve(name)) for name in results.curves if name not in results.ours}
        reached = [rate for name in pca if (rate := rates.pop(name)) is not None]
        rates["PCA"] = min(reached) if reached else None
        rows.append({"quality": point.setting, "psnr": point.psnr, ours: point.bits_per_pixel, **rates})
    return rows


def report(results: Results, dataset: Dataset) -> str:
    """The tables in Markdown."""
    shape = " x ".join(map(str, dataset.image_shape))
    parts = [
        f"# Lossy compression: {dataset.name}",
        f"{results.number:,} test images, {shape}. PSNR is the mean over the images of each image's own, in dB.",
        "Ours and PCA: one file with its header (PCA by the same coder, with its prior fitted in the same way). JPEG "
        "and WebP: one file too, all images edge to edge in one picture, so that headers and tables cost next to "
        "nothing. The trained model, the PCA basis and the priors are not counted: they are the decoder's.",
    ]
    for name in results.ours:
        parts += [f"## {name}, bits per pixel at equal PSNR", _equal_table(results, name), _summary(results, name)]
    parts += ["## Every image a file of its own, bits per pixel at equal PSNR", _alone_table(results)]
    rates = ", ".join(f"{name} {rate:.3f}" for name, rate in results.lossless.items())
    parts.append(f"For reference, in one picture: {rates} bits per pixel.")
    return "\n\n".join(parts)


def _equal_table(results: Results, ours: str) -> str:
    rows, others = [], ("JPEG", "WebP", "PCA")
    for row, point in zip(equal_quality(results, ours), results.curves[ours], strict=True):
        cells = [
            f"{point.setting}",
            f"{point.psnr:.2f}",
            f"{point.psnr_of_mean_mse:.2f}",
            f"{point.bits_per_pixel:.4f}",
        ]
        rows.append(cells + [_times(row[name], point.bits_per_pixel) for name in others])
    heads = [f"{name} (times ours)" for name in others]
    table = markdown_table(["quality", "PSNR", "PSNR of mean MSE", "ours", *heads], rows)
    return f"{table}\n\nA dash: the format can't be made so small, or (PCA) so good."


def _times(rate: float | None, ours: float) -> str:
    return "–" if rate is None else f"{rate:.4f} ({rate / ours:.2f})"


def _summary(results: Results, ours: str) -> str:
    lines = []
    for name in ("JPEG", "WebP", "PCA"):
        ratios = [r[name] / r[ours] for r in equal_quality(results, ours) if r[name] and r[ours]]  # type: ignore[operator]
        if ratios:
            lines.append(f"{name} takes {min(ratios):.2f} to {max(ratios):.2f} times the bits of the {ours}.")
    best = results.curves[ours][-1]
    lines.append(
        f"The {ours} ends at {best.psnr:.1f} dB, however many bits are spent: the decoder's own error remains. "
        "Above that, JPEG and WebP win."
    )
    return " ".join(lines)


def _alone_table(results: Results) -> str:
    rows = []
    for name in results.ours:
        for point in results.curves[name]:
            header = 8 * container.HEADER_BYTES / (results.originals[0].size / results.originals.shape[-1])
            own = [f"{point.alone:.4f}", f"{point.alone + header:.4f}"]
            rates = [rate_at(point.alone_psnr, *results.curve(other, alone=True)) for other in ("JPEG", "WebP")]
            cells = ["–" if rate is None else f"{rate:.4f}" for rate in rates]
            rows.append([f"{name}, quality {point.setting}", f"{point.alone_psnr:.2f}", *own, *cells])
    head = ["the first 100 images" if ALONE == 100 else "", "PSNR", "ours, payload", "with header", "JPEG", "WebP"]
    return markdown_table(head, rows)


def draw(results: Results, folder: Path, dataset: str) -> None:
    """The two figures."""
    folder.mkdir(exist_ok=True)
    name = DISPLAY_NAMES.get(dataset, dataset)
    curves = {label: Curve(*results.curve(label)) for label in results.curves}
    title = f"{name} · lossy compression of {results.number:,} test images, all in one file"
    plots.save(rate_distortion(curves, results.lossless, title), folder / "rate_distortion.png")
    rows = [Row("original, 8 bits", results.originals)]
    target = results.curves[results.ours[0]][QUALITIES.index(SHOWN_QUALITY)].bits_per_pixel
    for label, points in results.curves.items():
        point = min(points, key=lambda p: abs(np.log(p.bits_per_pixel / target)))
        rows.append(Row(f"{label}\n{point.bits_per_pixel:.3f} bits, {point.psnr:.1f} dB", point.images))
    title = (
        f"{name} · each at its rate nearest to the {results.ours[0]}'s; bits per pixel and mean PSNR of all test images"
    )
    plots.save(compressed(rows, title), folder / "compressed.png")
