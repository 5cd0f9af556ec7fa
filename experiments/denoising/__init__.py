"""Denoising: autoencoders against filters and the best linear estimator: `python -m experiments.denoising`.

Trains a denoising autoencoder (Vincent et al. 2010: corrupted input, clean target) for each corruption, and a plain
AE and VAE on clean images, and measures what they make of noisy test images: mean PSNR in dB and SSIM beside a
Gaussian filter, a 3x3 median and the linear MMSE estimator. `--corruptions salt_and_pepper:0.1 masking:0.75` chooses
others; `--run RUN` measures a finished run on all of them instead of training.

`python -m experiments.denoising denoise RUN images.npz` denoises your own images with a finished run.
"""

import dataclasses
import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from experiments.denoising.measure import KINDS, Corruption, are_corruptions, measure, report
from experiments.study import StudyConfig, begin, finish, trained, trained_together
from vae_jax.cli.command import free_output
from vae_jax.config import Settings
from vae_jax.domains import (
    LARGEST_NUMBER,
    SMALLEST_NUMBER,
    at_least,
    epoch_number,
    layer_sizes,
    positive,
    seed_field,
    setting,
)
from vae_jax.errors import UsageError

if TYPE_CHECKING:
    from vae_jax.data.dataset import Dataset
    from vae_jax.runs.run import Run

STUDY = "denoising"
DEFAULT = ("gaussian:0.25", "gaussian:0.5", "gaussian_clipped:0.5", "salt_and_pepper:0.25", "masking:0.5")
CODE_CHANNELS = 64
"""Numbers in the code of each patch."""


@dataclasses.dataclass(frozen=True)
class Config(StudyConfig):
    """Compare denoisers on the test images. The word `denoise` as the first argument denoises your own images."""

    corruptions: tuple[str, ...] = setting(
        DEFAULT,
        f"different KIND:LEVEL, such as gaussian:0.5, of the kinds {', '.join(KINDS)}, "
        f"the level at least {SMALLEST_NUMBER:g} and at most {LARGEST_NUMBER:g} (1 for a share)",
        are_corruptions,
    )
    """KIND:LEVEL each. Of gaussian and gaussian_clipped (to [0, 1]) the level is the standard deviation, of
    salt_and_pepper and masking the share of the pixels that are replaced."""
    run: Path | None = None
    """Measure this finished run on every corruption, instead of training a denoising AE for each."""
    arch: Literal["patch", "mlp"] = "patch"
    """Networks of the denoising AE: a code at each patch of 4x4 pixels, or fully connected."""
    hidden_sizes: tuple[int, ...] | None = layer_sizes(fewest=1)
    """Widths of its hidden layers. Default: 64 64 64 for patch, 1024 for mlp."""
    epochs: int | None = epoch_number()
    """Passes over the training images for each denoising AE. Default: 8, and 15 for fewer than 10,000 images."""
    batch_size: int = at_least(1, 32)
    """Images a step of the denoising AE."""
    learning_rate: float = positive(5e-3)
    """Peak of its learning rate."""
    plain_epochs: int | None = epoch_number()
    """Passes for the plain AE and VAE. Default: 8, and 30 for fewer than 10,000 images."""
    seed: int = seed_field()
    """Seed of every training run and of the noise on the images that are measured."""


@dataclasses.dataclass(frozen=True)
class Denoise:
    """Denoise your own images with a finished run. Bytes hold no values outside [0, 255]: your noise is clipped."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run directory, such as one that the study trained."""
    images: Annotated[Path, tyro.conf.Positional]
    """An .npz file with `images` (and `labels`), or a folder of images, of the shape that the run was trained on."""
    output: Path | None = None
    """The .npz file to write: `images`, uint8, and the labels. Default: the images' name with -denoised.npz,
    beside them."""
    compilation_cache: bool = True
    """Keep compiled programs in the user's cache directory, so that the next start is fast."""


