"""Trains, measures, draws and reports: the study of `experiments.semi_supervised`."""

from typing import Any

from experiments.flags import by_size
from experiments.semi_supervised import Config
from experiments.semi_supervised.figures import errors_by_labels
from experiments.semi_supervised.measure import METHODS, error_alone, known, m1_errors, report
from experiments.study import begin
from vae_jax.config import Settings
from vae_jax.data.dataset import Dataset
from vae_jax.data.loading import load_dataset


def run(config: Config) -> dict[str, Any]:
    """Train or restore, measure, draw and report; gives back what summary.json holds."""
    dataset = load_dataset(config.dataset, config.data_dir)
    seeds = range(config.seeds)
    vaes = {f"runs/m1-seed{seed}": _settings(config, dataset, None, seed) for seed in seeds}
    m2 = {(number, seed): _settings(config, dataset, number, seed) for number in config.numbers for seed in seeds}
    study = begin(config, "semi_supervised", dataset, [*vaes.values(), *m2.values()], config.seeds)
    of_all = [*study.train(vaes, together=True).values()]
    found: dict[int, dict[str, list[float]]] = {n: {method: [] for method in METHODS} for n in config.numbers}
    for (number, seed), settings in m2.items():
        one = study.train({f"runs/m2-{number}-seed{seed}": settings})[f"runs/m2-{number}-seed{seed}"]
        labelled = known(dataset.train.labelled(number, seed))
        errors = m1_errors(of_all[seed], labelled, dataset.test)
        errors["alone"] = error_alone(one, labelled, dataset.test, config.steps)
        assert one.summary is not None
        errors["m2"] = one.summary["test"]["error_rate"]
        for method, error in errors.items():
            found[number][method].append(error)
        told = ", ".join(f"{method} {errors[method]:.2%}" for method in METHODS)
        print(f"{number} labels, seed {seed}: {told}", flush=True)
    title = f"{study.title} · errors on test images of classifiers that few labels are given to"
    study.draw("errors.png", errors_by_labels(found, METHODS, title))
    return study.finish(report(config, study.title, dataset, found), errors=found)


def _settings(config: Config, dataset: Dataset, labels: int | None, seed: int) -> Settings:
    # Of M2, and without labels of the VAE of M1.
    return config.settings(
        dataset,
        condition="none" if labels is None else "inferred",
        labels=labels,
        seed=seed,
        augment=("crop",) if config.augment else (),
        steps=None,
        epochs=config.epochs or by_size(dataset, 10, 60),
        batch_size=min(config.batch_size, by_size(dataset, config.batch_size, 32)),
    )
