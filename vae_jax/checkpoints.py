"""Orbax checkpoints of a run: the one module that knows orbax."""

import hashlib
import logging
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding

from vae_jax.errors import RunError, UsageError
from vae_jax.history import Row
from vae_jax.models import Parameters
from vae_jax.parallel import shared, shared_sharding, unshared
from vae_jax.training import TrainState


class Checkpoints:
    """The latest checkpoint of a run and the best on validation.

    Three items a step: "params", what is evaluated; "training", what resuming needs beside it; and "digests", type,
    shape and SHA-256 of every array, because orbax restores a flipped byte without a word.
    """

    def __init__(self, run: Path, alone: bool = False):
        """Open RUN/checkpoints, which is made where it is missing; all processes do so, or one `alone` to read."""
        import absl.logging
        import orbax.checkpoint as ocp
        from orbax.checkpoint.checkpoint_managers import preservation_policy as keep

        # What goes wrong is raised; orbax logs the whole stack of it as well.
        absl.logging.set_verbosity(absl.logging.FATAL)
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        self._ocp = ocp
        self._run = run
        policy = keep.AnyPreservationPolicy(
            [keep.LatestN(1), keep.BestN(get_metric_fn=lambda metrics: metrics["loss"], reverse=True, n=1)]
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policy,
            best_fn=lambda metrics: metrics["loss"],  # orbax stores metrics only with it
            best_mode="min",
            create=False,
            multiprocessing_options=_alone(ocp) if alone else ocp.options.MultiprocessingOptions(),
        )
        self._sharding = SingleDeviceSharding(jax.local_devices()[0]) if alone else shared_sharding()
        try:
            (run / "checkpoints").mkdir(exist_ok=True)
        except OSError as error:
            raise RunError(f"{run / 'checkpoints'} can't be made: {error.strerror}. Give another --run-dir.") from error
        self._manager = ocp.CheckpointManager(
            (run / "checkpoints").absolute(), item_names=("params", "training", "digests"), options=options
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # Saving is asynchronous: leaving without this loses the last checkpoint.
        try:
            self._manager.close()
        except Exception as error:
            if kind is None:
                raise self._not_saved(error) from error

    @property
    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, the latest last."""
        return sorted(self._manager.all_steps())

    @property
    def latest_step(self) -> int:
        """Step of the latest checkpoint."""
        return self._existing(self._manager.latest_step())

    @property
    def best_step(self) -> int:
        """Step of the checkpoint with the lowest validation loss."""
        return self._existing(self._manager.best_step())

    def _existing(self, step: int | None) -> int:
        if step is None:
            raise UsageError(f"{self._run} holds no finished checkpoint.\nTrain it again in another --run-dir.")
        return step

    def save(self, state: TrainState, row: Row) -> None:
        """Save a state; the copy lets the next epoch reuse the state's memory while it is written.

        Raises:
            RunError: the disk refuses.
        """
        state = jax.tree.map(jnp.copy, state)
        params, training = state.evaluation_params, _training_item(state)
        arguments = self._ocp.args
        items = arguments.Composite(
            params=arguments.StandardSave(shared(params)),
            training=arguments.StandardSave(shared(training)),
            digests=arguments.JsonSave({"params": _digests(params), "training": _digests(training)}),
        )
        try:
            self._manager.save(row["step"], args=items, metrics={"loss": row["validation"]["loss"]})
        except Exception as error:  # orbax raises ValueError where the disk is full
            raise self._not_saved(error) from error

    def restore_params(self, step: int, shapes: Parameters) -> tuple[Parameters, int]:
        """The evaluated parameters at a step, or at the newest other one that is not damaged, and that step."""
        items, found = self._restore(step, params=shapes)
        return items["params"], found

    def restore_state(self, step: int, shapes: TrainState) -> TrainState:
        """The whole training state at a step, or at the newest other one that is not damaged."""
        items, found = self._restore(step, params=shapes.evaluation_params, training=_training_item(shapes))
        for later in (other for other in self.steps if other > found):
            self._manager.delete(later)  # damaged, and about to be trained again
        training = items["training"]
        if shapes.ema_params is None:
            return TrainState(items["params"], training["opt_state"], training["step"])
        return TrainState(training["params"], training["opt_state"], training["step"], items["params"])

    def _restore(self, step: int, **shapes: Any) -> tuple[Any, int]:
        problems = []
        for candidate in [step, *(other for other in reversed(self.steps) if other != step)]:
            try:
                items = self._restore_step(candidate, shapes)
            except _DamagedError as error:
                problems.append(f"checkpoint {candidate} of {self._run} {error}")
                continue
            if problems:
                warnings.warn(f"{'; '.join(problems)}: using checkpoint {candidate} instead.", stacklevel=2)
            return items, candidate
        problem = "; ".join(problems)
        raise UsageError(
            f"{problem[0].upper()}{problem[1:]}: nothing to restore.\nTrain it again in another --run-dir."
        )

    def _restore_step(self, step: int, shapes: dict[str, Any]) -> dict[str, Any]:
        arguments = self._ocp.args
        try:
            digests = self._manager.restore(step, args=arguments.Composite(digests=arguments.JsonRestore()))["digests"]
        except Exception as error:  # anything from ValueError to JSONDecodeError where a file is damaged
            raise _DamagedError("is damaged (no list of its arrays)") from error
        for name, wanted in shapes.items():
            saved = {leaf: entry[:2] for leaf, entry in digests[name].items()}
            if saved != {leaf: [str(array.dtype), list(array.shape)] for leaf, array in _leaves(wanted)}:
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
            for leaf, entry in _digests(items[name]).items():
                if entry != digests[name][leaf]:
                    raise _DamagedError(f"is damaged ({name}{leaf} is not what was saved)")
        return {name: items[name] for name in shapes}

    def _not_saved(self, error: Exception) -> RunError:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        return RunError(
            f"The checkpoint could not be written to {self._run / 'checkpoints'}: {reason[:200]}\n"
            "Make room, then go on from the last finished one with --resume."
        )


def _alone(ocp: Any) -> Any:
    # This process waits for no other.
    own = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process{own}"
    )


class _DamagedError(Exception):
    """A checkpoint that can't be used, with the reason."""


def _training_item(state: TrainState) -> dict[str, Any]:
    item = {"opt_state": state.opt_state, "step": state.step}
    return item if state.ema_params is None else {**item, "params": state.params}


def _leaves(tree: Any) -> list[tuple[str, Any]]:
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def _digests(tree: Any) -> dict[str, list[Any]]:
    # Type, shape and SHA-256 by the name of the leaf.
    return {
        name: [str(leaf.dtype), list(leaf.shape), hashlib.sha256(np.asarray(leaf).tobytes()).hexdigest()]
        for name, leaf in _leaves(tree)
    }
