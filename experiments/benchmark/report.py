"""The tables of the benchmark from its numbers."""

import statistics
from typing import Any

from experiments.benchmark.sections import ACTIONS
from experiments.markdown import markdown_table
from vae_jax.errors import counted


def training_text(cases: list[dict[str, Any]]) -> str:
    """A table for each architecture and batch size, with what is wrong below it."""
    parts = []
    for case in cases:
        job = case["job"]
        own = next((row["images_per_second"] for row in case["rows"] if row["contestant"] == "ours"), None)
        header = ["contestant", "images/s", "vae_jax is", "share of the roof", "last loss", "peak memory, MB"]
        roof = f"{case['roof_flops'] / 1e9:,.0f} GFLOP/s" if case["roof_flops"] else "not measured"
        parts += [
            f"### {name_of(job)}, batch {job['batch_size']}",
            markdown_table(header, [[row["title"], *_cells(row, own)] for row in case["rows"]]),
            f"{job['images']:,} images a repetition, {case['flops_per_image'] / 1e6:.2f} MFLOP an image in matrix "
            f"products and convolutions. Roof: {roof}.",
            *(f"{row['title']}: {row['unavailable']}." for row in case["rows"] if row["unavailable"]),
        ]
        wrong = [row for row in case["rows"] if row["wrong"]]
        parts += [f"**{row['title']}: {row['wrong']}; its speed does not count.**" for row in wrong]
        if not wrong:
            parts.append("All that ran trained: each loss fell, and after equal steps all lie within the tolerance.")
    return "\n\n".join(parts)


def speed_text(summary: dict[str, Any], machine: str) -> str:
    """The README's text from the summary of a benchmark: training, and start-up and inference where it has them."""
    parts = [_speed_table(summary["training"], machine)]
    if inferred := summary.get("inference"):
        rows = [
            [f"{case['job']['arch']}, {row['title']}", *(number(row[action]) for action in ACTIONS)]
            for case in inferred
            for row in case["rows"]
            if not row["unavailable"]
        ]
        parts.append(markdown_table([f"images/s, {inferred[0]['job']['images']:,} at once", *ACTIONS], rows))
    if started := summary.get("startup"):
        seconds = {name: statistics.median(run["to_first_epoch"] for run in runs) for name, runs in started.items()}
        each = ", ".join(f"{value:.1f} s with a {name} one" for name, value in sorted(seconds.items(), reverse=True))
        parts.append(f"From the command `experiments.mnist` to its first epoch, by its compilation cache: {each}.")
    return "\n\n".join(parts)


def _speed_table(cases: list[dict[str, Any]], machine: str) -> str:
    titles = {row["contestant"]: row["title"] for case in cases for row in case["rows"]}
    header = ["images/s", *(f"{case['job']['arch']}, batch {case['job']['batch_size']}" for case in cases)]
    by_name = [{row["contestant"]: row for row in case["rows"]} for case in cases]
    rows = [
        [title, *("" if case[name]["wrong"] else number(case[name]["images_per_second"]) for case in by_name)]
        for name, title in titles.items()
    ]
    rows.append(["share of the roof, vae_jax", *(_share(case["ours"]) for case in by_name)])
    roofs = ", ".join(f"{case['roof_flops'] / 1e9:,.0f}" for case in cases if case["roof_flops"])
    names = "; ".join(dict.fromkeys(f"{case['job']['arch']}: {name_of(case['job'])}" for case in cases))
    return (
        f"{markdown_table(header, rows)}\n\n{names}. Roof: {roofs} GFLOP/s. Recorded on {machine}.\n\n"
        "![Training speed of each contestant](docs/figures/benchmark.png)"
    )


def name_of(job: dict[str, Any]) -> str:
    """The architecture in words; the usual sizes by name."""
    if job["arch"] == "mlp":
        return "MLP with " + " ".join(map(str, job["hidden_sizes"])) + f" hidden units, {job['latent_dim']}-D latent"
    return f"conv VAE of the Keras tutorial, {job['latent_dim']}-D latent"


def _cells(row: dict[str, Any], own: float | None) -> list[str]:
    if row["unavailable"]:
        return [row["unavailable"].partition(" (")[0], "", "", "", ""]
    rate = row["images_per_second"]
    ratio = f"{own / rate:.2f} × as fast" if own and rate and row["contestant"] != "ours" else ""
    return [number(rate), ratio, _share(row), f"{row['last_loss']:.1f}", _megabytes(row)]


def _share(row: dict[str, Any]) -> str:
    return f"{row['roof_share']:.0%}" if row["roof_share"] else ""


