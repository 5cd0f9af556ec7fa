"""Orbax checkpoints of a run; beside `vae_jax.runs.orbax` the one module that knows orbax."""

import contextlib
import errno
import math
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from vae_jax.errors import RunError, UsageError
from vae_jax.files import writing as writing_to
from vae_jax.models.autoencoders import Parameters
from vae_jax.runs.integrity import DamagedError, check_arrays, check_shapes, make_record, read_record
from vae_jax.runs.old_checkpoints import as_now, as_saved
from vae_jax.runs.orbax import alone, quiet
from vae_jax.training.devices import shared, shared_sharding, unshared
from vae_jax.training.processes import is_first, wait_for_others
from vae_jax.training.program import Progress
from vae_jax.training.recipe import Recipe
from vae_jax.training.step import StepMetrics, TrainState, init_state, zero_metrics

_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOENT)
_REMOVED = ".removed.tmp"
"""Where a checkpoint goes that is no longer kept: a half-deleted one would look like a damaged one."""


class Checkpoints:
    """The two latest checkpoints of a run and the best on validation.

    Three items a step: "params", what is evaluated; "training", what going on needs beside it, also within an
    epoch; and "record", as in `vae_jax.runs.integrity`.
    """

    def __init__(self, run: Path, *, writing: bool = False):
        """Open RUN/checkpoints: for any process to read, or for all of them together to write.

        To write, it is made where it is missing and cleared of what a kill left there.
        """
        import orbax.checkpoint as ocp

        quiet()
        self._ocp = ocp
        self._run, self._folder = run, (run / "checkpoints").absolute()
        processes = ocp.options.MultiprocessingOptions() if writing else alone(ocp)
        self._sharding = shared_sharding() if writing else SingleDeviceSharding(jax.local_devices()[0])
        self._reader = ocp.Checkpointer(
            ocp.StandardCheckpointHandler(multiprocessing_options=processes), multiprocessing_options=processes
        )
        self._writer: Any = None
        if writing:
            self._writer = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler())
            if is_first():
                self._clear()
            wait_for_others()

    def _clear(self) -> None:
        with writing_to(self._folder, "Give another --run-dir."):
            self._folder.mkdir(exist_ok=True)
        # Where a save has just failed in this process, some of its files may still come; orbax clears them, too.
        for path in (*self._folder.glob(_REMOVED), *self._folder.glob("*.orbax-checkpoint-tmp")):
            shutil.rmtree(path, ignore_errors=True)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # Saving is asynchronous: leaving without this loses the last checkpoint.
        try:
            self._reader.close()
            if self._writer:
                self._writer.close()
                if kind is None or issubclass(kind, KeyboardInterrupt):
                    self._tidy()
        except Exception as error:
            if kind is None:
                raise self._not_saved(error) from error

    @property
    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, the latest last."""
        return sorted(int(path.name) for path in self._folder.glob("*") if path.name.isdecimal())

    @property
    def latest_step(self) -> int:
        """Step of the latest checkpoint."""
        return self._existing()[-1]

    @property
    def best_step(self) -> int:
        """Step of the checkpoint with the lowest validation loss, the first of equals; else the latest one's."""
        return min(self._existing(), key=self._rank)

    def _rank(self, step: int) -> tuple[float, int]:
        with contextlib.suppress(DamagedError):
            if (loss := read_record(self._folder / str(step))["loss"]) is not None:
                return loss, step
        return math.inf, -step

    def _existing(self) -> list[int]:
        if not (steps := self.steps):
            raise UsageError(f"{self._run} holds no finished checkpoint.\nTrain it again in another --run-dir.")
        return steps

    def save(self, progress: Progress, loss: float | None) -> None:
        """Save where training stands, at an epoch's end with its validation loss, within one with None.

        The copy lets the next steps reuse the memory while it is written.

        Raises:
            RunError: the disk refuses.
        """
        self.wait()
        state, metrics = jax.tree.map(jnp.copy, progress[:2])
        items = {"params": state.evaluation_params, "training": _training_item(state, metrics)}
        record = make_record(int(state.step), loss, progress.seconds, items)
        arguments = self._ocp.args
        saved = {name: arguments.StandardSave(shared(item)) for name, item in items.items()}
        saved["record"] = arguments.JsonSave(record)
        try:
            self._writer.save(self._folder / str(record["step"]), args=arguments.Composite(**saved))
        except Exception as error:  # orbax raises ValueError where the disk is full
            raise self._not_saved(error) from error

    def wait(self) -> None:
        """Wait until what was saved is on disk.

        Raises:
            RunError: the disk refuses.
        """
        try:
            self._writer.wait_until_finished()
            self._tidy()
        except Exception as error:
            raise self._not_saved(error) from error

    def _tidy(self) -> None:
        if not is_first() or not self.steps:
            return
        removed = self._folder / _REMOVED
        for step in set(self.steps[:-2]) - {self.best_step}:
            removed.mkdir(exist_ok=True)
            (self._folder / str(step)).rename(removed / str(step))
        shutil.rmtree(removed, ignore_errors=True)
        # Orbax reads no more of these files than that they are there, but writes into them where on this machine.
        for file in (self._folder / str(self.latest_step)).rglob("commit_success.txt"):
            file.write_text("")

    def restore_params(self, step: int, shapes: Parameters) -> tuple[Parameters, int]:
        """The evaluated parameters at a step, or at the newest other one that is not damaged, and that step."""
        items, record = self._restore(step, params=shapes)
        return items["params"], record["step"]

    def restore_progress(self, step: int, recipe: Recipe) -> Progress:
        """All of training at a step, or at the newest other one that is not damaged."""
        shapes, metrics = jax.eval_shape(lambda: (init_state(recipe), zero_metrics(recipe.steps)))
        items, record = self._restore(step, params=shapes.evaluation_params, training=_training_item(shapes, metrics))
        training, params = items["training"], items["params"]
        averaged = params if "params" in training else None
        more = averaged, training.get("shares")
        state = TrainState(training.get("params", params), training["opt_state"], training["step"], *more)
        return Progress(state, StepMetrics(**training["metrics"]), record["seconds"])

    def problem(self, step: int, params: Parameters | None = None) -> str | None:
        """What is wrong with a step's checkpoint, its arrays compared with their digests; `params` are shapes."""
        folder = self._folder / str(step)
        try:
            record = read_record(folder)
            if params is not None:
                check_shapes(record, "params", as_saved(folder, {"params": params})["params"])
            for name in ("params", "training"):
                check_arrays(record, name, self._arrays(folder / name))
        except DamagedError as error:
            return str(error)
        return None

    def _restore(self, step: int, **shapes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        problems = []
        for candidate in [step, *(other for other in reversed(self.steps) if other != step)]:
            try:
                found = self._restore_step(candidate, shapes)
            except DamagedError as error:
                problems.append(f"checkpoint {candidate} of {self._run} {error}")
                continue
            if problems:
                warnings.warn(f"{'; '.join(problems)}: using checkpoint {candidate} instead.", stacklevel=2)
            return found
        raise UsageError(f"Nothing to restore: {'; '.join(problems)}.\nTrain it again in another --run-dir.")

    def _restore_step(self, step: int, shapes: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        folder = self._folder / str(step)
        record, items, saved = read_record(folder), {}, as_saved(folder, shapes)
        for name, wanted in saved.items():
            check_shapes(record, name, wanted)
            items[name] = self._arrays(folder / name, wanted)
            check_arrays(record, name, items[name])
        return items if saved is shapes else as_now(items, shapes), record

    def _arrays(self, path: Path, shapes: Any = None) -> Any:
        # Without shapes: all that there is, in plain dicts and lists.
        try:
            shapes = self._reader.metadata(path).item_metadata.tree if shapes is None else shapes
            own = self._sharding
            target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=own), shapes)
            return unshared(self._reader.restore(path, args=self._ocp.args.StandardRestore(target)))
        except Exception as error:
            raise DamagedError("is damaged (its files can't be read)") from error

    def _not_saved(self, error: Exception) -> RunError:
        # What the system says stands somewhere behind the paths of orbax and tensorstore.
        known = [os.strerror(number) for number in _REFUSALS]
        first = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        reason = next((words for words in known if words in str(error)), first)
        return RunError(
            f"The checkpoint could not be written to {self._run / 'checkpoints'}: {reason}.\n"
            "Make room, then go on from the last finished one with --resume."
        )


def set_aside_after(run: Path, step: int) -> None:
    """Move the checkpoints after a step, which could not be read, to RUN/set_aside: they are about to be made anew."""
    for path in (run / "checkpoints").glob("*"):
        if path.name.isdecimal() and int(path.name) > step:
            target = run / "set_aside" / path.name
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(exist_ok=True)
            path.rename(target)


def _training_item(state: TrainState, metrics: StepMetrics) -> dict[str, Any]:
    item = {"opt_state": state.opt_state, "step": state.step, "metrics": metrics._asdict()}
    item |= {} if state.shares is None else {"shares": state.shares}
    return item if state.ema_params is None else {**item, "params": state.params}
