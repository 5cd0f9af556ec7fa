"""Trains, measures, draws and reports: the study of `experiments.lossless`."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from experiments.flags import by_size
from experiments.lossless import Config
from experiments.lossless.figures import bars
from experiments.lossless.measure import ALONE, OURS, Measured, measure
from experiments.markdown import markdown_table
from experiments.study import begin
from vae_jax.cli.command import TrainingConfig
from vae_jax.cli.defaults import About, decided
from vae_jax.codecs.lossless.convert import check_codable
from vae_jax.config import Settings
from vae_jax.data.dataset import Dataset
from vae_jax.data.loading import load_dataset
from vae_jax.errors import counted
from vae_jax.runs.run import load_dataset_of, load_run

PUBLISHED = {
    "binarised": "BB-ANS 0.194 (Townsend et al. 2019)",
    "grey": "BB-ANS 1.41 (Townsend et al. 2019), Bit-Swap 1.27 to 1.28 (Kingma et al. 2019)",
}
_EXPLAINED = """\
How bits back pays for the latent: the decoder must know the latent of an image, which costs the bits in the column \
*sent* under the prior. But the encoder chose it at random by the posterior, and its choice was made with bits that \
lay on the stack already: the decoder finds the posterior again, once it has the image, and reads these bits back, the \
column *back*. What remains is their difference, the KL term. Without bits back a file would be longer by all of \
*back*; of a single image it is, as nothing lies on the stack yet: its latent is then the mean, without chance."""


def run(config: Config) -> dict[str, Any]:
    """Train where no run is given, compress the test images in every way, draw and report."""
    given = load_run(config.run) if config.run else None
    if given:
        check_codable(given)
    dataset = load_dataset_of(given, config.data_dir) if given else load_dataset(config.dataset, config.data_dir)
    members = {} if given else _members(config, dataset)
    study = begin(config, "lossless", dataset, members.values())
    runs = {"run": given} if given else study.train(members)
    measured = {name: measure(one, dataset, config.images, config.seed) for name, one in runs.items()}
    for name, each in measured.items():
        rates = {way: (each.together[way], each.alone[way]) for way in each.together}
        title = f"{study.title}, {name} · lossless compression of {counted(each.number, 'test image')}"
        study.draw(f"{name}.png", bars(rates, each.numbers["bound"], title))
    published = PUBLISHED if dataset.name == "mnist" else {}
    numbers = {name: dataclasses.asdict(each) for name, each in measured.items()}
    return study.finish(report(study.title, measured, published), models=numbers)


def _members(config: Config, dataset: Dataset) -> dict[str, Settings]:
    size = math.prod(dataset.image_shape)
    common: Any = {
        "latent_dim": config.latent_dim or min(40, max(1, size // 2)),
        "epochs": config.epochs or by_size(dataset, 12, 60),
        "batch_size": min(Settings.batch_size, len(dataset.train)),
    }
    if dataset.image_shape[-1] == 3:
        photographs: Any = {"arch": "residual", "latent": "map", "likelihood": "discretized_logistic"}
        chosen = decided(TrainingConfig(**photographs, latent_dim=config.latent_dim), About.of(dataset.train))
        photographs |= {name: getattr(chosen, name) for name in ("latent_dim", "batch_size", "learning_rate")}
        return {"colour": config.settings(dataset, **(common | photographs))}
    networks: Any = {"hidden_sizes": (400, 400)}
    return {
        "binarised": config.settings(dataset, **common, **networks, binarize="dynamic"),
        "grey": config.settings(dataset, **common, **networks, likelihood="beta_binomial"),
    }


def report(title: str, measured: Mapping[str, Measured], published: Mapping[str, str]) -> str:
    """The tables in Markdown."""
    parts = [f"# Lossless compression: {title}"]
    for name, each in measured.items():
        n = each.numbers
        over = 100 * (each.together[OURS] / n["bound"] - 1)
        rows = [[way, f"{each.together[way]:.4f}", f"{each.alone[way]:.4f}"] for way in each.together]
        rows.append(["-ELBO", f"{n['bound']:.4f}", ""])
        alone = f"the first {min(ALONE, each.number)}, a file each"
        header = ["bits a value", f"{counted(each.number, 'test image')}, one file", alone]
        parts += [
            f"## {name}",
            markdown_table(header, rows),
            f"The file is {over:+.2f}% longer than the bound. It takes {n['encode_seconds']:.1f} s of a processor to "
            f"encode, which decodes it again, and {n['decode_seconds']:.1f} s to decode. One image is "
            f"{n['bytes_of_an_image']:.0f} bytes. Both ways need the run's codec, {n['codec_bytes'] / 1e6:.1f} MB.",
            markdown_table(
                ["bits a value", "pixels given the latent", "latent sent", "latent back", "KL: sent less back"],
                [["", *(f"{n[key]:.4f}" for key in ("reconstruction", "latents_sent", "latents_back", "kl"))]],
            ),
        ]
        parts += [f"Published: {published[name]}, by models of their own."] if name in published else []
    parts += [
        "All bytes counted, of ours the header too. gzip, bz2 and xz (at their strongest) see the bytes of the images, "
        "of black and white ones their bits; PNG and WebP all images edge to edge in one picture.",
        _EXPLAINED,
    ]
    return "\n\n".join(parts)
