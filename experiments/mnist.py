"""Train a VAE (or an AE), evaluate it on the test split, draw it: `python -m experiments.mnist --latent-dim 2`.

Kingma & Welling, "Auto-Encoding Variational Bayes", 2014. With the defaults, real MNIST and 2 CPU cores: one to two
minutes, test loss about 134 nats (reconstruction + KL, grey pixels under a Bernoulli; not a log-likelihood).
"""

import dataclasses
import shlex
import signal
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vae_jax.cli.command import START, TrainingConfig, main, where_found
from vae_jax.cli.signals import Signals
from vae_jax.domains import MOST_SAMPLES, MOST_SHOWN, at_least
from vae_jax.errors import Interrupted, UsageError

if TYPE_CHECKING:
    import numpy as np

    from vae_jax.cli.figures import Codes
    from vae_jax.data.dataset import Dataset
    from vae_jax.runs.run import Run


@dataclasses.dataclass(frozen=True)
class Config(TrainingConfig):
    """Train on images, evaluate on the test split, write a run directory with figures."""

    test_samples: int = at_least(1, 16, most=MOST_SAMPLES)
    """Latent samples an image for the test loss."""
    iwae_samples: int = at_least(0, 0, " (0: off)", most=MOST_SAMPLES)
    """Importance samples an image for the test log-likelihood; papers use 5000."""
    grid_size: int = at_least(2, 20, most=MOST_SHOWN)
    """Images a side of the decoded latent grid."""


def run(config: Config) -> "Run | None":
    """Train, evaluate, draw and print; gives back the finished run, but in the first of several processes only."""
    with Signals() as signals:
        # Heavy imports wait until the flags are known to be good, so that --help is quick.
        from vae_jax.files import locked
        from vae_jax.runs.run import check_available, fresh_path
        from vae_jax.training.processes import is_first, text_of_first

        if config.iwae_samples and (config.likelihood, config.binarize) == ("bernoulli", "none"):
            raise UsageError(
                f"--iwae-samples {config.iwae_samples} needs a likelihood, which bernoulli on grey pixels is not.\n"
                "Add --binarize dynamic, or another --likelihood."
            )
        if config.run_dir and not config.resume and is_first():
            check_available(config.run_dir)
        dataset, config = _load(config)
        path = config.run_dir
        if path is None:
            name = f"{dataset.name}-{config.model}-z{config.latent_dim}"
            path = Path(text_of_first(str(fresh_path(name)) if is_first() else ""))
        try:
            if not is_first():
                _train(config, dataset, path, signals, None)
                return None
            with locked(path):
                watch = _Watch(config, dataset, path)
                _train(config, dataset, path, signals, watch)
                return _finish(config, dataset, path, watch, signals)
        except KeyboardInterrupt as stop:
            number = stop.number if isinstance(stop, Interrupted) else signal.SIGINT
            raise Interrupted(f"{str(stop) or 'Interrupted.'} Go on with\n{_command(path)}", number) from None


def _load(config: Config) -> tuple["Dataset", Config]:
    from vae_jax.data.dataset import load_dataset
    from vae_jax.runs.preflight import check_trainable

    dataset = load_dataset(config.dataset, config.data_dir, in_file=True).of_classes(config.classes)
    check_trainable(config, dataset)
    name, folder = where_found(config.dataset, config.data_dir, dataset.name)
    return dataset, dataclasses.replace(config, dataset=name, data_dir=folder)


def _command(path: Path) -> str:
    from vae_jax.runs.run import has_begun

    command = f"python -m experiments.mnist --resume --run-dir {shlex.quote(str(path))}"
    return command if has_begun(path) else f"{command} and the same flags: it had not begun."


def _announce(config: Config, dataset: "Dataset", path: Path) -> None:
    from vae_jax.runs.run import changed_on_resume, has_begun

    print(
        f"{dataset.name}: {len(dataset.train):,} training images from {dataset.source}; writing {path}",
        flush=True,
    )
    if config.resume and not has_begun(path):
        print(f"{path} holds no run yet: it begins now.", flush=True)
    elif config.resume:
        for name, (old, new) in changed_on_resume(path, config).items():
            print(f"--{name.replace('_', '-')} was {old}, goes on with {new}", flush=True)


def _train(config: Config, dataset: "Dataset", path: Path, signals: Signals, watch: "_Watch | None") -> None:
    from vae_jax.models.autoencoders import build_model
    from vae_jax.runs.recording import train_run

    def start() -> None:
        if watch:
            watch.start()
        signals.saving = True

    if watch:
        _announce(config, dataset, path)

    try:
        train_run(
            *(path, build_model(config, dataset.image_shape), config, dataset),
            resume=config.resume,
            on_start=start,
            on_epoch=watch.epoch if watch else None,
            stop=lambda: signals.received,
        )
        signals.end()
    finally:
        if watch:
            watch.stop()


