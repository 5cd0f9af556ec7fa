"""The rate-distortion curves of `experiments.compression`, measured and drawn."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from experiments.compression.figures import Curve, Row, compressed, rate_distortion
from experiments.study import Study
from vae_jax.codecs import container
from vae_jax.codecs.entropy_coding import encode_symbols
from vae_jax.codecs.image_codecs import LinearModel, cut_mosaic, mosaic, most_in_mosaic, rate_at, through_pillow
from vae_jax.codecs.lossy import QUALITIES, Codec, quantise, step_of
from vae_jax.data.dataset import Dataset
from vae_jax.measures.images import psnr
from vae_jax.runs.run import Run

FORMATS = {"JPEG": (1, 5, 10, 20, 30, 50, 70, 85, 95), "WebP": (0, 2, 5, 10, 20, 40, 60, 80, 95)}
ALONE = 100
"""Images that are also compressed each to a file of its own."""
ONE_LEVEL = 1.0
"""The squared error of one grey level in one value, which stands for that of an image without any."""
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

    def curve(self, name: str) -> Curve:
        """Bits per pixel and PSNR of the points."""
        return Curve(*np.array([(point.bits_per_pixel, point.psnr) for point in self.curves[name]]).T)

    def curve_alone(self, name: str) -> Curve:
        """The same where each image is a file of its own."""
        return Curve(*np.array([(point.alone, point.alone_psnr) for point in self.curves[name]]).T)

    def at_equal_psnr(self, ours: str) -> list[dict[str, float | None]]:
        """For each of our points: our bits per pixel, and those of the others at its PSNR (None beyond their ends)."""
        others = [name for name in self.curves if name not in self.ours]
        rows: list[dict[str, float | None]] = []
        for point in self.curves[ours]:
            rates = {name: rate_at(point.psnr, *self.curve(name)) for name in others}
            reached = [rates.pop(name) for name in others if name.startswith("PCA")]
            rates["PCA"] = min((rate for rate in reached if rate is not None), default=None)
            rows.append({"quality": point.setting, "psnr": point.psnr, ours: point.bits_per_pixel, **rates})
        return rows

    def numbers(self) -> dict[str, Any]:
        """What goes into summary.json."""
        fields = [name for name in Point._fields if name != "images"]
        curves = {n: {f: [getattr(p, f) for p in points] for f in fields} for n, points in self.curves.items()}
        return {
            "images": self.number,
            "curves": curves,
            "at_equal_psnr": {name: self.at_equal_psnr(name) for name in self.ours},
            "lossless": self.lossless,
            "classes": self.classes,
            "header_bytes": container.HEADER_BYTES,
        }


def measure_curves(runs: Mapping[str, Run], dataset: Dataset) -> Results:
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
    lossless = {f"{name} lossless": 8 * size / images[..., 0].size for name, size in sizes.items()}
    return Results(images[:SHOWN], len(images), curves, list(runs), lossless, classes)


def _point(
    setting: int, images: np.ndarray, decoded: np.ndarray, size: int, sizes: list[int], decoded_alone: np.ndarray
) -> Point:
    some = images[: len(sizes)]
    each, alone = psnr(images, decoded, ONE_LEVEL), psnr(some, decoded_alone, ONE_LEVEL)
    return Point(
        setting=setting,
        bits_per_pixel=8 * size / images[..., 0].size,
        psnr=float(np.mean(each)),
        psnr_of_mean_mse=float(-10 * np.log10(np.mean(10 ** (-each / 10)))),
        alone=8 * sum(sizes) / some[..., 0].size,
        alone_psnr=float(np.mean(alone)),
        images=decoded[:SHOWN],
    )


def _codec_of(run: Run, dataset: Dataset) -> Codec:
    path = container.codec_path(run)
    if path.exists():
        return container.read_codec(path, run.model.latent_dim)
    codec = container.fit_codec_of(run, dataset.train.images, dataset.validation.images)
    container.write_codec(path, codec)
    return codec


def _run_curve(run: Run, codec: Codec, images: np.ndarray) -> list[Point]:
    points = []
    codes = run.encode(images[:ALONE]).means
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


def draw(study: Study, results: Results) -> None:
    """The two figures."""
    curves = {label: results.curve(label) for label in results.curves}
    title = f"{study.title} · lossy compression of {results.number:,} test images, all in one file"
    study.draw("rate_distortion.png", rate_distortion(curves, results.lossless, title))
    rows = [Row("original, 8 bits", results.originals)]
    target = results.curves[results.ours[0]][QUALITIES.index(SHOWN_QUALITY)].bits_per_pixel
    for label, points in results.curves.items():
        point = min(points, key=lambda p: abs(np.log(p.bits_per_pixel / target)))
        rows.append(Row(f"{label}\n{point.bits_per_pixel:.3f} bits, {point.psnr:.1f} dB", point.images))
    what = "bits per pixel and mean PSNR of all test images"
    title = f"{study.title} · each at its rate nearest to the {results.ours[0]}'s; {what}"
    study.draw("compressed.png", compressed(rows, title))
