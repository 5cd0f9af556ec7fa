"""AE against VAE, fairly: `python -m experiments.compare --latent-dim 2`.

The same networks, data order, batches and epochs; several seeds of each model trained together in one compiled program;
means and 95% intervals over the seeds. What the KL term buys is measured: reconstruction, 5-NN accuracy, continuity
and completeness of the latent space, and the quality of samples, also from a mixture fitted to the codes afterwards
(Ghosh et al. 2020), without which an autoencoder's samples would be a straw man.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from experiments.study import StudyConfig, begin, finish, interval, markdown_table, trained_together
from vae_jax.config import Settings
from vae_jax.domains import MOST_SAMPLES, MOST_SHOWN, MOST_UNITS, at_least, epoch_number, layer_sizes, positive
from vae_jax.errors import UsageError

if TYPE_CHECKING:
    from vae_jax.data.dataset import Dataset
    from vae_jax.runs.run import Run


@dataclasses.dataclass(frozen=True)
class Config(StudyConfig):
    """Train AEs and VAEs of several seeds, measure both, draw them side by side."""

    latent_dim: int = at_least(1, 2, most=MOST_UNITS)
    """Dimensions of both latent spaces."""
    seeds: int = at_least(1, 5, most=MOST_SHOWN)
    """Models of each kind."""
    epochs: int | None = epoch_number()
    """Passes over the training images. Default: 15, and 20 for fewer than 10,000 images."""
    hidden_sizes: tuple[int, ...] | None = layer_sizes()
    """Widths of the encoder's hidden layers, mirrored by the decoder. Default: as in experiments.mnist."""
    arch: Literal["mlp", "conv"] = "mlp"
    """Networks of both."""
    batch_size: int = at_least(1, 256)
    """Images a step."""
    ae_learning_rate: float = positive(3e-3)
    """Peak learning rate of the AE; of 1e-3, 2e-3 and 3e-3 this is the best on MNIST's validation split."""
    vae_learning_rate: float = positive(3e-3)
    """Peak learning rate of the VAE; of 1e-3, 2e-3 and 3e-3 this is the best on MNIST's validation split."""
    ae: tuple[Path, ...] = ()
    """Finished runs of AEs to measure in place of training some."""
    vae: tuple[Path, ...] = ()
    """Finished runs of VAEs to measure in place of training some."""
    samples: int = at_least(10, 2000, most=MOST_SAMPLES)
    """Images to generate for precision, recall and Fréchet distance."""


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


def run(config: Config) -> dict[str, Any]:
    """Train what is missing, measure, draw, report; gives back the summary."""
    from experiments.compare.draw import draw
    from experiments.compare.measure import Yardstick, measure, measure_pca
    from vae_jax.data.dataset import load_dataset
    from vae_jax.runs.run import load_dataset_of

    given = _given(config)
    every = [*given["ae"], *given["vae"]]
    if every:
        dataset = load_dataset_of(every[0], config.data_dir)
        if config.dataset not in (None, every[0].config.dataset, dataset.name):
            raise UsageError(f"--dataset is {config.dataset!r}, but {every[0].path} was trained on {dataset.name!r}.")
    else:
        dataset = load_dataset(config.dataset, config.data_dir)
    wanted = {name: _members(config, name, dataset) for name in ("ae", "vae") if not given[name]}
    path = begin(config, "compare", dataset, [settings for each in wanted.values() for settings in each], config.seeds)
    runs = {name: given[name] or _train(name, wanted[name], dataset, path) for name in ("ae", "vae")}
    yardstick = Yardstick.of(dataset, config.samples)
    measured: dict[str, Any] = {}
    for name, members in runs.items():
        measured[name] = []
        for i, member in enumerate(members):
            print(f"measuring {name} {i + 1} of {len(members)}", flush=True)
            measured[name].append(measure(member, dataset, yardstick))
    measured["pca"] = [measure_pca(runs["ae"][0].model.latent_dim, dataset, yardstick)]
    means = {name: {key: interval([one[key] for one in each]) for key in each[0]} for name, each in measured.items()}
    figure = path / "figures" / "ae_and_vae.png"
    draw(runs["ae"][0], runs["vae"][0], dataset, yardstick, figure)
    seconds = {name: sum(row["seconds"] for row in members[0].metrics) for name, members in runs.items()}
    numbers = {
        "dataset": dataset.name,
        "seeds": {name: len(members) for name, members in runs.items()},
        "epochs": {name: len(members[0].metrics) for name, members in runs.items()},
        "training_seconds": seconds,
        "measured": means,
        "each": measured,
        "figures": [str(figure)],
    }
    return finish(path, "compare", _report(numbers, runs), numbers)


