"""Models trained together, each into a run directory of its own."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

from vae_jax.config import Settings
from vae_jax.data.dataset import Dataset
from vae_jax.files import locked
from vae_jax.models.autoencoders import AnyModel
from vae_jax.runs.checkpoints import Checkpoints
from vae_jax.runs.finish import finish_run
from vae_jax.runs.folders import begin, check_available
from vae_jax.runs.recording import append_row, check_there, train_run
from vae_jax.runs.run import Run, load_run
from vae_jax.training.history import Row, score
from vae_jax.training.many import check_members, fit_many, member_of
from vae_jax.training.program import Progress
from vae_jax.training.recipe import Recipe
from vae_jax.training.step import TrainState, zero_metrics
from vae_jax.training.streaming import are_streamed


def train_runs(
    paths: Sequence[Path],
    model: AnyModel,
    members: Sequence[Settings],
    dataset: Dataset,
    *,
    on_epoch: Callable[[list[Row]], None] | None = None,
) -> list[Run]:
    """Train models together as `vae_jax.training.many.fit_many`, each into a new run directory, and finish them.

    Their checkpoints, the latest and the best, are written at the end only. Where the images do not fit the device, the
    models are trained one after another, and the images are streamed.

    Raises:
        UsageError: a directory is not available, or the settings can't be trained together.
        RunError: a loss is not finite, the disk refuses, or another process trains there.
    """
    paths, number = [Path(path).expanduser() for path in paths], check_members(dataset.train, members)
    if are_streamed(members[0], dataset.train.images.nbytes):
        alone = None if on_epoch is None else lambda state, row: on_epoch([row])
        for path, settings in zip(paths, members, strict=True):
            train_run(path, model, settings, dataset, on_epoch=alone)
        return [load_run(path, model=model) for path in paths]
    best: dict[Path, tuple[TrainState, float]] = {}

    def record(states: TrainState, rows: list[Row]) -> None:
        for i, (path, row) in enumerate(zip(paths, rows, strict=True)):
            check_there(path)
            append_row(path, row)
            loss = score(row)
            if path not in best or loss < best[path][1]:
                best[path] = member_of(states, i), loss
        if on_epoch:
            on_epoch(rows)

    with contextlib.ExitStack() as locks:
        for path, settings in zip(paths, members, strict=True):
            check_available(path)
            locks.enter_context(locked(path))
            begin(path, Recipe(model, settings, number), dataset.of_classes(settings.classes))
        results = fit_many(model, dataset.train, dataset.validation, members, on_epoch=record)
        for path, settings, result in zip(paths, members, results, strict=True):
            metrics = zero_metrics(Recipe(model, settings, len(dataset.train.positions(settings.classes))).steps)
            check_there(path)
            with Checkpoints(path, writing=True) as checkpoints:
                state, loss = best[path]
                if state.step < result.state.step:
                    checkpoints.save(Progress(state, metrics), loss)
                checkpoints.save(Progress(result.state, metrics), score(result.history[-1]))
        return [finish_run(path, dataset, model=model) for path in paths]
