"""What is said of the rows: tables in Markdown, lines of CSV. Imports no JAX."""

import csv
import io
import itertools
from collections.abc import Sequence
from typing import Any

from experiments.markdown import interval, markdown_table, with_half
from experiments.tables.rows import ARCHS, COMMON, DATA, MARKS, MODELS, PROTOCOLS, PUBLISHED, Published
from vae_jax.errors import counted

Row = dict[str, Any]
_HEADER = ["nats an image", "NLL", "s.e.", "seeds", "-ELBO", "KL", "active", "train NLL", "training", "measured"]
_PUBLISHED_HEADER = ["published", "ours less it"]
NEEDED = frozenset(
    {
        *("nll", "nll_se", "train_nll", "loss", "kl", "active_units", "latent_dim", "seconds", "epochs", "steps"),
        *("samples", "nll_images", "images", "device"),
    }
)
"""Numbers of a run that are shown."""
_COLLAPSED = 1.0
"""Nats of KL below which the latents say nothing."""
_NOTES = """\
NLL: the importance-weighted bound of the negative log-likelihood, on test images; with several seeds the mean and a \
95% interval by Student's t. measured: samples of an image, and the images that got as many, drawn at random from all \
those measured; the others got 100, and the mean gain by more is added. s.e.: the standard error that comes of it. \
-ELBO: reconstruction + KL, of all images. active: latent dimensions whose posterior mean varies by more than 0.01. \
train NLL: of as many training images; far below the test NLL, the model is over-fitted. training: of one run, or of \
all seeds where they were trained together. Every number is of the best epoch by the validation images; "stopped": \
early, after so many epochs without a better one."""
_PROTOCOL = """\
Published numbers come of other budgets, and of 5,000 samples of all 10,000 test images unless they say otherwise."""
_SPLITS = """\
Of MNIST and Fashion-MNIST 55,000 images are for training here and 5,000 for validation; Tomczak & Welling had 50,000 \
and 10,000 [M]."""
_SPLIT = ("dynamic", "fashion")
"""Data that `_SPLITS` is about."""


def by_data(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each data set."""
    return {name: found for name in DATA if (found := [row for row in rows if row["data"] == name])}


def published_of(row: Row) -> Sequence[Published]:
    """What others report of such a row."""
    return PUBLISHED.get((row["data"], row["arch"], row["model"]), ())


def name_of(row: Row) -> str:
    """What a row is called within its data."""
    return f"{ARCHS[row['arch']][0]}: {MODELS[row['model']][0]}"


def text_of(rows: Sequence[Row]) -> str:
    """The tables in Markdown, one for each data set, and what they mean."""
    parts = []
    for name, some in by_data(rows).items():
        known = any(map(published_of, some))
        header = _HEADER + _PUBLISHED_HEADER * known
        parts += [f"### {DATA[name].title}", markdown_table(header, [_cells(row, known) for row in some])]
        if lost := [name_of(row) for row in some if mean_of(row, "kl") < _COLLAPSED]:
            parts.append(f"Collapsed, latents that say nothing, by a KL below {_COLLAPSED:g} nat: {'; '.join(lost)}.")
    parts += [_NOTES, _devices(rows)]
    if any(map(published_of, rows)):
        sources = {one: None for row in rows for one in published_of(row)}
        lines = [f"- {one.nll:.2f}: {one.source} [{one.mark}]" for one in sources]
        of_splits = [_SPLITS] if {row["data"] for row in rows} & {*_SPLIT} else []
        compared = [row for row in rows if published_of(row)]
        of_training = [PROTOCOLS[arch] for arch in ARCHS if any(row["arch"] == arch for row in compared)]
        said = [_PROTOCOL, *of_training, _ours(compared), *of_splits, MARKS]
        parts += ["Published:\n\n" + "\n".join(lines), " ".join(said)]
    return "\n\n".join(parts)


def _ours(rows: Sequence[Row]) -> str:
    # How ours were trained, set against the protocols.
    rate, batch, patience, warmup = (
        " or ".join(f"{value:g}" for value in dict.fromkeys(row["trained"][name] for row in rows))
        for name in ("learning_rate", "batch_size", "patience", "kl_warmup")
    )
    return (
        f"Ours: learning rate {rate}, which falls along one cosine, batch {batch}, Adam's epsilon 1e-8, "
        f"weights averaged with a decay of {COMMON['ema_decay']:g}, gradients clipped at {COMMON['gradient_clip']:g}, "
        f"KL warm-up over {warmup} of the steps (0: none), early stopping after {patience} epochs (0: none)."
    )


def _devices(rows: Sequence[Row]) -> str:
    # Of all rows: a table may be begun on one machine and go on on another.
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        for numbers in row["seeds"].values():
            found.setdefault(numbers["device"], {})[f"{DATA[row['data']].title}, {name_of(row)}"] = None
    if len(found) == 1:
        return f"Trained on {next(iter(found))}."
    return "Trained on " + "; on ".join(f"{device} ({' / '.join(names)})" for device, names in found.items()) + "."


def values_of(row: Row, name: str) -> list[float]:
    """A number of each seed."""
    return [numbers[name] for numbers in row["seeds"].values()]


def mean_of(row: Row, name: str) -> float:
    """Its mean over the seeds."""
    return interval(values_of(row, name))[0]


def _cells(row: Row, known: bool) -> list[str]:
    first, seeds = next(iter(row["seeds"].values())), len(row["seeds"])
    mean, half = interval(values_of(row, "nll"))
    stopped = sum(each["steps"] < row["steps"] for each in row["seeds"].values())
    early = "" if not stopped else ", stopped" if seeds == 1 else f", {stopped} stopped"
    cells = [
        name_of(row),
        with_half(mean, half, 2),
        f"{mean_of(row, 'nll_se'):.2f}",
        "one seed" if seeds == 1 else str(seeds),
        *(f"{mean_of(row, key):.2f}" for key in ("loss", "kl")),
        f"{mean_of(row, 'active_units'):.0f} of {first['latent_dim']}",
        f"{mean_of(row, 'train_nll'):.2f}",
        f"{mean_of(row, 'seconds') / 60:.1f} min, {counted(round(mean_of(row, 'epochs')), 'epoch')}{early}",
        f"{first['samples']:,} x {first['nll_images']:,} of {first['images']:,}",
    ]
    if not known:
        return cells
    published = published_of(row)
    shown = " / ".join(f"{one.nll:.2f} [{one.mark}]" for one in published)
    return [*cells, shown, f"{mean - published[0].nll:+.2f}" if published else ""]


def csv_text(rows: Sequence[Row]) -> str:
    """A line for each run: what it is, its numbers, how it was trained and measured, the first published value."""
    lines: list[dict[str, Any]] = []
    for row in rows:
        first = next(iter(published_of(row)), ("", "", ""))
        beside = dict(zip(("published", "published_by", "published_mark"), first, strict=True))
        trained = {f"flag_{name}": value for name, value in row["trained"].items()}
        for seed, numbers in row["seeds"].items():
            place = {name: row[name] for name in ("data", "arch", "model")}
            lines.append({**place, "seed": seed, **numbers, **trained, **beside})
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(dict.fromkeys(itertools.chain(*lines))), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return buffer.getvalue()