class _Watch:
    """Progress on the terminal (one line an epoch where there is none) and the grids for the GIF."""

    def __init__(self, config: Config, dataset: Any, path: Path):
        from vae_jax.cli.progress import Progress
        from vae_jax.config import epochs
        from vae_jax.models.autoencoders import build_model
        from vae_jax.training.step import Keys

        self.path, model = path, build_model(config, dataset.image_shape)
        self.number = epochs(config, len(dataset.train))
        key = Keys.from_seed(config.seed).evaluation
        self.progress = Progress(model, dataset.validation, key, config.binarize, self.number, path / "figures")
        self.rows: list[dict[str, Any]] = []
        self.seconds_to_start = self.seconds_before = 0.0
        self.bar: Any = None

    def start(self) -> None:
        from tqdm import tqdm

        from vae_jax.runs.records import read_metrics

        self.rows = read_metrics(self.path)
        self.seconds_before = sum(row["seconds"] for row in self.rows)
        self.progress.recover()
        self.seconds_to_start = time.perf_counter() - START
        self.bar = tqdm(total=self.number, initial=len(self.rows), unit="epoch", disable=None)

    def epoch(self, state: Any, row: dict[str, Any]) -> None:
        self.rows.append(row)
        self.progress.add(state.evaluation_params, row["epoch"])
        loss, rate = row["validation"]["loss"], row["images_per_second"]
        if self.bar.disable:
            left = (self.number - row["epoch"]) * row["seconds"]
            print(
                f"epoch {row['epoch']}/{self.number}: train loss {row['train']['loss']:.2f}, "
                f"validation loss {loss:.2f}, {rate:,.0f} images/s, {left:.0f} s left",
                flush=True,
            )
        self.bar.set_postfix_str(f"validation loss {loss:.2f}, {rate:,.0f} images/s", refresh=False)
        self.bar.update()
        if row["epoch"] == self.number:
            self.bar.close()

    def stop(self) -> None:
        if self.bar is not None:
            self.bar.close()


def _finish(config: Config, dataset: "Dataset", path: Path, watch: _Watch, signals: Signals) -> "Run":
    from vae_jax.cli.figures import Codes, draw_run, headline
    from vae_jax.models.autoencoders import count_parameters
    from vae_jax.runs.records import device_name, write_json
    from vae_jax.runs.run import load_run

    run = load_run(path)
    codes = Codes.of(run, dataset.test.images)
    measured = _measure(config, run, dataset.test.images, codes)
    signals.end()
    draw_run(run, codes, dataset.test, dataset.validation, measured["test"], config.grid_size)
    watch.progress.write(run.metrics, headline(run.model, dataset.name, measured["test"]))
    rows = run.metrics
    summary = {
        **measured,
        "epochs": len(rows),
        "steps": rows[-1]["step"],
        "best_step": run.step,
        "seconds": watch.seconds_before + time.perf_counter() - START,
        "training_seconds": sum(row["seconds"] for row in rows),
        "images_per_second": sorted(row["images_per_second"] for row in rows)[len(rows) // 2],
        "time_to_first_epoch_seconds": watch.seconds_to_start,
        "parameters": count_parameters(run.params),
        "dataset": dataset.name,
        "device": device_name(),
    }
    write_json(path / "summary.json", summary)
    watch.progress.forget()
    print(_table(headline(run.model, dataset.name, None), summary, path))
    return load_run(path)


def _measure(config: Config, run: "Run", images: "np.ndarray", codes: "Codes") -> dict[str, Any]:
    # {"test": numbers} of the test images and, for a VAE, {"diagnosis": words}.
    from vae_jax.measures.sparsity import measure_sparsity
    from vae_jax.models.autoencoders import VariationalAutoencoder
    from vae_jax.models.evaluation import active_units, diagnose, evaluate, importance_weighted_nll

    key = run.evaluation_key
    test: dict[str, Any] = evaluate(
        *(run.model, run.params, images, key),
        samples=config.test_samples,
        binarize=config.binarize,
        corruption=config.corruption,
        corruption_level=config.corruption_level,
    )
    measured: dict[str, Any] = {"test": test}
    if codes.logvars is not None:
        test["active_units"] = int(active_units(codes.means).sum())
        measured["diagnosis"] = diagnose(codes.kl(), codes.relative_sigma(), config.beta)
    if config.sparsity != "none":
        sparsity = measure_sparsity(codes.means)
        test |= {"active_share": sparsity.active_share, "dead_units": sparsity.dead}
    if isinstance(run.model, VariationalAutoencoder) and config.iwae_samples:
        test["iwae_samples"] = config.iwae_samples
        test["iwae_nll"] = importance_weighted_nll(
            *(run.model, run.params, images, key), samples=config.iwae_samples, binarize=config.binarize
        )
    return measured


def _table(title: str, summary: dict[str, Any], path: Path) -> str:
    test = summary["test"]
    rows = [("test loss", f"{test['loss']:.2f}"), ("reconstruction", f"{test['reconstruction']:.2f}")]
    if "active_units" in test:
        rows += [("KL", f"{test['kl']:.2f}"), ("active units", str(test["active_units"]))]
    if "dead_units" in test:
        rows += [("active share of a code", f"{test['active_share']:.1%}"), ("dead units", str(test["dead_units"]))]
    if "iwae_nll" in test:
        rows.append((f"NLL bound, {test['iwae_samples']} samples", f"{test['iwae_nll']:.2f}"))
    rows += [
        ("images/s in training", f"{summary['images_per_second']:,.0f}"),
        ("seconds in all", f"{summary['seconds']:.1f}"),
        ("figures", str(path / "figures")),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"\n{title}", *(f"  {name:<{width}}  {value}" for name, value in rows)]
    if "diagnosis" in summary:
        lines += textwrap.wrap(summary["diagnosis"], 100, initial_indent="  ", subsequent_indent="  ")
    return "\n".join(lines)


if __name__ == "__main__":
    main(Config, run)
