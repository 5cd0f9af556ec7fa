"""Trains, measures, draws and reports: the study of `experiments.denoising`."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from experiments.denoising import Config, Corruption
from experiments.denoising.figures import denoised, psnr_bars
from experiments.denoising.measure import measure, report
from experiments.flags import StudyConfig, by_size
from experiments.study import Study, begin
from vae_jax.config import Settings
from vae_jax.data.dataset import Dataset
from vae_jax.data.loading import load_dataset
from vae_jax.errors import UsageError, counted
from vae_jax.models.layers import places_of
from vae_jax.models.networks import PATCH
from vae_jax.runs.run import Run, load_run

CODE_CHANNELS = 64
"""Numbers in the code of each patch."""


DEFAULT = ("gaussian:0.25", "gaussian:0.5", "gaussian_clipped:0.5", "salt_and_pepper:0.25", "masking:0.5")
CODE_CHANNELS = 64
"""Numbers in the code of each patch."""


def run(config: Config) -> dict[str, Any]:
    """Train or restore, measure, draw and report; gives back what summary.json holds."""
    given = load_run(config.run) if config.run else None
    dataset = load_dataset(config.dataset, config.data_dir)
    if given and given.model.image_shape != dataset.image_shape:
        raise UsageError(
            f"--run {config.run} takes images of the shape {given.model.image_shape}, {dataset.name} has "
            f"{dataset.image_shape}.\nGive the data set that it was trained on by --dataset."
        )
    corruptions = [Corruption.parse(text) for text in config.corruptions]
    plain = {f"runs/{model}": _plain_settings(config, model, dataset) for model in ("ae", "vae")}
    members = {} if given else {corruption: _settings(config, corruption, dataset) for corruption in corruptions}
    together = max(Counter(corruption.kind for corruption in corruptions).values())
    study = begin(config, "denoising", dataset, [*plain.values(), *members.values()], together)
    ae, vae = study.train(plain).values()
    denoisers = dict.fromkeys(corruptions, given) if given else _train(study, members)
    rows, shown = [], []
    for corruption in corruptions:
        runs = {"AE": ae, "VAE": vae, "denoising AE": denoisers[corruption]}
        row, images = measure(corruption, runs, dataset, config.seed)
        rows.append(row)
        shown.append(images)
        print(f"measured {corruption.label}: {row['psnr']['denoising AE']:.2f} dB", flush=True)
    _draw(study, corruptions, [row["psnr"] for row in rows], shown)
    return study.finish(report(rows, study.title, dataset, given), rows=rows)


def _train(study: Study, members: dict[Corruption, Settings]) -> dict[Corruption, Run]:
    # Levels of one kind together, in one program.
    runs: dict[str, Run] = {}
    for kind in dict.fromkeys(corruption.kind for corruption in members):
        levels = {each.folder: settings for each, settings in members.items() if each.kind == kind}
        runs |= study.train(levels, together=True)
    return {corruption: runs[corruption.folder] for corruption in members}


def _draw(
    study: Study, corruptions: Sequence[Corruption], psnr: Sequence[dict[str, float]], shown: Sequence[Any]
) -> None:
    labels = [corruption.label for corruption in corruptions]
    beside = f"beside the rows: mean PSNR of {counted(len(study.dataset.test), 'test image')}"
    title = f"{study.title} · test images clean, noisy, and as each method restores them\n{beside}"
    study.draw("denoising.png", denoised([*zip(labels, shown, psnr, strict=True)], title))
    bars = [(label.replace(", ", "\n", 1), means) for label, means in zip(labels, psnr, strict=True)]
    title = f"{study.title} · how well noise is taken out of test images: more is better"
    study.draw("psnr.png", psnr_bars(bars, title))


def _plain_settings(config: Config, model: str, dataset: Dataset) -> Settings:
    # The study's flags are those of the denoising AE.
    return StudyConfig(config.dataset, config.data_dir).settings(
        dataset,
        model=model,
        latent_dim=32,
        epochs=config.plain_epochs or by_size(dataset, 8, 30),
        batch_size=min(by_size(dataset, 256, 32), len(dataset.train)),
        seed=config.seed,
    )


def _settings(config: Config, corruption: Corruption, dataset: Dataset) -> Settings:
    patch = config.arch == "patch"
    places = math.prod(places_of(dataset.image_shape[:2], PATCH))
    return config.settings(
        dataset,
        model="ae",
        hidden_sizes=config.hidden_sizes or ((64, 64, 64) if patch else (1024,)),
        latent_dim=CODE_CHANNELS * places if patch else 256,
        corruption=corruption.kind,
        corruption_level=corruption.level,
        epochs=config.epochs or by_size(dataset, 8, 15),
    )
