"""The rate-distortion curves of `experiments.compression`, measured and drawn."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from experiments.compression.figures import Curve, Row, compressed, rate_distortion
from experiments.study import Study
from vae_jax.codecs import container
from vae_jax.codecs.entropy_coding import Prior, Symbols, encode_symbols
from vae_jax.codecs.image_codecs import LinearModel, cut_mosaic, mosaic, most_in_mosaic, rate_at, through_pillow
from vae_jax.codecs.lossy import QUALITIES, Codec, quantise, step_of
from vae_jax.data.dataset import Dataset
from vae_jax.errors import counted
from vae_jax.models.quality import psnr
from vae_jax.runs.run import Run

FORMATS = {"JPEG": (1, 5, 10, 20, 30, 50, 70, 85, 95), "WebP": (0, 2, 5, 10, 20, 40, 60, 80, 95)}
ALONE = 100
"""Images that are also compressed each to a file of its own."""
ONE_LEVEL = 1.0
"""The squared error of one grey level in one value, which stands for that of an image without any."""
SHOWN = 10
SHOWN_QUALITY = 5


Coded: TypeAlias = tuple[int, int, np.ndarray, list[int], np.ndarray]
"""By one setting of one codec: the setting, bytes of all images and what they decode to; both of the first ones, each
a file of its own."""


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
    coded, classes = {}, {}
    for name, run in runs.items():
        codec = container.codec_of(run, dataset)
        coded[name] = _by_run(run, codec, images)
        classes[name] = int(codec.prior(1).classes.size)
    dim = next(iter(runs.values())).model.latent_dim
    most = min(images[0].size, len(dataset.train.images))
    for dimensions in sorted({min(dim, most), min(4 * dim, most)}):
        linear = LinearModel.fit(dataset.train.images, dataset.validation.images, dimensions)
        coded[f"PCA, {counted(dimensions, 'dimension')}"] = _by_pca(linear, images)
    coded |= {name: _by_format(name, images) for name in FORMATS}
    curves = {name: [_point(images, *each) for each in every] for name, every in coded.items()}
    picture = mosaic(images)
    sizes = {name: through_pillow(picture, name.upper(), None)[0] for name in ("PNG", "WebP")}
    lossless = {f"{name} lossless": 8 * size / images[..., 0].size for name, size in sizes.items()}
    return Results(images[:SHOWN], len(images), curves, list(runs), lossless, classes)


def _point(
    images: np.ndarray, setting: int, size: int, decoded: np.ndarray, sizes: list[int], decoded_alone: np.ndarray
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


def _sizes_alone(symbols: Symbols, prior: Prior) -> list[int]:
    return [len(encode_symbols(one[None], prior)) for one in symbols[:ALONE]]


def _by_run(run: Run, codec: Codec, images: np.ndarray) -> Iterator[Coded]:
    codes = run.encode(images[:ALONE]).means
    for quality in QUALITIES:
        content = container.compress(run, codec, images, quality)
        decoded = container.decompress(run, codec, content)
        sizes = _sizes_alone(quantise(codes, codec.transform, step_of(quality)), codec.prior(quality))
        yield quality, len(content), decoded, sizes, decoded[:ALONE]


def _by_pca(linear: LinearModel, images: np.ndarray) -> Iterator[Coded]:
    for quality in QUALITIES:
        prior, symbols = linear.codec.prior(quality), linear.encode(images, quality)
        size = container.HEADER_BYTES + len(encode_symbols(symbols, prior))
        decoded = linear.decode(symbols, quality, images.shape[1:])
        yield quality, size, decoded, _sizes_alone(symbols, prior), decoded[:ALONE]


def _by_format(name: str, images: np.ndarray) -> Iterator[Coded]:
    picture = mosaic(images)
    for quality in FORMATS[name]:
        size, decoded = through_pillow(picture, name.upper(), quality)
        sizes, alone = zip(*(through_pillow(image, name.upper(), quality) for image in images[:ALONE]), strict=True)
        yield quality, size, cut_mosaic(decoded, len(images), images.shape[1:]), list(sizes), np.stack(alone)


def draw(study: Study, results: Results) -> None:
    """The two figures."""
    curves = {label: results.curve(label) for label in results.curves}
    title = f"{study.title} · lossy compression of {counted(results.number, 'test image')}, all in one file"
    study.draw("rate_distortion.png", rate_distortion(curves, results.lossless, title))
    rows = [Row("original, 8 bits", results.originals)]
    target = results.curves[results.ours[0]][QUALITIES.index(SHOWN_QUALITY)].bits_per_pixel
    for label, points in results.curves.items():
        point = min(points, key=lambda p: abs(np.log(p.bits_per_pixel / target)))
        rows.append(Row(f"{label}\n{point.bits_per_pixel:.3f} bits, {point.psnr:.1f} dB", point.images))
    what = "bits per pixel and mean PSNR of all test images"
    title = f"{study.title} · each at its rate nearest to the {results.ours[0]}'s; {what}"
    study.draw("compressed.png", compressed(rows, title))
