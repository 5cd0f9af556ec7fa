"""What is written of the rows: results.csv, results.md, summary.json and the figure."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.markdown import interval
from experiments.tables.figures import Bar, likelihoods
from experiments.tables.report import Row, by_data, csv_text, mean_of, name_of, published_of, text_of, values_of
from experiments.tables.rows import DATA
from vae_jax import plots
from vae_jax.files import replacing
from vae_jax.runs.records import write_json


def write_results(output: Path, rows: Sequence[Row]) -> dict[str, Any]:
    """Write all rows into the folder; gives back the summary."""
    text = f"# Test log-likelihoods of binary images\n\n{text_of(rows)}\n"
    for name, content in (("results.md", text), ("results.csv", csv_text(rows))):
        with replacing(output / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
    plots.save(likelihoods(panels_of(rows), "Negative log-likelihood of binary images"), output / "tables.png")
    summary = {"study": "tables", "rows": list(rows), "figures": [str(output / "tables.png")]}
    write_json(output / "summary.json", summary)
    return summary


def panels_of(rows: Sequence[Row]) -> dict[str, list[Bar]]:
    """What the figure shows of the rows."""
    return {
        DATA[name].title: [
            Bar(
                name_of(row),
                *interval(values_of(row, "nll")),
                mean_of(row, "train_nll"),
                [one.nll for one in published_of(row)],
            )
            for row in some
        ]
        for name, some in by_data(rows).items()
    }
