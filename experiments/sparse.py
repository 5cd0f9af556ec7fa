"""Sparse codes: `python -m experiments.sparse`.

Overcomplete autoencoders with a linear decoder: without a penalty, with L1, with the KL divergence of the mean
activation from a wanted one (Ng 2011), and with all but the largest units set to 0 (Makhzani & Frey 2014). Reports how
sparse the codes are, units that are never used and the reconstruction, and draws each decoder's dictionary.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.study import StudyConfig, begin, finish, markdown_table, trained
from vae_jax.cli.command import main
from vae_jax.config import Settings
from vae_jax.domains import MOST_UNITS, at_least, epoch_number, layer_sizes, positive, probability

if TYPE_CHECKING:
    from vae_jax.data.dataset import Dataset


@dataclasses.dataclass(frozen=True)
class Config(StudyConfig):
    """Train autoencoders with sparse, overcomplete codes, measure and draw their dictionaries."""

    units: int | None = at_least(2, None, most=MOST_UNITS)
    """Units of the code. Default: a quarter more than an image has pixels."""
    hidden_sizes: tuple[int, ...] = layer_sizes(())
    """Hidden layers of the encoder, mirrored by the decoder. Default: none, a linear decoder."""
    epochs: int | None = epoch_number()
    """Passes over the training images. Default: 6, and 60 for fewer than 10,000 images."""
    l1_weight: float = positive(0.1)
    """Weight of the L1 penalty."""
    kl_weight: float = positive(2.0)
    """Weight of the KL penalty."""
    sparsity_target: float = probability(0.05)
    """Wanted mean activation (kl), and share of the units kept (topk)."""
    batch_size: int = at_least(1, 256)
    """Images a step."""
    learning_rate: float = positive(3e-3)
    """Peak of Adam's learning rate."""


NAMES = {"none": "no penalty", "l1": "L1", "kl": "KL", "topk": "top-k"}


def run(config: Config) -> dict[str, Any]:
    """Train what is missing, measure, draw, report; gives back the summary."""
    from vae_jax import plots
    from vae_jax.cli.figures import DISPLAY_NAMES
    from vae_jax.data.dataset import load_dataset
    from vae_jax.measures.sparsity import measure_sparsity, most_used_atoms
    from vae_jax.models.evaluation import encode_images
    from vae_jax.plots.sparsity import dictionaries

    dataset = load_dataset(config.dataset, config.data_dir)
    members = _members(config, dataset)
    path = begin(config, "sparse", dataset, list(members.values()))
    runs = {name: trained(path / name, settings, dataset) for name, settings in members.items()}
    numbers: dict[str, Any] = {"dataset": dataset.name, "units": runs["none"].model.latent_dim, "models": {}}
    shown = {}
    for name, one in runs.items():
        codes = encode_images(one.model, one.params, dataset.test.images, one.evaluation_key)[0]
        assert one.summary is not None
        numbers["models"][name] = {
            "reconstruction": one.summary["test"]["reconstruction"],
            **measure_sparsity(codes)._asdict(),
            "training_seconds": one.summary["training_seconds"],
        }
        shown[NAMES[name]] = most_used_atoms(one.model, one.params, codes, 100)
    figure = path / "figures" / "dictionaries.png"
    figure.parent.mkdir(exist_ok=True)
    title = (
        f"{DISPLAY_NAMES.get(dataset.name, dataset.name)}: decoder atoms of autoencoders with {numbers['units']} units"
    )
    plots.save(
        dictionaries(
            shown,
            f"{title}\nthe {min(100, numbers['units'])} most used of each; grey is 0, white adds and black takes away",
        ),
        figure,
    )
    numbers["figures"] = [str(figure)]
    return finish(path, "sparse", _report(config, numbers), numbers)


def _members(config: Config, dataset: "Dataset") -> dict[str, Settings]:
    pixels = int(np.prod(dataset.image_shape))
    weights = {"l1": config.l1_weight, "kl": config.kl_weight}
    return {
        name: config.settings(
            dataset,
            model="ae",
            latent_dim=config.units or pixels * 5 // 4,
            hidden_sizes=config.hidden_sizes,
            code_activation="sigmoid" if name == "kl" else "relu",
            sparsity=name,
            sparsity_weight=weights.get(name, 0.0),
            sparsity_target=config.sparsity_target,
            epochs=config.epochs or (6 if len(dataset.train) >= 10_000 else 60),
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
        )
        for name in NAMES
    }


def _report(config: Config, numbers: dict[str, Any]) -> str:
    header = ["code", "reconstruction, nats", "active units", "dead units", "Hoyer", "mean activation"]
    rows = [
        [
            NAMES[name],
            f"{one['reconstruction']:.2f}",
            f"{one['active_share']:.1%}",
            f"{one['dead']} of {numbers['units']}",
            f"{one['hoyer']:.3f}",
            f"{one['mean_activation']:.3g}",
        ]
        for name, one in numbers["models"].items()
    ]
    return "\n".join(
        [
            f"# Sparse codes: {numbers['dataset']}, {numbers['units']} units",
            "",
            markdown_table(header, rows),
            "",
            f"On the test images. Wanted: mean activation {config.sparsity_target:g} (KL), that share of the units "
            "kept (top-k). Active: above a tenth of the largest activation; dead: active for no test image.",
        ]
    )


if __name__ == "__main__":
    main(Config, run)
