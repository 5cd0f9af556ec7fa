"""Train a VAE (or an AE), evaluate it on the test split, draw it: `python -m experiments.mnist --latent-dim 2`.

Kingma & Welling, "Auto-Encoding Variational Bayes", 2014. With the defaults, real MNIST and 2 CPU cores: about a
minute, test loss about 134 nats (reconstruction + KL, grey pixels under a Bernoulli; not a log-likelihood).
"""

import contextlib
import dataclasses
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments._cli import START, TrainingConfig, main, where_found
from vae_jax.config import at_least
from vae_jax.errors import UsageError

if TYPE_CHECKING:
    from vae_jax.runs import Run


@dataclasses.dataclass(frozen=True)
class Config(TrainingConfig):
    """Train on images, evaluate on the test split, write a run directory with figures."""

    test_samples: int = at_least(1, 16)
    """Latent samples an image for the test loss."""
    iwae_samples: int = at_least(0, 0, " (0: off)")
    """Importance samples an image for the test log-likelihood; papers use 5000."""
    grid_size: int = at_least(2, 20)
    """Images a side of the decoded latent grid."""


def run(config: Config) -> "Run | None":
    """Train, evaluate, draw and print; gives back the finished run, but nothing in the second of several processes."""
    # Heavy imports wait until the flags are known to be good, so that --help is quick.
    from vae_jax.data import check_batch_size, load_dataset
    from vae_jax.models import build_model
    from vae_jax.processes import is_first, text_of_first
    from vae_jax.runs import check_available, fresh_path, train_run

    if config.iwae_samples and (config.likelihood, config.binarize) == ("bernoulli", "none"):
        raise UsageError(
            f"--iwae-samples {config.iwae_samples} needs a likelihood, which bernoulli on grey pixels is not.\n"
            "Add --binarize dynamic, or another --likelihood."
        )
    if config.run_dir and not config.resume and is_first():
        check_available(config.run_dir)
    dataset = load_dataset(config.dataset, config.data_dir).of_classes(config.classes)
    check_batch_size(dataset.train, config.batch_size)
    name, folder = where_found(config.dataset, config.data_dir, dataset.name)
    config = dataclasses.replace(config, dataset=name, data_dir=folder)
    model, path = build_model(config, dataset.image_shape), config.run_dir
    if path is None:
        name = f"{dataset.name}-{config.model}-z{config.latent_dim}"
        path = Path(text_of_first(str(fresh_path(name)) if is_first() else ""))
    if not is_first():
        train_run(path, model, config, dataset, resume=config.resume)
        return None
    watch = _Watch(config, model, dataset, path)
    print(
        f"{dataset.name}: {len(dataset.train):,} training images from {dataset.source}; writing {path}",
        flush=True,
    )
    try:
        train_run(path, model, config, dataset, resume=config.resume, on_start=watch.start, on_epoch=watch.epoch)
    except BaseException as error:
        watch.stop()
        if not isinstance(error, KeyboardInterrupt):
            raise
        go_on = f"python -m experiments.mnist --resume --run-dir {path}"
        raise KeyboardInterrupt(f"Interrupted. The finished epochs are saved; go on with\n{go_on}") from None
    return _finish(config, dataset, path, watch)


class _Watch:
    """Progress on the terminal (one line an epoch where there is none) and the grids for the GIF."""

    def __init__(self, config: Config, model: Any, dataset: Any, path: Path):
        from experiments._figures import Progress
        from vae_jax.config import epochs
        from vae_jax.training import Keys

        self.path, self.model, self.dataset = path, model, dataset.name
        self.number = epochs(config, len(dataset.train))
        self.gif = path / "figures" / "training_progress.gif"
        key = Keys.from_seed(config.seed).evaluation
        self.progress = Progress(model, dataset.validation, key, config.binarize, self.number)
        self.rows: list[dict[str, Any]] = []
        self.seconds_to_start = self.seconds_before = 0.0
        self.bar: Any = None

    def start(self) -> None:
        from tqdm import tqdm

        from vae_jax.records import read_metrics

        self.rows = read_metrics(self.path)
        self.seconds_before = sum(row["seconds"] for row in self.rows)
        self.progress.recover(self.gif)
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
        """Keep the grids of an unfinished run, so that --resume goes on with them."""
        from experiments._figures import headline

        if self.bar is None:
            return  # nothing was trained, so nothing is changed
        self.bar.close()
        with contextlib.suppress(OSError):
            self.progress.write(self.gif, self.rows, headline(self.model, self.dataset, None))


def _finish(config: Config, dataset: Any, path: Path, watch: _Watch) -> "Run":
    from experiments._figures import Codes, draw_run, headline
    from vae_jax.applications.sparsity import measure_sparsity
    from vae_jax.evaluation import active_units, diagnose, evaluate, importance_weighted_nll
    from vae_jax.models import VariationalAutoencoder, count_parameters
    from vae_jax.records import device_name, write_json
    from vae_jax.runs import load_run

    watch.bar.close()
    run = load_run(path)
    images, key, binarize = dataset.test.images, run.evaluation_key, config.binarize
    test = evaluate(
        *(run.model, run.params, images, key),
        samples=config.test_samples,
        binarize=binarize,
        corruption=config.corruption,
        corruption_level=config.corruption_level,
    )
    codes = Codes.of(run, images)
    diagnosis = None
    if codes.logvars is not None:
        test["active_units"] = int(active_units(codes.means).sum())
        diagnosis = diagnose(codes.kl(), codes.relative_sigma(), config.beta)
    if config.sparsity != "none":
        sparsity = measure_sparsity(codes.means)
        test |= {"active_share": sparsity.active_share, "dead_units": sparsity.dead}
    if isinstance(run.model, VariationalAutoencoder) and config.iwae_samples:
        test["iwae_samples"] = config.iwae_samples
        test["iwae_nll"] = importance_weighted_nll(
            run.model, run.params, images, key, samples=config.iwae_samples, binarize=binarize
        )
    draw_run(run, codes, dataset.test, dataset.validation, test, config.grid_size)
    watch.progress.write(watch.gif, run.metrics, headline(run.model, dataset.name, test))
    rows = run.metrics
    summary = {
        "test": test,
        **({"diagnosis": diagnosis} if diagnosis else {}),
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
    print(_table(headline(run.model, dataset.name, None), summary, path))
    return load_run(path)


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