def number(rate: float | None) -> str:
    """A rate as it stands in tables."""
    return "" if rate is None else f"{rate:,.0f}"


def inference_text(cases: list[dict[str, Any]]) -> str:
    """Images a second of encoding, decoding, evaluating."""
    parts = []
    for case in cases:
        timed = [row for row in case["rows"] if not row["unavailable"]]
        rows = [
            [row["title"], *([row["unavailable"], "", ""] if row["unavailable"] else [number(row[a]) for a in ACTIONS])]
            for row in case["rows"]
        ]
        if len(timed) == 2:
            rows.append(["ratio", *(f"{timed[0][action] / timed[1][action]:.2f}" for action in ACTIONS)])
        table = markdown_table(["images/s", *ACTIONS], rows)
        parts.append(f"### {name_of(case['job'])}, {case['job']['images']:,} images\n\n{table}")
    return "\n\n".join(parts)


def series_text(series: list[dict[str, Any]]) -> str:
    """Images a second of vae_jax over each quantity, and against its first value."""
    parts = []
    for one in series:
        first = one["rows"][0]["images_per_second"]
        rows = []
        for row in one["rows"]:
            ratio = f"{row['images_per_second'] / first:.2f}" if first and not row["unavailable"] else ""
            rows.append([str(row["value"]), _rate(row), ratio])
        parts.append(markdown_table([one["title"], "images/s", "to the first"], rows))
    return "\n\n".join(parts)


def startup_text(found: dict[str, Any]) -> str:
    """Median seconds to the first epoch and of the command with one epoch, cold and warm."""
    rows = []
    for name, runs in found.items():
        medians = (statistics.median(run[key] for run in runs) for key in ("to_first_epoch", "whole_command"))
        rows.append([f"{name}, {counted(len(runs), 'start')}", *(f"{value:.1f}" for value in medians)])
    return markdown_table(["compilation cache", "seconds to the first epoch", "seconds of the command"], rows)


def streaming_text(cases: list[dict[str, Any]]) -> str:
    """Images a second and peak memory, by the size of the file."""
    rows = [
        [f"{row['images']:,}", f"{row['file_bytes'] / 1e6:,.0f}", _rate(row), _megabytes(row)]
        for row in cases[0]["rows"]
    ]
    table = markdown_table(["images in a file", "its size, MB", "images/s", "peak memory of the process, MB"], rows)
    return f"{table}\n\nOne repetition after one that is not counted."


def quality_text(rows: list[dict[str, Any]]) -> str:
    """Seconds to each held-out loss, and the lowest one."""
    targets = list(rows[0]["seconds_to"]) if rows else []
    table = [
        [
            row["title"],
            row["recipe"],
            *(_seconds(row["seconds_to"][target]) for target in targets),
            "" if row["lowest_loss"] is None else f"{row['lowest_loss']:.1f}",
            str(row["epochs"]),
            _seconds(row["seconds"]),
        ]
        for row in rows
    ]
    header = ["contestant", "recipe", *(f"s to {target}" for target in targets), "lowest loss", "epochs", "s in all"]
    limit = f", which ends after {rows[0]['limit']:.0f} s" if rows else ""
    words = (
        "Seconds from the start of the process, with its imports and compilation, to the first epoch after which the "
        "test images cost at most so many nats (reconstruction + KL, one latent sample each), and to the end of the "
        f"recipe{limit}. Two latent dimensions and one seed each. "
        "What it takes to measure the loss is left out."
    )
    missing = [f"{row['title']}: {row['unavailable']}." for row in rows if row["unavailable"]]
    return "\n\n".join([markdown_table(header, table), words, *missing])


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.0f}"


def _rate(row: dict[str, Any]) -> str:
    return row["unavailable"] or number(row["images_per_second"])


def _megabytes(row: dict[str, Any]) -> str:
    return f"{row['peak_bytes'] / 1e6:,.0f}" if row["peak_bytes"] else ""


TEXTS = {
    "training": ("Training: images a second", training_text),
    "startup": ("Start-up of `python -m experiments.mnist --epochs 1`", startup_text),
    "inference": ("Encoding, decoding, evaluating", inference_text),
    "scaling": ("Scaling of vae_jax", series_text),
    "streaming": ("Streamed training, by the size of the data", streaming_text),
    "many": ("Many models at once", series_text),
    "quality": ("Time to quality", quality_text),
}


def report(introduction: str, sections: dict[str, Any]) -> str:
    """The whole report in Markdown."""
    parts = ["# Benchmark", introduction]
    for name, found in sections.items():
        heading, text = TEXTS[name]
        parts += [f"## {heading}", text(found)]  # type: ignore[operator]
    return "\n\n".join(parts) + "\n"
