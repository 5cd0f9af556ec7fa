"""A run whose prior is fitted after training: another run, of the same networks."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from vae_jax.data.dataset import Dataset
from vae_jax.errors import UsageError
from vae_jax.models.autoencoders import Model
from vae_jax.models.codes import Codes
from vae_jax.models.fitted import fitted_prior
from vae_jax.models.inputs import Inputs
from vae_jax.runs.checkpoints import Checkpoints
from vae_jax.runs.finish import finish_run
from vae_jax.runs.records import read_json, write_json
from vae_jax.runs.run import Run
from vae_jax.training.prior_fit import fit_prior
from vae_jax.training.program import Progress
from vae_jax.training.step import TrainState, zero_metrics

STEPS = 2000


@dataclasses.dataclass(frozen=True)
class Refit:
    """Which prior is fitted, and how."""

    kind: str = "gaussian"
    """One of `vae_jax.models.fitted.KINDS`: one Gaussian in closed form, a mixture, a flow."""
    components: int = 10
    layers: int = 6
    steps: int = STEPS
    seed: int = 0


def check_refittable(run: Run) -> None:
    """Refuse, by a UsageError, a run whose codes do not say enough for another prior."""
    if not run.metrics:
        raise UsageError(
            f"{run.path} must have finished an epoch, got none.\n"
            f"Go on with it: vae-jax train --resume --run-dir {run.path}"
        )
    if not run.model.posterior.independent:
        raise UsageError(
            f"fit-prior needs --posterior diagonal, got {run.path} of {run.config.posterior}, whose dimensions are "
            "correlated.\nTrain a run with --posterior diagonal, or one with --prior mixture or flow."
        )
    if run.model.prior.by_class:
        raise UsageError(
            f"fit-prior needs a prior that is the same for all classes, got {run.path} of --prior class.\n"
            "Train a run with --prior standard, which --condition labels can have, too."
        )


def refitted(run: Run, dataset: Dataset, refit: Refit) -> Run:
    """The run with a prior fitted to its codes of the training images, the best by those of the validation images.

    Raises:
        UsageError: as of `check_refittable`.
    """
    check_refittable(run)
    parts = (dataset.train, dataset.validation)
    train, validation = (run.encode(part.images, run.taken_for(part.images, part.labels)) for part in parts)
    prior = fitted_prior(refit.kind, refit.components, refit.layers)
    return run.with_prior(prior, fit_prior(prior, train, validation, jax.random.key(refit.seed), refit.steps))


def write_refitted(
    run: Run,
    path: Path,
    dataset: Dataset,
    refit: Refit,
    *,
    model: Model | None = None,
    inputs: Inputs | None = None,
    before: Callable[[Run, Codes, dict[str, Any]], dict[str, Any]] | None = None,
) -> Run:
    """Write a run from `refitted` into a new folder and finish it; the arguments are also those of `finish_run`."""
    for name in ("environment.json", "metrics.jsonl"):
        if (run.path / name).exists():
            shutil.copyfile(run.path / name, path / name)
    fitted = {name: getattr(refit, name) for name in ("kind", "components", "layers")}
    write_json(path / "config.json", read_json(run.path / "config.json") | {"fitted_prior": fitted})
    # Nothing goes on from here, so there is nothing of an optimiser to keep.
    state = TrainState(run.params, {}, jax.numpy.int32(run.step))
    loss = next((row["validation"]["loss"] for row in run.metrics if row["step"] == run.step), None)
    with Checkpoints(path, writing=True) as checkpoints:
        checkpoints.save(Progress(state, zero_metrics(1)), loss)
    return finish_run(path, dataset, model=model, inputs=inputs, before=before)
