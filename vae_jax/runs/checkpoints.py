"""Orbax checkpoints of a run; beside `vae_jax.runs.orbax` the one module that knows orbax."""

import errno
import os
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from vae_jax.errors import RunError, UsageError
from vae_jax.models.autoencoders import Parameters
from vae_jax.runs.integrity import array_digests, changed_files, is_listed, leaves, list_files, record_digest
from vae_jax.runs.orbax import alone, quiet
from vae_jax.training.devices import shared, shared_sharding, unshared
from vae_jax.training.fit import Progress
from vae_jax.training.processes import is_first, wait_for_others
from vae_jax.training.step import StepMetrics, TrainState

_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOENT)
_REMOVED = ".removed.tmp"
"""Where orbax moves a checkpoint that is no longer kept: a half-deleted one would look like a damaged one."""


class Checkpoints:
    """The two latest checkpoints of a run and the best on validation.

    Three items a step: "params", what is evaluated; "training", what going on needs beside it, also within an
    epoch; and "record", the step, its validation loss, and type, shape and SHA-256 of every array, because orbax
    restores a flipped byte without a word. The record holds a digest of its own, and a list beside the items the
    SHA-256 of every file.
    """

    def __init__(self, run: Path, *, writing: bool = False):
        """Open RUN/checkpoints: for any process to read, or for all of them together to write.

        To write, it is made where it is missing and cleared of what a kill left there.
        """
        import orbax.checkpoint as ocp

        quiet()
        self._ocp = ocp
        self._run, self._folder = run, (run / "checkpoints").absolute()
        self._writing = writing
        if writing:
            self._prepare()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self,
            create=False,
            read_only=not writing,
            todelete_subdir=_REMOVED,
            lightweight_initialize=True,  # else a damaged file of one checkpoint hides them all
            multiprocessing_options=ocp.options.MultiprocessingOptions() if writing else alone(ocp),
        )
        self._sharding = shared_sharding() if writing else SingleDeviceSharding(jax.local_devices()[0])
        self._manager: Any = None
        self._losses: dict[int, float | None] = {}
        self._unlisted: set[int] = set()
        """Steps whose files are to be listed once they are on disk."""
        if self._folder.is_dir():
            names = ("params", "training", "record")
            self._manager = ocp.CheckpointManager(self._folder, item_names=names, options=options)
            self._losses = {step: self._loss(step) for step in self.steps}

    def _prepare(self) -> None:
        if is_first():
            self._clear()
        wait_for_others()

    def _clear(self) -> None:
        try:
            self._folder.mkdir(exist_ok=True)
            for path in self._folder.iterdir():
                if path.name == _REMOVED or path.name.endswith(".orbax-checkpoint-tmp"):
                    shutil.rmtree(path)
        except OSError as error:
            raise RunError(f"{self._folder} can't be written: {error.strerror}. Give another --run-dir.") from error

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # Saving is asynchronous: leaving without this loses the last checkpoint.
        try:
            if self._manager:
                self._manager.close()
            if kind is None or issubclass(kind, KeyboardInterrupt):
                self._settle()
        except Exception as error:
            if kind is None:
                raise self._not_saved(error) from error

    @property
    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, the latest last."""
        return sorted(self._manager.all_steps()) if self._manager else []

    @property
    def latest_step(self) -> int:
        """Step of the latest checkpoint."""
        return self._existing(self.steps)[-1]

    @property
    def best_step(self) -> int:
        """Step of the checkpoint with the lowest validation loss, the first of equals; else the latest one's."""
        steps = self._existing(self.steps)
        known = [step for step in steps if self._losses.get(step) is not None]
        return min(known, key=lambda step: self._losses[step] or 0.0) if known else steps[-1]

    def _existing(self, steps: list[int]) -> list[int]:
        if not steps:
            raise UsageError(f"{self._run} holds no finished checkpoint.\nTrain it again in another --run-dir.")
        return steps

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Orbax's question which of the checkpoints to keep, while the newest is being written."""
        steps = [info.step for info in checkpoints]
        known = [step for step in steps if self._losses.get(step) is not None]
        best = {min(known, key=lambda step: self._losses[step] or 0.0)} if known else set()
        return [step in best or step in sorted(steps)[-2:] for step in steps]

    def save(self, progress: Progress, loss: float | None) -> None:
        """Save where training stands; the copy lets the next steps reuse the memory while it is written.

        Args:
            progress: at an epoch's end with the metrics of the next one, which are 0.
            loss: on validation, None within an epoch.

        Raises:
            RunError: the disk refuses.
        """
        self.wait()
        state, metrics = jax.tree.map(jnp.copy, progress[:2])
        params, training = state.evaluation_params, _training_item(state, metrics)
        step = int(state.step)
        record = {
            "step": step,
            "loss": loss,
            "seconds": progress.seconds,
            "listed": True,
            "arrays": {"params": array_digests(params), "training": array_digests(training)},
        }
        arguments = self._ocp.args
        items = arguments.Composite(
            params=arguments.StandardSave(shared(params)),
            training=arguments.StandardSave(shared(training)),
            record=arguments.JsonSave({**record, "sha256": record_digest(record)}),
        )
        self._losses[step] = loss
        try:
            self._manager.save(step, args=items)
        except Exception as error:  # orbax raises ValueError where the disk is full
            raise self._not_saved(error) from error
        self._unlisted.add(step)

    def settle(self) -> None:
        """List the files of what was saved, if it is on disk by now.

        Raises:
            RunError: the disk refuses.
        """
        if self._unlisted and not self._manager.is_saving_in_progress():
            try:
                self._settle()
            except OSError as error:
                raise self._not_saved(error) from error

    def wait(self) -> None:
        """Wait until what was saved is on disk.

        Raises:
            RunError: the disk refuses.
        """
        try:
            self._manager.wait_until_finished()
            self._settle()
        except Exception as error:
            raise self._not_saved(error) from error

    def _settle(self) -> None:
        if self._writing and is_first():  # a reader leaves it to whoever writes there
            shutil.rmtree(self._folder / _REMOVED, ignore_errors=True)
            for step in sorted(self._unlisted):
                if (self._folder / str(step)).is_dir():
                    list_files(self._folder / str(step))
        self._unlisted.clear()

    def restore_params(self, step: int, shapes: Parameters) -> tuple[Parameters, int]:
        """The evaluated parameters at a step, or at the newest other one that is not damaged, and that step."""
        items, record = self._restore(step, params=shapes)
        return items["params"], record["step"]

    def restore_progress(self, step: int, shapes: TrainState, metrics: StepMetrics) -> Progress:
        """All of training at a step, or at the newest other one that is not damaged.

        Args:
            step: of the checkpoint.
            shapes: of the state.
            metrics: their shapes, [steps of an epoch].
        """
        template = _training_item(shapes, metrics)
        items, record = self._restore(step, params=shapes.evaluation_params, training=template)
        training = items["training"]
        averaged = shapes.ema_params is not None
        state = TrainState(
            training["params"] if averaged else items["params"],
            training["opt_state"],
            training["step"],
            items["params"] if averaged else None,
        )
        return Progress(state, StepMetrics(**training["metrics"]), record["seconds"])

    def problem(self, step: int, shapes: TrainState, metrics: StepMetrics) -> str | None:
        """What is wrong with the checkpoint of a step, all of it read and compared with its digests."""
        try:
            wanted = {"params": shapes.evaluation_params, "training": _training_item(shapes, metrics)}
            _, record = self._restore_step(step, wanted)
        except _DamagedError as error:
            return str(error)
        return self._changed(record)

    def _changed(self, record: dict[str, Any]) -> str | None:
        # What is wrong with the files of a checkpoint whose arrays are all good.
        step = record["step"]
        changed = changed_files(self._folder / str(step))
        # A kill may leave the latest one without a list.
        killed = step == self.latest_step and not (self._run / "summary.json").exists()
        if changed is None and record.get("listed") and not killed:
            return "has no list of its files, but all its arrays are what was saved"
        if not changed:
            return None
        names = ", ".join(changed[:3]) + (", ..." if len(changed) > 3 else "")
        return f"has other files than were written ({names}), but all its arrays are what was saved"

    def _restore(self, step: int, **shapes: Any) -> tuple[Any, dict[str, Any]]:
        problems = []
        for candidate in [step, *(other for other in reversed(self.steps) if other != step)]:
            try:
                found = self._restore_step(candidate, shapes)
            except _DamagedError as error:
                problems.append(f"checkpoint {candidate} of {self._run} {error}")
                continue
            if problems:
                warnings.warn(f"{'; '.join(problems)}: using checkpoint {candidate} instead.", stacklevel=2)
            if changed := self._changed(found[1]):
                warnings.warn(f"checkpoint {candidate} of {self._run} {changed}: it is used.", stacklevel=2)
            if not is_listed(self._folder / str(candidate)):
                self._unlisted.add(candidate)
            return found
        problem = "; ".join(problems)
        raise UsageError(
            f"{problem[0].upper()}{problem[1:]}: nothing to restore.\nTrain it again in another --run-dir."
        )

    def _loss(self, step: int) -> float | None:
        try:
            loss: float | None = self._record(step)["loss"]
        except _DamagedError:
            return None
        return loss

    def _record(self, step: int) -> dict[str, Any]:
        arguments = self._ocp.args
        try:
            restored = self._manager.restore(step, args=arguments.Composite(record=arguments.JsonRestore()))
            record = dict(restored["record"])
            digest = record.pop("sha256")
        except Exception as error:  # anything from ValueError to JSONDecodeError where a file is damaged
            raise _DamagedError("is damaged (no list of its arrays)") from error
        if digest != record_digest(record):
            raise _DamagedError("is damaged (its list of arrays is not what was saved)")
        if record["step"] != step:
            raise _DamagedError(f"is damaged (it is that of step {record['step']})")
        return record

    def _restore_step(self, step: int, shapes: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        arguments = self._ocp.args
        record = self._record(step)
        digests = record["arrays"]
        for name, wanted in shapes.items():
            saved = {leaf: entry[:2] for leaf, entry in digests[name].items()}
            if saved != {leaf: [str(array.dtype), list(array.shape)] for leaf, array in leaves(wanted)}:
                raise _DamagedError("holds arrays of other names or shapes than its config.json asks for")
        own = self._sharding
        targets = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=own), shapes)
        wanted = {name: arguments.StandardRestore(target) for name, target in targets.items()}
        try:
            items = {
                name: unshared(item)
                for name, item in dict(self._manager.restore(step, args=arguments.Composite(**wanted))).items()
            }
        except Exception as error:
            raise _DamagedError("is damaged (its files can't be read)") from error
        for name in shapes:
            for leaf, entry in array_digests(items[name]).items():
                if entry != digests[name][leaf]:
                    raise _DamagedError(f"is damaged ({name}{leaf} is not what was saved)")
        return {name: items[name] for name in shapes}, record

    def _not_saved(self, error: Exception) -> RunError:
        # What the system says stands somewhere behind the paths of orbax and tensorstore.
        known = [os.strerror(number) for number in _REFUSALS]
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        reason = next((words for words in known if words in str(error)), first[:200])
        return RunError(
            f"The checkpoint could not be written to {self._run / 'checkpoints'}: {reason}.\n"
            "Make room, then go on from the last finished one with --resume."
        )


def set_aside_after(run: Path, step: int) -> None:
    """Move the checkpoints after a step, which could not be read, to RUN/set_aside: they are about to be made anew."""
    folder = run / "checkpoints"
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name.isdigit() and int(path.name) > step:
            target = run / "set_aside" / path.name
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(exist_ok=True)
            path.rename(target)


class _DamagedError(Exception):
    """A checkpoint that can't be used, with the reason."""


def _training_item(state: TrainState, metrics: StepMetrics) -> dict[str, Any]:
    item = {"opt_state": state.opt_state, "step": state.step, "metrics": metrics._asdict()}
    return item if state.ema_params is None else {**item, "params": state.params}
