"""The studies of the README's second table: how each is run, and its line from the recorded summary."""

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from experiments import anomaly, compare, compression, denoising, dimensionality, reparametrisation, sparse, sweep
from experiments.markdown import with_half


class Use(NamedTuple):
    """One use of an autoencoder."""

    study: ModuleType
    title: str
    line: Callable[[dict[str, Any]], str]
    """The result in words, from summary.json."""
    figure: str
    """Which of the study's figures the README shows."""

    @property
    def name(self) -> str:
        """Of the module under experiments, and of the folder under the recorded runs."""
        return self.study.__name__.rpartition(".")[2]


def _compare(summary: dict[str, Any]) -> str:
    def cell(name: str, key: str, digits: int) -> str:
        mean, half = summary["measured"][name][key]
        return with_half(mean, half, digits)

    def both(key: str, digits: int) -> str:
        return f"AE {cell('ae', key, digits)}, VAE {cell('vae', key, digits)}"

    return (
        f"reconstruction {both('reconstruction', 1)} nats; precision of samples from N(0, I) "
        f"{both('prior_precision', 2)}, recall {both('prior_recall', 2)}; decoder gain {both('gain_median', 1)}; "
        f"5-NN {both('knn_accuracy', 3)}"
    )


def _sweep(summary: dict[str, Any]) -> str:
    points = next(iter(summary["points"].values()))
    each = (f"β {p['beta']:g}: {p['reconstruction']:.1f} + {p['kl']:.1f}, σ {p['sigma'][1]:.2g}" for p in points)
    return "reconstruction + KL in nats, median σ: " + "; ".join(each)


def _reparametrisation(summary: dict[str, Any]) -> str:
    times = summary["samples_for_equal_variance"]
    return (
        f"a score-function gradient needs {times['score']:,.0f} times the samples for the variance of the pathwise "
        f"one, {times['baseline']:,.1f} times with a baseline; through a plain sample no gradient comes"
    )


def _sparse(summary: dict[str, Any]) -> str:
    each = (
        f"{sparse.NAMES[name]} {one['active_share']:.0%} active, {one['dead']} dead, {one['reconstruction']:.1f} nats"
        for name, one in summary["models"].items()
    )
    return f"{summary['units']} units: " + "; ".join(each)


def _dimensionality(summary: dict[str, Any]) -> str:
    each = (
        f"{row['latent_dim']}-D {row['method']} {row['knn_5']:.3f}"
        for row in sorted(summary["rows"], key=lambda row: row["latent_dim"])
    )
    return "5-NN accuracy on test images: " + ", ".join(each)


def _denoising(summary: dict[str, Any]) -> str:
    names = {"gaussian": "Gaussian", "gaussian_clipped": "clipped Gaussian", "salt_and_pepper": "salt and pepper"}
    each = (
        f"{names.get(row['corruption'], row['corruption'])} {row['level']:g}: {row['psnr']['denoising AE']:.1f} "
        f"({row['psnr']['linear MMSE']:.1f})"
        for row in summary["rows"]
    )
    return "mean PSNR in dB of a denoising AE (of the linear MMSE estimator): " + "; ".join(each)


def _anomaly(summary: dict[str, Any]) -> str:
    means = {
        name.replace("_", " "): (found["mean"][found["score"]]["auroc"], found["score"].replace("_", " "))
        for name, found in summary["protocols"].items()
    }
    return "; ".join(f"{name}: mean AUROC {mean:.3f} by {score}" for name, (mean, score) in means.items())


def _compression(summary: dict[str, Any]) -> str:
    parts = []
    for name, rows in summary["at_equal_psnr"].items():
        middle = rows[len(rows) // 2]
        times = ", ".join(
            f"{other} {middle[other] / middle[name]:.1f} times"
            for other in ("JPEG", "WebP", "PCA")
            if middle.get(other)
        )
        parts.append(f"{name} {middle[name]:.3f} bits a pixel at {middle['psnr']:.1f} dB; for as much {times} the bits")
    return "; ".join(parts)


FLAGS = "--dataset mnist"
"""Of every study, beside --output."""
USES = [
    Use(compare, "AE against VAE, five seeds each", _compare, "ae_and_vae.png"),
    Use(sweep, "what the KL term does", _sweep, "sweep.png"),
    Use(reparametrisation, "what the reparametrisation does", _reparametrisation, "gradient_variance.png"),
    Use(dimensionality, "reducing dimensions", _dimensionality, "embeddings.png"),
    Use(denoising, "denoising", _denoising, "denoising.png"),
    Use(anomaly, "finding anomalies", _anomaly, "most_least_anomalous_one_class.png"),
    Use(compression, "compressing", _compression, "rate_distortion.png"),
    Use(sparse, "sparse codes", _sparse, "dictionaries.png"),
]


def make_uses_table(summaries: dict[str, dict[str, Any]], machine: str) -> str:
    """The Markdown table of the recorded studies, one line and one figure each."""
    lines = ["| use | command | result |", "|---|---|---|"]
    for use in USES:
        lines.append(f"| {use.title} | `experiments.{use.name} {FLAGS}` | {use.line(summaries[use.name])} |")
    figures = [f"![{use.title}](docs/figures/{use.name}.png)" for use in USES]
    return "\n\n".join(["\n".join(lines), f"Recorded on {machine}.", *figures])