def _given(config: Config) -> "dict[str, list[Run]]":
    # The runs that the user points at, checked before anything is written.
    from vae_jax.models.autoencoders import VariationalAutoencoder
    from vae_jax.runs.run import load_run

    found = {name: [load_run(path) for path in getattr(config, name)] for name in ("ae", "vae")}
    for name, members in found.items():
        for member in members:
            if isinstance(member.model, VariationalAutoencoder) != (name == "vae"):
                raise UsageError(f"--{name} {member.path} is a run of another model: {member.model.name}.")
    every = [member for members in found.values() for member in members]
    for member in every[1:]:
        for what, own, first in (
            ("latent dimension", member.model.latent_dim, every[0].model.latent_dim),
            ("data", member.dataset["sha256"], every[0].dataset["sha256"]),
            ("likelihood", member.config.likelihood, every[0].config.likelihood),
            ("binarisation", member.config.binarize, every[0].config.binarize),
        ):
            if own != first:
                raise UsageError(f"{member.path} has another {what} than {every[0].path}: {own} and {first}.")
    if every and config.latent_dim != every[0].model.latent_dim and not (found["ae"] and found["vae"]):
        raise UsageError(
            f"--latent-dim must be {every[0].model.latent_dim} as in {every[0].path}, got {config.latent_dim}."
        )
    return found


def _members(config: Config, name: str, dataset: "Dataset") -> list[Settings]:
    return [
        config.settings(
            dataset,
            model=name,
            arch=config.arch,
            hidden_sizes=config.hidden_sizes,
            latent_dim=config.latent_dim,
            epochs=config.epochs or (15 if len(dataset.train) >= 10_000 else 20),
            batch_size=config.batch_size,
            learning_rate=config.ae_learning_rate if name == "ae" else config.vae_learning_rate,
            seed=seed,
        )
        for seed in range(config.seeds)
    ]


def _train(name: str, members: list[Settings], dataset: "Dataset", path: Path) -> "list[Run]":
    return trained_together([path / f"{name}-seed{settings.seed}" for settings in members], members, dataset)


def _report(numbers: dict[str, Any], runs: "dict[str, list[Run]]") -> str:
    measured, latent = numbers["measured"], runs["ae"][0].model.latent_dim
    rows = [
        [title, *(_cell(measured[name].get(key), digits) for name in ("ae", "vae", "pca")), better]
        for key, title, digits, better in ROWS
    ]
    header = [f"{numbers['dataset']}, {latent}-D", "AE", "VAE", "PCA", "better"]
    seeds, epochs = numbers["seeds"], numbers["epochs"]
    trained = ", ".join(f"{seeds[name]} {name.upper()}s in {numbers['training_seconds'][name]:.0f} s" for name in seeds)
    return "\n".join(
        [
            f"# AE against VAE: {numbers['dataset']}, latent dimension {latent}",
            "",
            markdown_table(header, rows),
            "",
            f"Means over seeds with 95% intervals (Student's t); {epochs['ae']} and {epochs['vae']} epochs; "
            f"training took: {trained}.",
            *(["Given runs: " + "; ".join(_different(runs)) + "."] if _different(runs) else []),
            "On the test images. Decoder gain: largest singular value of the decoder's Jacobian for steps of one "
            "standard deviation of the latents, told by their interquartile range. Paths: decoded straight lines "
            "between test latents; label changes by 5-NN in the last hidden layer of a frozen classifier, scaled to "
            "unit length. Precision and recall: in the same features, where other real images have 0.95. Mixture: "
            "ten Gaussians fitted to the training latents afterwards. Distance: sliced Wasserstein-2. PCA's latents "
            "are scaled to unit variance for the rows about N(0, I).",
        ]
    )


def _different(runs: "dict[str, list[Run]]") -> list[str]:
    # In what the models differ beside seed and kind: then the comparison is not a fair one.
    found = []
    for name in ("arch", "hidden_sizes", "epochs", "batch_size", "activation"):
        values = {str(getattr(member.config, name)) for members in runs.values() for member in members}
        if len(values) > 1:
            found.append(f"{name.replace('_', ' ')} differ: {', '.join(sorted(values))}")
    return found


def _cell(value: tuple[float, float | None] | None, digits: int) -> str:
    if value is None or not np.isfinite(value[0]):
        return ""
    mean, half = value
    return f"{mean:.{digits}f}" + ("" if half is None else f" ± {half:.{digits}f}")
