"""The report and the figures of `experiments.anomaly`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.study import markdown_table

if TYPE_CHECKING:
    from experiments.anomaly import Config, Protocol
    from experiments.anomaly.measure import Result
    from vae_jax.data.dataset import Dataset

SHOWN = 5
"""Images of a kind in a row of the figure."""
COLUMNS = {
    "squared_error": "squared error",
    "scaled_error": "scaled error",
    "relative_error": "relative error",
    "reconstruction": "reconstruction",
    "kl": "KL",
    "negative_elbo": "-ELBO",
    "negative_iwae_bound": "-IWAE bound",
    "latent_knn": "latent k-NN",
    "pixel_knn": "pixel k-NN",
    "scaled_pixel_knn": "scaled pixel k-NN",
    "pca_residual": "PCA residual",
    "scaled_pca_residual": "scaled PCA residual",
    "ink": "ink",
    "ink_deviation": "ink deviation",
}
BASELINES = [*COLUMNS][8:]
MARKS = """\
Published means over MNIST's ten digits, of other networks, seeds and preprocessing. [V]: read in the source project's
own files; [V2]: quoted by a third party; without a mark: from memory, [M]."""


def draw(protocol: "Protocol", results: "Sequence[Result]", dataset: "Dataset", path: Path) -> None:
    """AUROC by class and score, and the most and least anomalous images, as PNG files."""
    import numpy as np

    from experiments.anomaly import figures as plots_anomaly
    from vae_jax import plots
    from vae_jax.cli.figures import DISPLAY_NAMES

    name = DISPLAY_NAMES.get(dataset.name, dataset.name)
    known = [score for score in COLUMNS if score in results[0].detections]
    labels = [str(result.label) for result in results]
    figure = plots_anomaly.auroc(
        np.array([[result.detections[score].auroc for result in results] for score in known]),
        [COLUMNS[score] for score in known],
        labels,
        known.index(protocol.score),
        np.isin(known, BASELINES),
        protocol.axis_name,
        f"{name} · how well each score tells anomalies from normal test images\n{protocol.title}",
    )
    plots.save(figure, path / "figures" / f"auroc_{protocol.name}.png")
    # Of many classes the first ones.
    shown = results[:20]
    blank = np.ones((len(shown), len(plots_anomaly.GROUPS), SHOWN, *dataset.image_shape), np.float32)
    for row, result in zip(blank, shown, strict=True):
        for places, chosen in zip(
            row, plots_anomaly.choose_extremes(result.scores, result.anomalous, SHOWN), strict=True
        ):
            places[: len(chosen)] = dataset.test.images[chosen].astype(np.float32) / 255
    figure = plots_anomaly.extremes(
        blank,
        labels[: len(shown)],
        protocol.axis_name,
        f"{name} · the most and the least anomalous test images by {COLUMNS[protocol.score]}\n{protocol.title}",
    )
    plots.save(figure, path / "figures" / f"most_least_anomalous_{protocol.name}.png")


def report(
    config: "Config",
    dataset: "Dataset",
    protocols: "Mapping[str, Protocol]",
    results: "Mapping[str, Sequence[Result]]",
) -> str:
    """Everything in Markdown: for each protocol AUROC, average precision, thresholds, published numbers."""
    from vae_jax.cli.figures import DISPLAY_NAMES

    parts = [f"# Anomaly detection: {DISPLAY_NAMES.get(dataset.name, dataset.name)}", _notes(config, dataset)]
    for name, found in results.items():
        protocol = protocols[name]
        parts += [
            f"## {protocol.title}",
            f"The score that counts, fixed beforehand: **{COLUMNS[protocol.score]}** of {_model(protocol.settings)}.",
            "AUROC on the test images:",
            _detection_table(protocol, found, "auroc"),
            "Average precision:",
            _detection_table(protocol, found, "average_precision"),
            f"Thresholds for at most {config.false_alarm_rate:.2%} false alarms, found on the validation images of "
            "the normal classes,\nand what they give on the test images:",
            _alarm_table(protocol, found),
        ]
        if dataset.name == "mnist":
            parts += [markdown_table(["published", "mean AUROC"], protocol.published), MARKS]
    return "\n\n".join(parts)


def _notes(config: "Config", dataset: "Dataset") -> str:
    return f"""\
Trained on the train split of the normal classes; judged on all {len(dataset.test):,} test images by their labels. Which
score counts and the model's settings were chosen on MNIST's validation images, never on test labels.

- squared error: ||x - x'||² of the image decoded from the posterior mean; scaled error: the same over ||x||; relative
  error: over ||x||²; reconstruction: loss averaged over {config.samples} latent samples; KL: of the posterior from the
  prior; -ELBO: reconstruction + KL; -IWAE bound: from {config.samples} importance samples, an upper bound of the
  negative log-likelihood of the model.
- latent k-NN: mean distance of the posterior mean to the {config.neighbours} nearest ones of the training images.
- Baselines: mean distance to the {config.neighbours} nearest training images in raw pixels (pixel k-NN); squared
  distance from the first {config.components} principal components of the training images (PCA residual); both also
  scaled, their square over ||x|| as in the scaled error; sum of the pixels (ink), and its distance from the median of
  the training images (ink deviation)."""


def _model(settings: "Mapping[str, Any]") -> str:
    words = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in settings.items())
    return f"a VAE ({words})"


def _detection_table(protocol: "Protocol", results: "Sequence[Result]", number: str) -> str:
    import numpy as np

    known = [score for score in COLUMNS if score in results[0].detections]
    values = np.array([[getattr(result.detections[score], number) for score in known] for result in results])
    header = [protocol.axis_name, *(COLUMNS[name] + ("*" if name == protocol.score else "") for name in known)]
    rows = [[str(result.label), *map("{:.3f}".format, row)] for result, row in zip(results, values, strict=True)]
    return markdown_table(header, [*rows, ["mean", *map("{:.4f}".format, values.mean(axis=0))]])


def _alarm_table(protocol: "Protocol", results: "Sequence[Result]") -> str:
    header = [protocol.axis_name, "validation images", "threshold", "false alarms", "anomalies found"]
    rows, notes = [], []
    for result in results:
        alarm = result.alarm
        row = [str(result.label), f"{alarm['validation_images']:,}"]
        if alarm["threshold"] is None:
            rows.append([*row, "none", "", ""])
            notes.append(alarm["reason"])
        else:
            rows.append(
                [*row, *(f"{alarm['threshold']:.5g}", f"{alarm['false_alarms']:.2%}", f"{alarm['detected']:.1%}")]
            )
    table = markdown_table(header, rows)
    return table if not notes else f"{table}\n\nWhere there is none, the validation images are too few: {notes[0]}"
