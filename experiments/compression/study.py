"""Trains, measures, draws and reports: the study of `experiments.compression`."""

import math
from typing import Any

import numpy as np

from experiments.compression import Config
from experiments.compression.measure import ALONE, Results, draw, measure_curves
from experiments.flags import by_size
from experiments.markdown import markdown_table
from experiments.study import begin
from vae_jax.codecs import container
from vae_jax.codecs.image_codecs import rate_at
from vae_jax.config import Settings
from vae_jax.data.dataset import Dataset
from vae_jax.data.loading import load_dataset
from vae_jax.errors import counted
from vae_jax.runs.run import load_dataset_of, load_run


def run(config: Config) -> dict[str, Any]:
    """Train where no run is given, compress the test images in every way, draw and report."""
    given = load_run(config.run) if config.run else None
    dataset = load_dataset_of(given, config.data_dir) if given else load_dataset(config.dataset, config.data_dir)
    members = {} if given else {model: _settings(config, model, dataset) for model in ("ae", "vae")}
    study = begin(config, "compression", dataset, members.values())
    runs = [given] if given else [*study.train(members).values()]
    results = measure_curves({one.model.name: one for one in runs}, dataset)
    draw(study, results)
    return study.finish(report(results, dataset), **results.numbers())


def _settings(config: Config, model: str, dataset: Dataset) -> Settings:
    return config.settings(
        dataset,
        model=model,
        latent_dim=config.latent_dim or min(32, max(1, math.prod(dataset.image_shape) // 2)),
        epochs=config.epochs or by_size(dataset, 20, 60),
        batch_size=min(Settings.batch_size, len(dataset.train)),
        beta=config.beta if model == "vae" else 1.0,
    )


def report(results: Results, dataset: Dataset) -> str:
    """The tables in Markdown."""
    number, shape = counted(results.number, "test image"), " x ".join(map(str, dataset.image_shape))
    parts = [
        f"# Lossy compression: {dataset.name}",
        f"{number}, {shape}. PSNR is the mean over the images of each image's own, in dB.",
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
    others = ("JPEG", "WebP", "PCA")
    rows = []
    for row, point in zip(results.at_equal_psnr(ours), results.curves[ours], strict=True):
        cells = [f"{point.psnr:.2f}", f"{point.psnr_of_mean_mse:.2f}", f"{point.bits_per_pixel:.4f}"]
        times = [f"{rate:.4f} ({rate / point.bits_per_pixel:.2f})" if (rate := row[name]) else "–" for name in others]
        rows.append([f"{point.setting}", *cells, *times])
    header = ["quality", "PSNR", "PSNR of mean MSE", "ours", *(f"{name} (times ours)" for name in others)]
    return f"{markdown_table(header, rows)}\n\nA dash: the format can't be made so small, or (PCA) so good."


def _summary(results: Results, ours: str) -> str:
    lines = []
    for name in ("JPEG", "WebP", "PCA"):
        pairs = zip(results.at_equal_psnr(ours), results.curves[ours], strict=True)
        ratios = [rate / point.bits_per_pixel for row, point in pairs if (rate := row[name])]
        if ratios:
            lines.append(f"{name} takes {min(ratios):.2f} to {max(ratios):.2f} times the bits of the {ours}.")
    lines.append(
        f"The {ours} ends at {results.curves[ours][-1].psnr:.1f} dB, however many bits are spent: the decoder's own "
        "error remains. Above that, JPEG and WebP win."
    )
    return " ".join(lines)


def _alone_table(results: Results) -> str:
    header_bits = 8 * container.HEADER_BYTES / results.originals[0, ..., 0].size
    curves = [results.curves[other] for other in ("JPEG", "WebP")]
    others = [np.array([(point.alone, point.alone_psnr) for point in curve]).T for curve in curves]
    rows = []
    for name, point in [(ours, point) for ours in results.ours for point in results.curves[ours]]:
        own = [f"{point.alone:.4f}", f"{point.alone + header_bits:.4f}"]
        rates = [rate_at(point.alone_psnr, *alone) for alone in others]
        cells = ["–" if rate is None else f"{rate:.4f}" for rate in rates]
        rows.append([f"{name}, quality {point.setting}", f"{point.alone_psnr:.2f}", *own, *cells])
    header = [f"the first {ALONE} images", "PSNR", "ours, payload", "with header", "JPEG", "WebP"]
    return markdown_table(header, rows)
