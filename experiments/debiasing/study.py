"""Trains, measures, draws and reports: the study of `experiments.debiasing`."""

import dataclasses
from typing import Any

import numpy as np

from experiments.debiasing import Config
from experiments.debiasing.figures import by_group
from experiments.debiasing.measure import SAMPLINGS_TRIED, Groups, measure, report, section, summarised
from experiments.flags import by_size
from experiments.study import begin
from vae_jax.config import Settings
from vae_jax.data.dataset import Dataset
from vae_jax.data.loading import load_dataset

UNITS = {"squared error": "squared error of an image", "probe": "accuracy of the probe"}


def run(config: Config) -> dict[str, Any]:
    """Train or restore, measure, draw and report; gives back what summary.json holds."""
    fair = load_dataset(config.dataset, config.data_dir)
    groups = {by: Groups.of(by, fair, config.thinned) for by in config.by}
    unfair = {by: of.unfair(fair, config.kept) for by, of in groups.items()}
    members = {by: _members(config, by, unfair[by]) for by in config.by}
    study = begin(config, "debiasing", fair, [one for of in members.values() for one in of.values()], config.seeds)
    numbers, sections, panels, every = {}, [], [], {}
    for by in config.by:
        own, found = dataclasses.replace(study, dataset=unfair[by]), {}
        for sampling in SAMPLINGS_TRIED:
            chosen = {name: one for name, one in members[by].items() if one.sampling == sampling}
            runs = own.train(chosen, together=True)
            found[sampling] = [measure(one, unfair[by], groups[by]) for one in runs.values()]
            print(f"measured {by}, {SAMPLINGS_TRIED[sampling]}", flush=True)
        numbers[by], every[by] = summarised(found, groups[by]), found
        sections.append(section(by, groups[by], unfair[by], numbers[by]))
        for name, unit in UNITS.items():
            values = {s: np.array([one[name] for one in of]) for s, of in found.items()}
            panels.append((f"{name}, by {by}", groups[by].names, groups[by].thinned, unit, values))
    title = f"{study.title} · test images of each group after unfair training; grey: {config.kept:.0%} of it were left"
    study.draw("debiasing.png", by_group(panels, SAMPLINGS_TRIED, title))
    return study.finish(report(config, study.title, sections), numbers=numbers, each=every)


def _members(config: Config, by: str, dataset: Dataset) -> dict[str, Settings]:
    return {
        f"runs/{by}-{sampling}-seed{seed}": config.settings(
            dataset,
            sampling=sampling,
            seed=seed,
            epochs=config.epochs or by_size(dataset, 8, 60),
            batch_size=min(config.batch_size, by_size(dataset, 256, 32)),
        )
        for sampling in SAMPLINGS_TRIED
        for seed in range(config.seeds)
    }
