"""What the denoising study measures and reports, and its names for the corruptions."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from experiments.denoising import Corruption
from experiments.markdown import markdown_table
from vae_jax.data.dataset import Dataset
from vae_jax.errors import counted
from vae_jax.measures import denoising
from vae_jax.runs.run import Run

ROWS = ("noisy", "Gaussian filter", "median 3x3", "linear MMSE", "AE", "VAE", "denoising AE")
SHOWN = 5
"""Images of the figure."""


def measure(
    corruption: Corruption, runs: Mapping[str, Run], dataset: Dataset, seed: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What every method makes of the noisy test images: its means, and the first few images by row of the figure."""
    keys = jax.random.split(jax.random.key(seed), 3)
    splits = (dataset.train, dataset.validation, dataset.test)
    clean = [split.images.astype(np.float32) / 255 for split in splits]
    noisy = [denoising.corrupt_images(split.images, *corruption, key) for split, key in zip(splits, keys, strict=True)]
    linear = denoising.LinearMMSE.fit(clean[0], noisy[0])
    width = denoising.best_width(clean[1][:1000], noisy[1][:1000])
    psnr, ssim, shown = {}, {}, {"clean": clean[2][:SHOWN]}

    def estimates() -> Iterator[tuple[str, Any]]:
        yield "noisy", noisy[2]
        yield "Gaussian filter", denoising.gaussian_filter(noisy[2], width)
        yield "median 3x3", denoising.median_filter(noisy[2])
        yield "linear MMSE", linear(noisy[2])
        for name, run in runs.items():
            yield name, denoising.denoise(run.model, run.params, noisy[2])

    for name, estimate in estimates():  # one at a time in memory
        means = denoising.mean_quality(clean[2], estimate)
        psnr[name], shown[name] = means["psnr"], np.asarray(estimate[:SHOWN], np.float32)
        if "ssim" in means:
            ssim[name] = means["ssim"]
    found = {"corruption": corruption.kind, "level": corruption.level, "gaussian_filter_width": width}
    return {**found, "psnr": psnr, "ssim": ssim}, shown


def report(rows: list[dict[str, Any]], name: str, dataset: Dataset, given: Run | None) -> str:
    """report.md from the rows of `measure`."""
    tables = ""
    for measure, form, heading in (
        ("psnr", "{:.2f}", "Mean PSNR of an image in dB"),
        ("ssim", "{:.3f}", "Mean SSIM of an image"),
    ):
        if rows[0][measure]:
            labels = [Corruption(row["corruption"], row["level"]).label for row in rows]
            numbers = [[form.format(row[measure][method]) for method in ROWS] for row in rows]
            cells = [[label, *values] for label, values in zip(labels, numbers, strict=True)]
            tables += f"{heading}:\n\n{markdown_table(['corruption', *ROWS], cells)}\n\n"
    widths = ", ".join(f"{row['gaussian_filter_width']:g}" for row in rows)
    trained_for = f"is the run {given.path} for all corruptions" if given else "is one model for each row"
    train, test = counted(len(dataset.train), "training image"), counted(len(dataset.test), "test image")
    return f"""# Denoising: {name}

{test} in [0, 1], each with noise of its own from a fixed seed; estimates are clipped to
[0, 1], noisy images are not.

{tables}\
The linear MMSE estimator, the best that a linear map can do, is fitted on the {train}.
The width of the Gaussian filter is chosen on validation images: {widths} pixels. AE and VAE are trained on clean
images; the denoising AE {trained_for}.
"""
