"""The report and the figures of `experiments.anomaly`."""

from collections.abc import Mapping, Sequence

import numpy as np

from experiments.anomaly import figures
from experiments.anomaly.measure import Bench, Result
from experiments.anomaly.protocols import MODEL, PROTOCOLS, Protocol
from experiments.study import Study, display_name
from experiments.tables import markdown_table

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


def draw(study: Study, protocol: Protocol, results: Sequence[Result]) -> None:
    """AUROC by class and score, and the most and least anomalous images."""
    known = [score for score in COLUMNS if score in results[0].detections]
    labels = [study.dataset.name_of(result.label) for result in results]
    figure = figures.auroc(
        np.array([[result.detections[score].auroc for result in results] for score in known]),
        [COLUMNS[score] for score in known],
        labels,
        known.index(protocol.score),
        np.isin(known, BASELINES),
        protocol.axis_name,
        f"{study.title} · how well each score tells anomalies from normal test images\n{protocol.title}",
    )
    study.draw(f"auroc_{protocol.name}.png", figure)
    shown, images = results[:20], study.dataset.test.images  # of many classes the first ones
    panels = np.ones((len(shown), len(figures.GROUPS), SHOWN, *images.shape[1:]), np.float32)
    for row, result in zip(panels, shown, strict=True):
        groups = figures.choose_extremes(result.scores, result.anomalous, SHOWN)
        for places, chosen in zip(row, groups, strict=True):
            places[: len(chosen)] = images[chosen].astype(np.float32) / 255
    title = f"{study.title} · the most and the least anomalous test images by {COLUMNS[protocol.score]}"
    figure = figures.extremes(panels, labels[: len(shown)], protocol.axis_name, f"{title}\n{protocol.title}")
    study.draw(f"most_least_anomalous_{protocol.name}.png", figure)


def report(bench: Bench, results: Mapping[str, Sequence[Result]]) -> str:
    """Everything in Markdown: for each protocol AUROC, average precision, thresholds, published numbers."""
    model = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in MODEL.items())
    parts = [f"# Anomaly detection: {display_name(bench.dataset)}", _notes(bench)]
    for name, found in results.items():
        protocol = PROTOCOLS[name]
        parts += [
            f"## {protocol.title}",
            f"The score that counts, fixed beforehand: **{COLUMNS[protocol.score]}** of a VAE ({model}).",
            "AUROC on the test images:",
            _detection_table(protocol, found, "auroc"),
            "Average precision:",
            _detection_table(protocol, found, "average_precision"),
            f"Thresholds for at most {bench.false_alarm_rate:.2%} false alarms, found on the validation images of "
            "the normal classes,\nand what they give on the test images:",
            _alarm_table(protocol, found),
        ]
        if bench.dataset.name == "mnist":
            parts += [markdown_table(["published", "mean AUROC"], protocol.published), MARKS]
    return "\n\n".join(parts)


def _notes(bench: Bench) -> str:
    number = f"{len(bench.dataset.test):,}"
    return f"""\
Trained on the train split of the normal classes; judged on all {number} test images by their labels. Which
score counts and the model's settings were chosen on MNIST's validation images, never on test labels.

- squared error: ||x - x'||² of the image decoded from the posterior mean; scaled error: the same over ||x||; relative
  error: over ||x||²; reconstruction: loss averaged over {bench.samples} latent samples; KL: of the posterior from the
  prior; -ELBO: reconstruction + KL; -IWAE bound: from {bench.samples} importance samples, an upper bound of the
  negative log-likelihood of the model.
- latent k-NN: mean distance of the posterior mean to the {bench.neighbours} nearest ones of the training images.
- Baselines: mean distance to the {bench.neighbours} nearest training images in raw pixels (pixel k-NN); squared
  distance from the first {bench.components} principal components of the training images (PCA residual); both also
  scaled, their square over ||x|| as in the scaled error; sum of the pixels (ink), and its distance from the median of
  the training images (ink deviation)."""


def _detection_table(protocol: Protocol, results: Sequence[Result], number: str) -> str:
    known = [score for score in COLUMNS if score in results[0].detections]
    values = np.array([[getattr(result.detections[score], number) for score in known] for result in results])
    header = [protocol.axis_name, *(COLUMNS[name] + ("*" if name == protocol.score else "") for name in known)]
    rows = [[str(result.label), *map("{:.3f}".format, row)] for result, row in zip(results, values, strict=True)]
    return markdown_table(header, [*rows, ["mean", *map("{:.4f}".format, values.mean(axis=0))]])


def _alarm_table(protocol: Protocol, results: Sequence[Result]) -> str:
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
