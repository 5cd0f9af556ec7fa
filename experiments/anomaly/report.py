"""The report and the figures of `experiments.anomaly`."""

from collections.abc import Mapping, Sequence

import numpy as np

from experiments.anomaly import figures
from experiments.anomaly.measure import MODEL, PROTOCOLS, Bench, Protocol, Result
from experiments.markdown import markdown_table
from experiments.study import Study
from vae_jax.errors import counted

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
PUBLISHED = {
    "one_class": [
        ("kernel density estimation", "0.869"),
        ("convolutional autoencoder (DCAE)", "0.897"),
        ("one-class SVM", "0.913 or 0.951, by paper"),
        ("AnoGAN", "0.913"),
        ("isolation forest", "0.923"),
        ("Deep SVDD", "0.948 [V2]"),
        ("VAE, of the OCGAN paper", "0.970"),
        ("LSA", "0.975"),
        ("OCGAN", "0.975"),
    ],
    "reverse": [("VAE, -ELBO, 2 latent dimensions", "0.855 [V]"), ("VAE, -ELBO, 32 latent dimensions", "0.718 [V]")],
}
"""Method and mean AUROC over MNIST's ten digits, with the mark of where it was read."""
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


def report(title: str, bench: Bench, results: Mapping[str, Sequence[Result]]) -> str:
    """Everything in Markdown: for each protocol AUROC, average precision, thresholds, published numbers."""
    model = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in MODEL.items())
    parts = [f"# Anomaly detection: {title}", _notes(bench)]
    for name, found in results.items():
        protocol = PROTOCOLS[name]
        parts += [
            f"## {protocol.title}",
            f"The score that counts, fixed beforehand: **{COLUMNS[protocol.score]}** of a VAE ({model}).",
            "AUROC on the test images:",
            _detection_table(protocol, found, "auroc"),
            "Average precision:",
            _detection_table(protocol, found, "average_precision"),
            f"Thresholds for at most {bench.config.false_alarm_rate:.2%} false alarms, found on the validation images "
            "of the normal classes,\nand what they give on the test images:",
            _alarm_table(protocol, found),
        ]
        if bench.dataset.name == "mnist":
            parts += [markdown_table(["published", "mean AUROC"], PUBLISHED[name]), MARKS]
    return "\n\n".join(parts)


def _notes(bench: Bench) -> str:
    config, number = bench.config, counted(len(bench.dataset.test), "test image")
    samples = counted(config.samples, "latent sample")
    return f"""\
Trained on the train split of the normal classes; judged on all {number} by their labels. Which
score counts and the model's settings were chosen on MNIST's validation images, never on test labels.

- squared error: ||x - x'||² of the image decoded from the posterior mean; scaled error: the same over ||x||; relative
  error: over ||x||²; reconstruction: loss averaged over {samples}; KL: of the posterior from the
  prior; -ELBO: reconstruction + KL; -IWAE bound: from as many importance samples, an upper bound of the
  negative log-likelihood of the model.
- latent k-NN: mean distance of the posterior mean to the {config.neighbours} nearest ones of the training images.
- Baselines: mean distance to the {config.neighbours} nearest training images in raw pixels (pixel k-NN); squared
  distance from the first {config.components} principal components of the training images (PCA residual); both also
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
    forms = {"validation_images": "{:,}", "threshold": "{:.5g}", "false_alarms": "{:.2%}", "detected": "{:.1%}"}
    missing = {"threshold": "none", "false_alarms": "", "detected": ""}
    rows, notes = [], ""
    for result in results:
        alarm = {name: value for name, value in result.alarm.items() if value is not None}
        cells = [form.format(alarm[name]) if name in alarm else missing[name] for name, form in forms.items()]
        rows.append([str(result.label), *cells])
        if "reason" in alarm and not notes:
            notes = f"\n\nWhere there is none, the validation images are too few: {alarm['reason']}"
    return markdown_table(header, rows) + notes
