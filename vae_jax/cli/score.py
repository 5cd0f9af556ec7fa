"""Anomalies: a threshold for a run by `vae-jax calibrate RUN`, scores of images by `vae-jax score RUN IMAGES`."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from vae_jax.cli.command import RunConfig
from vae_jax.cli.images import LabelledConfig, load, write_table
from vae_jax.cli.outputs import free_output
from vae_jax.domains import MOST_SAMPLES, at_least, probability, shortened
from vae_jax.errors import UsageError, counted
from vae_jax.files import writing

if TYPE_CHECKING:
    from vae_jax.data.dataset import Dataset
    from vae_jax.data.split import Split
    from vae_jax.measures.threshold import Threshold
    from vae_jax.runs.run import Run

ScoreName = Literal[
    "squared_error",
    "scaled_error",
    "relative_error",
    "reconstruction",
    "kl",
    "negative_elbo",
    "negative_iwae_bound",
    "latent_knn",
    "negative_log_prior",
]
SAMPLES = 16
NEIGHBOURS = 5


def false_alarm_rate(default: float = 0.01) -> float:
    """The field of that flag."""
    return probability(default)


@dataclasses.dataclass(frozen=True)
class Calibrate(RunConfig):
    """Find the threshold of a run for a wanted rate of false alarms: RUN/anomaly.json.

    An image like the run's validation images, which it was not trained on, exceeds it with at most that chance.
    """

    score: ScoreName = "relative_error"
    """What makes an image anomalous: squared error of the image that its posterior mean decodes to, over the image's
    norm (scaled_error) or squared norm (relative_error); reconstruction loss; of a VAE KL, negative ELBO, negative
    importance-weighted bound; the mean distance of its posterior mean to the nearest ones of the training images; of an
    AE with a fitted prior how unlikely the code is."""
    false_alarm_rate: float = false_alarm_rate()
    """Wanted chance that a normal image is called anomalous."""
    samples: int = at_least(1, SAMPLES, most=MOST_SAMPLES)
    """Latent samples an image."""
    neighbours: int = at_least(1, NEIGHBOURS)
    """Of latent_knn."""
    data_dir: Path | None = None
    """Where the data lies, if no longer where the run found it."""


@dataclasses.dataclass(frozen=True)
class Score(LabelledConfig):
    """Score images with a run, and call those above its threshold anomalies: a .csv file.

    The threshold is the one in RUN/anomaly.json; a run without one is calibrated first, as `calibrate RUN` does.
    """

    output: Path | None = None
    """The .csv file. Default: the images' name with -scores.csv, beside them."""
    data_dir: Path | None = None
    """Where the run's data lies, if no longer where the run found it; read only to calibrate and for latent_knn."""


def calibrate(config: Calibrate) -> "Threshold":
    """Find the threshold, write it into the run directory and print it."""
    # Here, as they import JAX, which --help and a bad flag do not wait for.
    from vae_jax.measures.anomaly import LATENT_KNN, scores_of
    from vae_jax.measures.threshold import RECORD
    from vae_jax.runs.run import load_dataset_of, load_run

    restored = load_run(config.run)
    known = scores_of(restored.model)
    if config.score not in known:
        raise UsageError(f"--score must be one of {', '.join(known)} for {restored.model.name}s, got {config.score}.")
    dataset = load_dataset_of(restored, config.data_dir)
    normal = len(dataset.train.positions(restored.config.classes))
    if config.score == LATENT_KNN and config.neighbours > normal:
        raise UsageError(
            f"--neighbours must be at most {normal}, the number of training images, got {config.neighbours}."
        )
    options = {"samples": config.samples, "neighbours": config.neighbours}
    found = find_threshold(restored, dataset, config.score, config.false_alarm_rate, **options)
    file = config.run / RECORD
    replaced = file.read_text(errors="replace") if file.is_file() else ""
    with writing(file, "Make room there, or make the run directory writable."):
        found.write(config.run)
    if replaced not in ("", file.read_text()):
        print(f"In place of the threshold that was there: {shortened(' '.join(replaced.split()), 300)}")
    print(
        f"An image is an anomaly if its {found.score} exceeds {found.threshold:.6g}: at most "
        f"{found.false_alarm_rate:.2%} of new images like the {counted(found.validation_images, 'validation image')} "
        f"do.\n{file}"
    )
    return found


