"""Trains, measures, draws and reports: the study of `experiments.compare`."""

from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.compare import Config
from experiments.compare.figures import compared
from experiments.compare.measure import Yardstick, measure, measure_pca
from experiments.flags import by_size
from experiments.markdown import interval, markdown_table, with_half
from experiments.study import begin, check_alike, data_of
from vae_jax.config import Settings
from vae_jax.data.dataset import Dataset
from vae_jax.data.loading import load_dataset
from vae_jax.errors import UsageError, counted
from vae_jax.runs.run import Run, load_dataset_of, load_run

# Name in summary.json, what the table calls it, digits after the point; higher or lower is better, or neither.
ROWS = [
    ("reconstruction", "reconstruction, nats", 2, "lower"),
    ("reconstruction_at_mean", "reconstruction at the latent mean, nats", 2, "lower"),
    ("squared_error", "squared error at the latent mean", 2, "lower"),
    ("kl", "KL, nats", 2, ""),
    ("knn_accuracy", "5-NN accuracy on latent means", 3, "higher"),
    ("gain_median", "decoder gain a robust deviation, median", 2, "lower"),
    ("gain_95", "decoder gain a robust deviation, 95%", 2, "lower"),
    ("path_stretch", "path length / distance of its ends", 2, "lower"),
    ("excess_flips", "label changes a path beyond the needed", 2, "lower"),
    ("excess_flip_share", "share of label changes not needed", 2, "lower"),
    ("prior_precision", "precision of samples from N(0, I)", 3, "higher"),
    ("prior_recall", "recall of samples from N(0, I)", 3, "higher"),
    ("prior_frechet", "Fréchet distance of samples from N(0, I)", 3, "lower"),
    ("mixture_precision", "precision of samples from a mixture", 3, "higher"),
    ("mixture_recall", "recall of samples from a mixture", 3, "higher"),
    ("mixture_frechet", "Fréchet distance of samples from a mixture", 3, "lower"),
    ("distance_from_prior", "distance of the latents from N(0, I)", 2, "lower"),
]


NOTES = """\
On the test images. Decoder gain: largest singular value of the decoder's Jacobian for steps of one standard deviation \
of the latents, told by their interquartile range. Paths: decoded straight lines between test latents; label changes \
by 5-NN in the last hidden layer of a frozen classifier, scaled to unit length. Precision and recall: in the same \
features, where other real images have 0.95. Mixture: ten Gaussians fitted to the training latents afterwards. \
Distance: sliced Wasserstein-2. PCA's latents are scaled to unit variance for the rows about N(0, I)."""


def run(config: Config) -> dict[str, Any]:
    """Train what is missing, measure, draw, report; gives back the summary."""
    given = _given(config)
    every = [*given["ae"], *given["vae"]]
    if every:
        dataset = load_dataset_of(every[0], config.data_dir)
        if config.dataset not in (None, every[0].config.dataset, dataset.name):
            raise UsageError(f"--dataset is {config.dataset!r}, but {every[0].path} was trained on {dataset.name!r}.")
    else:
        dataset = load_dataset(config.dataset, config.data_dir)
    members = {name: _members(config, name, dataset) for name in given if not given[name]}
    study = begin(config, "compare", dataset, [s for each in members.values() for s in each.values()], config.seeds)
    runs = {name: given[name] or [*study.train(members[name], together=True).values()] for name in given}
    yardstick = Yardstick.of(dataset, config.samples)
    measured: dict[str, list[dict[str, float]]] = {}
    for name, each in runs.items():
        measured[name] = []
        for i, one in enumerate(each):
            print(f"measuring {name} {i + 1} of {len(each)}", flush=True)
            measured[name].append(measure(one, dataset, yardstick))
    measured["pca"] = [measure_pca(runs["ae"][0].model.latent_dim, dataset, yardstick)]
    study.draw("ae_and_vae.png", compared(runs["ae"][0], runs["vae"][0], dataset, yardstick, study.title))
    numbers: dict[str, Any] = {
        "seeds": {name: len(each) for name, each in runs.items()},
        "epochs": {name: len(each[0].metrics) for name, each in runs.items()},
        "training_seconds": {name: sum(row["seconds"] for row in each[0].metrics) for name, each in runs.items()},
        "measured": {
            name: {key: interval([o[key] for o in each]) for key in each[0]} for name, each in measured.items()
        },
        "each": measured,
    }
    return study.finish(_report(dataset.name, numbers, runs), **numbers)


def _given(config: Config) -> dict[str, list[Run]]:
    # The runs that the user points at, checked before anything is written.
    found = {name: [load_run(path) for path in getattr(config, name)] for name in ("ae", "vae")}
    for name, each in found.items():
        for one in each:
            if one.config.model != name:
                raise UsageError(f"--{name} {one.path} is a run of another model: {one.model.name}.")
    every = [*found["ae"], *found["vae"]]
    properties: dict[str, Callable[[Run], Any]] = {
        "latent dimension": lambda one: one.model.latent_dim,
        "data": data_of,
        "likelihood": lambda one: one.config.likelihood,
        "binarisation": lambda one: one.config.binarize,
    }
    check_alike(every, properties)
    if every and config.latent_dim != every[0].model.latent_dim and not (found["ae"] and found["vae"]):
        raise UsageError(
            f"--latent-dim must be {every[0].model.latent_dim} as in {every[0].path}, got {config.latent_dim}."
        )
    return found


def _members(config: Config, name: str, dataset: Dataset) -> dict[str, Settings]:
    changes = {
        "model": name,
        "epochs": config.epochs or by_size(dataset, 15, 20),
        "learning_rate": config.ae_learning_rate if name == "ae" else config.vae_learning_rate,
    }
    return {f"{name}-seed{seed}": config.settings(dataset, seed=seed, **changes) for seed in range(config.seeds)}


def _report(dataset: str, numbers: dict[str, Any], runs: dict[str, list[Run]]) -> str:
    measured, latent = numbers["measured"], runs["ae"][0].model.latent_dim
    rows = [
        [title, *(_cell(measured[name].get(key), digits) for name in ("ae", "vae", "pca")), better]
        for key, title, digits, better in ROWS
    ]
    seeds, epochs = numbers["seeds"], {name: counted(number, "epoch") for name, number in numbers["epochs"].items()}
    times = numbers["training_seconds"]
    trained = ", ".join(f"{counted(seeds[name], name.upper())} in {times[name]:.0f} s" for name in seeds)
    different = _different([*runs["ae"], *runs["vae"]])
    given = f"Given runs: {'; '.join(different)}.\n" if different else ""
    return f"""# AE against VAE: {dataset}, latent dimension {latent}

{markdown_table([f"{dataset}, {latent}-D", "AE", "VAE", "PCA", "better"], rows)}

Means over seeds with 95% intervals (Student's t); {epochs["ae"]} and {epochs["vae"]}; training took: {trained}.
{given}{NOTES}"""


def _different(runs: list[Run]) -> list[str]:
    # In what the models differ beside seed and kind: then the comparison is not a fair one.
    names = ("arch", "hidden_sizes", "epochs", "batch_size", "activation")
    values = {name: sorted({str(getattr(one.config, name)) for one in runs}) for name in names}
    return [f"{name.replace('_', ' ')} differ: {', '.join(v)}" for name, v in values.items() if len(v) > 1]


def _cell(value: tuple[float, float | None] | None, digits: int) -> str:
    if value is None or not np.isfinite(value[0]):
        return ""
    return with_half(*value, digits)
