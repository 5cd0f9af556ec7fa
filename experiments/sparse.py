"""Sparse codes: `python -m experiments.sparse`.

Overcomplete autoencoders with a linear decoder: without a penalty, with L1, with the KL divergence of the mean
activation from a wanted one (Ng 2011), and with all but the largest units set to 0 (Makhzani & Frey 2014). Reports how
sparse the codes are, units that are never used and the reconstruction, and draws each decoder's dictionary.
"""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from experiments.flags import StudyConfig, by_size
from experiments.markdown import markdown_table
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
    # Here, as they import JAX, which --help and a bad flag do not wait for.
    from experiments.study import begin
    from vae_jax.data.loading import load_dataset
    from vae_jax.measures.sparsity import most_used_atoms
    from vae_jax.plots import dictionaries

    dataset = load_dataset(config.dataset, config.data_dir)
    members = {name: _settings(config, name, dataset) for name in NAMES}
    study = begin(config, "sparse", dataset, members.values())
    units = members["none"].latent_dim
    models, shown = {}, {}
    for name, one in study.train(members).items():
        codes = one.encode(dataset.test.images)
        assert one.summary is not None
        models[name] = {
            "reconstruction": one.summary["test"]["reconstruction"],
            **codes.sparsity()._asdict(),
            "training_seconds": one.summary["training_seconds"],
        }
        shown[NAMES[name]] = most_used_atoms(one.model, one.params, codes.means, 100)
    title = (
        f"{study.title}: decoder atoms of autoencoders with {units} units\n"
        f"the {min(100, units)} most used of each; grey is 0, white adds and black takes away"
    )
    study.draw("dictionaries.png", dictionaries(shown, title))
    return study.finish(_report(config, dataset.name, units, models), units=units, models=models)


def _settings(config: Config, name: str, dataset: "Dataset") -> Settings:
    return config.settings(
        dataset,
        model="ae",
        latent_dim=config.units or math.prod(dataset.image_shape) * 5 // 4,
        code_activation="sigmoid" if name == "kl" else "relu",
        sparsity=name,
        sparsity_weight={"l1": config.l1_weight, "kl": config.kl_weight}.get(name, 0.0),
        epochs=config.epochs or by_size(dataset, 6, 60),
    )


def _report(config: Config, dataset: str, units: int, models: dict[str, dict[str, Any]]) -> str:
    header = ["code", "reconstruction, nats", "active units", "dead units", "Hoyer", "mean activation"]
    form = "{reconstruction:.2f}|{active_share:.1%}|{dead} of {units}|{hoyer:.3f}|{mean_activation:.3g}"
    rows = [[NAMES[name], *form.format(units=units, **one).split("|")] for name, one in models.items()]
    return f"""# Sparse codes: {dataset}, {units} units

{markdown_table(header, rows)}

On the test images. Wanted: mean activation {config.sparsity_target:g} (KL), that share of the units kept (top-k). \
Active: above a tenth of the largest activation; dead: active for no test image."""


if __name__ == "__main__":
    main(Config, run)
