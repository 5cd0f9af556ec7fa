"""Trains, measures, draws and reports: the study of `experiments.disentangle`."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from experiments.disentangle import DEFAULT_EPOCHS, FEWEST, NAMES, Config
from experiments.disentangle.figures import information_map
from experiments.disentangle.measure import TITLES, Measured, measure
from experiments.markdown import interval, markdown_table, with_half
from experiments.study import Study, begin
from vae_jax.cli.figures import draw_traversals
from vae_jax.config import Settings
from vae_jax.data.dataset import Dataset
from vae_jax.data.loading import load_dataset
from vae_jax.errors import UsageError, counted
from vae_jax.models.codes import Codes
from vae_jax.runs.run import Run

_SHOWN = SimpleNamespace(base_image=0, split="test", traversals=10)


def run(config: Config) -> dict[str, Any]:
    """Train what is missing, measure, draw, report; gives back the summary."""
    dataset = load_dataset(config.dataset, config.data_dir)
    if dataset.test.factors is None or len(dataset.test) < FEWEST:
        raise UsageError(
            f"--dataset must have known factors and at least {FEWEST} test images, got {dataset.name} with "
            f"{counted(len(dataset.test), 'test image')}.\nGive --dataset dsprites."
        )
    members = {name: _members(config, name, dataset) for name in config.models}
    every = [settings for each in members.values() for settings in each.values()]
    study = begin(config, "disentangle", dataset, every, config.seeds)
    measured: dict[str, list[Measured]] = {}
    for name, each in members.items():
        runs = [*study.train(each, together=True).values()]
        codes = [one.encode(dataset.test.images) for one in runs]
        measured[name] = [measure(*one, dataset) for one in zip(runs, codes, strict=True)]
        _draw(study, name, runs[0], codes[0])
    factors = dataset.factor_names or ()
    study.draw(
        "mig.png",
        information_map(
            {NAMES[name]: [one.numbers["mig"] for one in each] for name, each in measured.items()},
            {NAMES[name]: each[0].shared for name, each in measured.items()},
            factors,
            f"{study.title}: the mutual information gap, and what each latent dimension says of each factor",
        ),
    )
    models = {name: [one.numbers for one in each] for name, each in measured.items()}
    gaps = {name: np.mean([one.gaps for one in each], axis=0).tolist() for name, each in measured.items()}
    return study.finish(_report(study, models, gaps, factors), factors=factors, models=models, gaps=gaps)


def _members(config: Config, name: str, dataset: Dataset) -> dict[str, Settings]:
    # Steps and epochs together are refused by the check of settings.
    changes: dict[str, Any] = {} if config.steps else {"epochs": config.epochs or DEFAULT_EPOCHS}
    changes |= {"beta": 1.0} if name == "vae" else {"objective": "tc"} if name == "beta-tcvae" else {}
    return {f"{name}-seed{s}": config.settings(dataset, seed=s, **changes) for s in range(config.seeds)}


def _draw(study: Study, name: str, run: Run, codes: Codes) -> None:
    # A row for each latent dimension, in the order of their KL.
    reference, path = run.encode(study.dataset.validation.images), study.path / "figures" / f"traversals_{name}.png"
    path.parent.mkdir(exist_ok=True)
    title = f"{study.title} · {NAMES[name]}"
    draw_traversals(_SHOWN, run, study.dataset.test, codes, reference, title, path)
    study.figures.append(str(path))


def _report(
    study: Study, models: dict[str, list[dict[str, float]]], gaps: dict[str, list[float]], factors: tuple[str, ...]
) -> str:
    rows = [[NAMES[name], *(_cell([one[key] for one in each]) for key in TITLES)] for name, each in models.items()]
    each_gap = [[NAMES[name], *(f"{gap:.2f}" for gap in row)] for name, row in gaps.items()]
    data, runs = study.dataset, len(next(iter(models.values())))
    spread = "mean ± 95% interval by Student's t" if runs > 1 else "one seed, so no interval"
    return f"""# Disentanglement: {study.title}

{markdown_table(["model", *TITLES.values()], rows)}

The gap of each factor, whose mean is the MIG, as the mean of the runs:

{markdown_table(["model", *factors], each_gap)}

{counted(runs, "run")} of each model, {spread}; trained on {len(data.train):,} images and measured on \
{len(data.test):,} test images. −ELBO is reconstruction + KL, whatever the weights were in training. MIG takes \
latents drawn from the posteriors (Chen et al. 2018); that of 20 bins the means (Locatello et al. 2019). \
Informativeness: share of the test images of which a forest tells the value of a factor from the means."""


def _cell(values: list[float]) -> str:
    mean, half = interval(values)
    return with_half(mean, half, 2 if abs(mean) < 10 else 1)