def run(config: Config) -> dict[str, Any]:
    """Train or restore, measure, draw and report; gives back what summary.json holds."""
    from experiments.denoising.figures import denoised, psnr_bars
    from vae_jax import plots
    from vae_jax.cli.figures import DISPLAY_NAMES
    from vae_jax.data.dataset import load_dataset
    from vae_jax.runs.run import load_run

    given = load_run(config.run) if config.run else None
    dataset = load_dataset(config.dataset, config.data_dir)
    if given and given.model.image_shape != dataset.image_shape:
        raise UsageError(
            f"--run {config.run} takes images of the shape {given.model.image_shape}, {dataset.name} has "
            f"{dataset.image_shape}.\nGive the data set that it was trained on by --dataset."
        )
    corruptions = [Corruption.parse(text) for text in config.corruptions]
    plain_members = _plain_members(config, dataset)
    members = {} if given else {corruption: _settings(config, corruption, dataset) for corruption in corruptions}
    together = max(Counter(corruption.kind for corruption in corruptions).values())
    path = begin(config, STUDY, dataset, [*plain_members.values(), *members.values()], together)
    plain = {
        model.upper(): trained(path / "runs" / model, settings, dataset) for model, settings in plain_members.items()
    }
    denoisers = dict.fromkeys(corruptions, given) if given else _train_denoisers(members, dataset, path)
    rows, panels = [], []
    for corruption in corruptions:
        row, images = measure(corruption, {**plain, "denoising AE": denoisers[corruption]}, dataset, config.seed)
        rows.append(row)
        panels.append((corruption.label, images, row["psnr"]))
        print(f"measured {corruption.label}: {row['psnr']['denoising AE']:.2f} dB", flush=True)
    (path / "figures").mkdir(exist_ok=True)
    name = DISPLAY_NAMES.get(dataset.name, dataset.name)
    beside = f"beside the rows: mean PSNR of {len(dataset.test):,} test images"
    figure = denoised(panels, f"{name} · test images clean, noisy, and as each method restores them\n{beside}")
    plots.save(figure, path / "figures" / "denoising.png")
    bars = [
        (corruption.label.replace(", ", "\n", 1), row["psnr"])
        for corruption, row in zip(corruptions, rows, strict=True)
    ]
    plots.save(
        psnr_bars(bars, f"{name} · how well noise is taken out of test images: more is better"),
        path / "figures" / "psnr.png",
    )
    numbers = {"dataset": dataset.name, "sha256": dataset.sha256, "rows": rows}
    return finish(path, STUDY, report(rows, name, dataset, given), numbers)


def denoise(config: Denoise) -> Path:
    """Denoise a user's images, write them and print where."""
    import numpy as np

    from vae_jax.data.dataset import read_images
    from vae_jax.files import replacing
    from vae_jax.measures import denoising
    from vae_jax.runs.run import load_run

    output = free_output(config.output, config.images, "-denoised.npz")
    restored = load_run(config.run)
    split = read_images(config.images, restored.model.image_shape)
    estimate = denoising.denoise(restored.model, restored.params, split.images.astype(np.float32) / 255)
    arrays = {"images": np.rint(estimate * 255).astype(np.uint8)}
    if split.labels is not None:
        arrays["labels"] = split.labels
    with replacing(output) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)
    if restored.config.corruption == "none":
        print(f"{config.run} was trained on clean images; a run with --corruption denoises better.")
    print(f"{len(split):,} images of {' x '.join(map(str, restored.model.image_shape))}: {output}")
    return output


def _plain_members(config: Config, dataset: "Dataset") -> dict[str, Settings]:
    few = len(dataset.train) < 10_000
    common: dict[str, Any] = {
        "latent_dim": 32,
        "epochs": config.plain_epochs or (30 if few else 8),
        "batch_size": min(32 if few else 256, len(dataset.train)),
        "seed": config.seed,
    }
    return {model: config.settings(dataset, model=model, **common) for model in ("ae", "vae")}


def _train_denoisers(members: dict[Corruption, Settings], dataset: "Dataset", path: Path) -> dict[Corruption, "Run"]:
    # Levels of one kind together, in one program.
    runs: dict[Corruption, Run] = {}
    for kind in dict.fromkeys(corruption.kind for corruption in members):
        levels = [corruption for corruption in members if corruption.kind == kind]
        paths = [path / "runs" / corruption.folder for corruption in levels]
        settings = [members[corruption] for corruption in levels]
        runs |= zip(levels, trained_together(paths, settings, dataset), strict=True)
    return runs


def _settings(config: Config, corruption: Corruption, dataset: "Dataset") -> Settings:
    from vae_jax.models.networks import patch_places

    height, width, _ = dataset.image_shape
    places = math.prod(patch_places(height, width))
    return config.settings(
        dataset,
        model="ae",
        arch=config.arch,
        hidden_sizes=config.hidden_sizes or ((64, 64, 64) if config.arch == "patch" else (1024,)),
        latent_dim=CODE_CHANNELS * places if config.arch == "patch" else 256,
        corruption=corruption.kind,
        corruption_level=corruption.level,
        epochs=config.epochs or (15 if len(dataset.train) < 10_000 else 8),
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        seed=config.seed,
    )
