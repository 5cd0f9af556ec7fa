"""Train the runs of the README's tables and write the tables: `python -m experiments.results`.

Finished runs and studies under runs/results are kept, so only what is missing is trained. Needs real MNIST. The table
of speed needs PyTorch, Keras and TensorFlow, so `make benchmark` records it; that of log-likelihoods takes a night, so
`experiments.tables` does. Here they are only written.
"""

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from experiments import mnist
from experiments.benchmark.report import speed_text
from experiments.results.uses import FLAGS, USES, make_uses_table
from experiments.tables.report import text_of
from vae_jax.archives import read_bytes
from vae_jax.cli.command import TrainingConfig, parse
from vae_jax.config import Settings
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
# What makes no other run: where it lies, where it was trained, and how it was told so.
MNIST = ((28, 28, 1), 55_000)
"""Shape and number of its training images."""
FREE = {"data_dir", "device_data", "parallel"} | vars(TrainingConfig()).keys() - vars(Settings()).keys()
FIGURES = ["latent_means.png", "latent_grid.png"]
FIGURE_WIDTH = 1200  # pixels, of the studies' figures in the README
MARKERS = {
    name: (f"<!-- {name}: written by make results -->", f"<!-- end of {name} -->")
    for name in ("results", "uses", "speed", "likelihoods")
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Train what is missing of the tables, and write them into the README with their figures."""

    data_dir: Path | None = None
    """Where MNIST lies. Default: the environment variable VAE_JAX_DATA_DIR, else it is downloaded."""
    root: Path = Path("runs/results")
    """Where the recorded runs are."""
    readme: Path = Path("README.md")
    """The file whose tables are replaced, each between its two markers."""
    tables: Literal["all", "results", "uses", "speed", "likelihoods"] = "all"
    """Which tables to write: that of the trained models, of the studies, of the benchmark, of test log-likelihoods, or
    all. That of the benchmark only once `make benchmark ARGS="--output runs/results/benchmark"` has recorded it, that
    of log-likelihoods once `python -m experiments.tables --output runs/results/tables` has."""
    figures: Path = Path("docs/figures")
    """Where the figures of the README are written to."""


def run(config: Config) -> str:
    """Train, and give back the tables."""
    # These fail now rather than after the training.
    _replace(config.readme, {})
    if config.data_dir is not None and not config.data_dir.is_dir():
        raise UsageError(f"--data-dir must be a folder that exists, got {str(config.data_dir)!r}.")
    for flag, folder in (("--figures", config.figures), ("--root", config.root)):
        if (folder.exists() and not folder.is_dir()) or (folder.is_symlink() and not folder.exists()):
            raise UsageError(f"{flag} must be a folder, got {str(folder)!r}, which is none.")
    config.figures.mkdir(parents=True, exist_ok=True)
    tables = {}
    if config.tables in ("all", "results"):
        tables["results"] = _results(config)
    if config.tables in ("all", "uses"):
        tables["uses"] = _uses(config)
    recorded = config.root / "benchmark"
    if config.tables == "speed" or (config.tables == "all" and (recorded / "summary.json").exists()):
        tables["speed"] = _speed(config, recorded)
    recorded = config.root / "tables"
    if config.tables == "likelihoods" or (config.tables == "all" and (recorded / "summary.json").exists()):
        tables["likelihoods"] = _likelihoods(config, recorded)
    _replace(config.readme, tables)
    text = "\n\n".join(tables.values())
    print(text)
    return text


def _results(config: Config) -> str:
    # Here, as it imports JAX, which --help and a bad flag do not wait for.
    from vae_jax.cli.defaults import About, decided
    from vae_jax.runs.records import read_dataset_record, read_settings

    rows = []
    for name, title, flags in RUNS:
        path = config.root / name
        if not (path / "summary.json").exists():
            going_on = ["--resume"] if (path / "config.json").exists() else []
            _command(config, "mnist", [*flags.split(), "--dataset", "mnist", "--run-dir", str(path), *going_on])
        recorded = vars(read_settings(path, mnist.Config)) | {"dataset": read_dataset_record(path)["name"]}
        wanted = vars(decided(parse(mnist.Config, [*flags.split(), "--dataset", "mnist"]), About(*MNIST)))
        _check_flags(path, recorded, {name: wanted[name] for name in wanted if name not in FREE})
        rows.append((title, flags, _read(path / "summary.json")))
    first = config.root / RUNS[0][0]
    for figure in FIGURES:
        shutil.copyfile(first / "figures" / figure, config.figures / figure)
    return make_table(rows, _read(first / "environment.json"))


def _uses(config: Config) -> str:
    summaries = {}
    for use in USES:
        path = config.root / use.name
        if not (path / "summary.json").exists():
            _command(config, use.name, [*FLAGS.split(), "--output", str(path)])
        summaries[use.name] = _read(path / "summary.json")
        wanted = parse(use.study.Config, FLAGS.split())
        _check_study(path, summaries[use.name], {**wanted.flags(), "dataset": wanted.dataset})
        _shrink(path / "figures" / use.figure, config.figures / f"{use.name}.png")
    environment = _read(config.root / USES[0].name / "environment.json")
    return make_uses_table(summaries, _machine(environment))


def _speed(config: Config, recorded: Path) -> str:
    if not (recorded / "summary.json").exists():
        raise UsageError(f'{recorded} holds no benchmark. Record it by make benchmark ARGS="--output {recorded}".')
    summary = _read(recorded / "summary.json")
    _check_study(recorded, summary, {"quick": False, "dataset": "mnist"})
    own = [row for case in summary.get("training", []) for row in case["rows"] if row["contestant"] == "ours"]
    if not own or not (recorded / "figures" / "benchmark.png").exists():
        raise UsageError(f"{recorded} holds no benchmark of training with vae_jax in it. Remove it and record it anew.")
    _shrink(recorded / "figures" / "benchmark.png", config.figures / "benchmark.png")
    return speed_text(summary, _machine(_read(recorded / "environment.json")))


def _likelihoods(config: Config, recorded: Path) -> str:
    if not (recorded / "summary.json").exists():
        command = f"python -m experiments.tables --output {recorded}"
        raise UsageError(f"{recorded} holds no log-likelihoods. Record them by {command}.")
    rows = _read(recorded / "summary.json").get("rows")
    if not rows or not all((recorded / name).exists() for name in ("results.csv", "tables.png")):
        raise UsageError(
            f"{recorded} holds no finished row. Run experiments.tables once more with --output {recorded}."
        )
    _shrink(recorded / "tables.png", config.figures / "likelihoods.png")
    shutil.copyfile(recorded / "results.csv", config.figures / "likelihoods.csv")
    figure = "![Negative log-likelihoods of binary images](docs/figures/likelihoods.png)"
    return f"{text_of(rows)}\n\n{figure}"


def _check_study(path: Path, summary: dict[str, Any], wanted: Mapping[str, Any]) -> None:
    if not isinstance(summary.get("flags"), dict):
        raise UsageError(
            f"{path} does not say with which flags it was recorded.\n"
            f"Run the study once more with --output {path}: it takes its finished runs over."
        )
    _check_flags(path, {**summary["flags"], "dataset": summary.get("dataset")}, wanted)


def _check_flags(path: Path, recorded: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    # As JSON holds them; a flag that came after the record was written had no effect then.
    recorded, wanted = (json.loads(json.dumps(flags, default=str)) for flags in (recorded, wanted))
    for name, value in wanted.items():
        if recorded.get(name, value) != value:
            raise UsageError(
                f"{path} was recorded with --{name.replace('_', '-')} {recorded[name]}, but the table names {value}.\n"
                "Remove it, and it is recorded anew."
            )


def _command(config: Config, module: str, arguments: list[str]) -> None:
    # A process for each, as a user would run it: its time and memory are its own.
    data = [] if config.data_dir is None else ["--data-dir", str(config.data_dir)]
    if subprocess.run([sys.executable, "-m", f"experiments.{module}", *arguments, *data]).returncode:
        raise RunError(f"experiments.{module} failed, for the reason above. Run the same command again to go on.")


def _read(path: Path) -> dict[str, Any]:
    # As above.
    from vae_jax.runs.records import read_json

    return read_json(path, "Remove it, and what it belongs to is made anew.")


def _replace(readme: Path, tables: dict[str, str]) -> None:
    # Write each table between its markers.
    try:
        text = read_bytes(readme, 2**24).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no text in UTF-8"
        raise UsageError(f"--readme must be a file that can be read, got {str(readme)!r} ({reason}).") from error
    for name, (begin, end) in MARKERS.items():
        if text.count(begin) != 1 or text.count(end) != 1:
            raise UsageError(f"--readme {readme} must hold the lines {begin!r} and {end!r} once each.")
        if name in tables:
            before, rest = text.split(begin)
            text = f"{before}{begin}\n{tables[name]}\n{end}{rest.split(end)[1]}"
    if tables:
        with replacing(readme) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _shrink(source: Path, target: Path) -> None:
    # At most FIGURE_WIDTH pixels wide and with 256 colours, so that the repository stays small.
    from PIL import Image

    with Image.open(source) as image:
        height = round(image.height * FIGURE_WIDTH / image.width)
        small = image.convert("RGB").resize((FIGURE_WIDTH, height), Image.Resampling.LANCZOS)
        with replacing(target) as temporary:
            # By coverage: the median cut takes rare colours, such as two classes of a legend, for one.
            few = small.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
            few.save(temporary, format="PNG", optimize=True)


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
    lines.append(f"\nRecorded on {_machine(environment)}.")
    return "\n".join(lines)


def _machine(environment: dict[str, Any]) -> str:
    device = f"{environment['cores']} cores ({environment['device']}), Python {environment['python']}"
    return f"{device}, jax {environment['jax']}, flax {environment['flax']}"