def find_threshold(
    run: "Run", dataset: "Dataset", name: str, rate: float, *, samples: int, neighbours: int
) -> "Threshold":
    """The threshold of a run's score, from the validation images of the classes that it was trained on."""
    from vae_jax.measures.threshold import Threshold, calibrate

    options = {"samples": samples, "neighbours": neighbours}
    # All images, then those of the run's classes: the runs of a study share their compiled programs.
    held = dataset.validation
    labels = run.taken_for(held.images, held.labels)  # as those to be scored have them
    every = score_images(run, held.images, name, labels=labels, train=dataset.train, **options)
    scores = every[dataset.validation.positions(run.config.classes)]
    return Threshold(
        score=name,
        threshold=calibrate(scores, rate),
        false_alarm_rate=rate,
        validation_images=len(scores),
        step=run.step,
        **options,
    )


def score(config: Score) -> Path:
    """Score the images, write the CSV and print how many exceed the threshold."""
    output = free_output(config.output, config.images, "-scores.csv")
    loaded = load(config)
    restored, split = loaded.run, loaded.split
    from vae_jax.measures.anomaly import LATENT_KNN
    from vae_jax.measures.threshold import Threshold
    from vae_jax.runs.run import load_dataset_of

    known = Threshold.read(config.run)
    if known is None:
        print(f"{config.run} has no threshold yet: calibrating one.", flush=True)
        try:
            known = calibrate(Calibrate(config.run, data_dir=config.data_dir))
        except UsageError as error:
            reason = str(error).partition("\n")[0]
            if not reason.startswith("--false-alarm-rate"):
                raise
            command = f"python -m vae_jax calibrate {config.run} --false-alarm-rate RATE"
            raise UsageError(f"{reason}\nFind a threshold for a rate of your own by {command}") from error
    if known.step != restored.step:
        raise UsageError(
            f"The threshold of {config.run} is of step {known.step}, but its model is now of step {restored.step}.\n"
            f"Find a new one by python -m vae_jax calibrate {config.run}"
        )
    train = load_dataset_of(restored, config.data_dir).train if known.score == LATENT_KNN else None
    options = {"samples": known.samples, "neighbours": known.neighbours}
    scores = score_images(restored, split.images, known.score, labels=loaded.labels, train=train, **options)
    alarming = scores > known.threshold
    limits = np.full(len(scores), known.threshold)
    write_table(output, loaded, {known.score: scores, "threshold": limits, "anomaly": alarming.astype(int)})
    alarms = int(alarming.sum())
    print(
        f"Anomalies: {alarms:,} of {counted(len(scores), 'image')} ({alarms / len(scores):.1%}), {known.score} above "
        f"{known.threshold:.6g}, where {known.false_alarm_rate:.2%} false alarms were wanted.\n{output}"
    )
    return output


def score_images(
    run: "Run",
    images: np.ndarray,
    name: str,
    *,
    labels: np.ndarray | None = None,
    train: "Split | None",
    samples: int,
    neighbours: int,
) -> np.ndarray:
    """One score of each image, [n]; `train` is the train split of the run's data set, needed for latent_knn only.

    A conditional run needs the labels of the images.
    """
    from vae_jax.measures.anomaly import LATENT_KNN, latent_knn, model_scores
    from vae_jax.models.evaluation import encode_images

    model, params, key, binarize = run.model, run.params, run.evaluation_key, run.config.binarize
    if name != LATENT_KNN:
        return model_scores(model, params, images, key, samples=samples, binarize=binarize, labels=labels)[name]
    assert train is not None
    both = ((images, labels), (train.images, run.taken_for(train.images, train.labels)))
    codes, normal = (encode_images(model, params, x, key, binarize=binarize, labels=y)[0] for x, y in both)
    return latent_knn(codes, normal[train.positions(run.config.classes)], neighbours)
