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
from vae_jax.runs.folders import check_available
from vae_jax.runs.recording import append_row, begin, check_there, train_run
from vae_jax.runs.run import Run, load_run
from vae_jax.training.history import Row
from vae_jax.training.many import check_members, fit_many, member_of
from vae_jax.training.optimizer import steps_per_epoch
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
    """Train models together, each into a run directory of its own, and finish them.

    Its checkpoints are those of a single run, the latest and the best, but written at the end only. Where the images
    do not fit the device, they are trained one after another, and the images are streamed.

    Args:
        paths: directories that do not exist yet, one a model.
        model: from `build_model`.
        members: as in `vae_jax.training.many.fit_many`.
        dataset: all three splits are used.
        on_epoch: called after each epoch with a row for each model.

    Returns:
        The finished runs.

    Raises:
        UsageError: a directory is not available, or the settings can't be trained together.
        RunError: a loss is not finite, the disk refuses, or another process trains there.
    """
    number = check_members(dataset.train, members)
    if are_streamed(members[0], dataset.train.images.nbytes):
        for path, settings in zip(paths, members, strict=True):
            train_run(path, model, settings, dataset, on_epoch=_alone(on_epoch))
        return [load_run(path, model=model) for path in paths]
    with contextlib.ExitStack() as locks:
        for path, settings in zip(paths, members, strict=True):
            check_available(path)
            locks.enter_context(locked(path))
            own = dataset.of_classes(settings.classes)
            begin(path, Recipe(model, settings, number), own)

        best: list[tuple[TrainState, Row]] = []

        def record(states: TrainState, rows: list[Row]) -> None:
            for i, (path, row) in enumerate(zip(paths, rows, strict=True)):
                check_there(path)
                append_row(path, row)
                if len(best) < len(rows) or row["validation"]["loss"] < best[i][1]["validation"]["loss"]:
                    best[i : i + 1] = [(member_of(states, i), row)]
            if on_epoch:
                on_epoch(rows)

        results = fit_many(model, dataset.train, dataset.validation, members, on_epoch=record)
        for path, settings, result, (state, row) in zip(paths, members, results, best, strict=True):
            last = result.history[-1]
            images = len(dataset.train.positions(settings.classes))
            metrics = zero_metrics(steps_per_epoch(images, settings.batch_size))
            check_there(path)
            with Checkpoints(path, writing=True) as checkpoints:
                if row["step"] < last["step"]:
                    checkpoints.save(Progress(state, metrics), row["validation"]["loss"])
                checkpoints.save(Progress(result.state, metrics), last["validation"]["loss"])
        return [finish_run(path, dataset, model=model) for path in paths]


def _alone(on_epoch: Callable[[list[Row]], None] | None) -> Callable[[TrainState, Row], None] | None:
    return None if on_epoch is None else lambda state, row: on_epoch([row])
