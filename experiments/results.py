"""Train the runs of the README's results table and write the table: `python -m experiments.results`.

Finished runs under runs/results are kept, so only what is missing is trained. Needs real MNIST.
"""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from experiments._cli import main
from vae_jax.errors import RunError, UsageError
from vae_jax.files import replacing

# Name of the run directory, what the table calls it, the flags beside --dataset.
RUNS = [
    ("vae-z2", "VAE, 2-D: the default", "--latent-dim 2"),
    ("vae-z2-seed1", "the same, another seed", "--latent-dim 2 --seed 1"),
    ("vae-z2-seed2", "the same, another seed", "--latent-dim 2 --seed 2"),
    (
        "vae-z2-conv",
        "VAE, 2-D, conv (Keras tutorial's)",
        "--latent-dim 2 --arch conv --activation relu --batch-size 128 --learning-rate 1e-3 --epochs 10",
    ),
    ("vae-z20", "VAE, 20-D", "--latent-dim 20"),
    ("vae-z20-dynamic", "VAE, 20-D, binarised", "--latent-dim 20 --binarize dynamic --iwae-samples 500"),
    ("ae-z2", "AE, 2-D", "--latent-dim 2 --model ae"),
    ("ae-z32", "AE, 32-D", "--latent-dim 32 --model ae"),
]
FIGURES = ["latent_means.png", "latent_grid.png"]
BEGIN, END = "<!-- results: written by make results -->", "<!-- end of results -->"


@dataclasses.dataclass(frozen=True)
class Config:
    """Train what is missing of the results table, and write it into the README with its figures."""

    data_dir: Path | None = None
    """Where MNIST lies. Default: the environment variable VAE_JAX_DATA_DIR, else it is downloaded."""
    root: Path = Path("runs/results")
    """Where the recorded runs are."""
    readme: Path = Path("README.md")
    """The file whose table is replaced, between its two markers."""
    figures: Path = Path("docs/figures")
    """Where the first run's figures are copied to."""


def run(config: Config) -> str:
    """Train, and give back the table."""
    _parts(config.readme)  # fails now rather than after the training
    rows = []
    for name, title, flags in RUNS:
        path = config.root / name
        if not (path / "summary.json").exists():
            data = [] if config.data_dir is None else ["--data-dir", str(config.data_dir)]
            going_on = ["--resume"] if (path / "config.json").exists() else []
            arguments = [*flags.split(), "--dataset", "mnist", "--run-dir", str(path), *going_on, *data]
            # A process for each, as a user would run it: its time and memory are its own.
            if subprocess.run([sys.executable, "-m", "experiments.mnist", *arguments]).returncode:
                raise RunError(f"The run {path} failed, for the reason above. Run the same command again to go on.")
        rows.append((title, flags, json.loads((path / "summary.json").read_text(encoding="utf-8"))))
    first = config.root / RUNS[0][0]
    table = make_table(rows, json.loads((first / "environment.json").read_text(encoding="utf-8")))
    before, after = _parts(config.readme)
    with replacing(config.readme) as temporary:
        temporary.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")
    config.figures.mkdir(parents=True, exist_ok=True)
    for figure in FIGURES:
        shutil.copyfile(first / "figures" / figure, config.figures / figure)
    print(table)
    return table


def _parts(readme: Path) -> tuple[str, str]:
    # What stands before and after the table.
    try:
        text = readme.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"--readme must be a file that can be read, got {str(readme)!r} ({error.strerror})."
        ) from error
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise UsageError(f"--readme {readme} must hold the lines {BEGIN!r} and {END!r} once each.")
    before, rest = text.split(BEGIN)
    return before, rest.split(END)[1]


def make_table(rows: list[tuple[str, str, dict[str, Any]]], environment: dict[str, Any]) -> str:
    """The Markdown table of recorded runs, with the machine they ran on below it."""
    lines = [
        "| model | flags of `experiments.mnist` | test loss | reconstruction | KL | images/s | seconds in all |",
        "|---|---|---|---|---|---|---|",
    ]
    for title, flags, summary in rows:
        test = summary["test"]
        kl = f"{test['kl']:.2f}" if test["kl"] else "none"
        extra = f" (NLL ≤ {test['iwae_nll']:.2f})" if "iwae_nll" in test else ""
        lines.append(
            f"| {title} | `{flags}` | {test['loss']:.2f}{extra} | {test['reconstruction']:.2f} | {kl} "
            f"| {summary['images_per_second']:,.0f} | {summary['seconds']:.0f} |"
        )
    machine = f"{environment['cores']} cores ({environment['device']}), Python {environment['python']}"
    lines.append(f"\nRecorded on {machine}, jax {environment['jax']}, flax {environment['flax']}.")
    return "\n".join(lines)


if __name__ == "__main__":
    main(Config, run)
