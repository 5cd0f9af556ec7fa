"""Orbax checkpoints of a run: the one module that knows orbax."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from vae_jax.errors import UsageError
from vae_jax.models import Parameters
from vae_jax.training import Row, TrainState


class Checkpoints:
    """Orbax checkpoints of a run: the latest and the best on validation are kept.

    Two items a step: "params", what is evaluated, and "training", what resuming needs beside it.
    """

    def __init__(self, run: Path):
        """Open RUN/checkpoints, which is created when the first one is saved."""
        import absl.logging
        import orbax.checkpoint as ocp
        from orbax.checkpoint.checkpoint_managers import preservation_policy as keep

        absl.logging.set_verbosity(absl.logging.ERROR)
        self._ocp = ocp
        self._run = run
        policy = keep.AnyPreservationPolicy(
            [keep.LatestN(1), keep.BestN(get_metric_fn=lambda metrics: metrics["loss"], reverse=True, n=1)]
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policy,
            best_fn=lambda metrics: metrics["loss"],
            best_mode="min",
            create=False,
        )
        (run / "checkpoints").mkdir(exist_ok=True)
        self._manager = ocp.CheckpointManager(
            (run / "checkpoints").absolute(), item_names=("params", "training"), options=options
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        # Saving is asynchronous: leaving without this loses the last checkpoint.
        self._manager.close()

    @property
    def saved(self) -> bool:
        """Whether there is a finished checkpoint."""
        return self._manager.latest_step() is not None

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
        """Save a state; the copy lets the next epoch reuse the state's memory while it is written."""
        state = jax.tree.map(jnp.copy, state)
        save = self._ocp.args.StandardSave
        items = self._ocp.args.Composite(params=save(state.best_params), training=save(_training_item(state)))
        self._manager.save(row["step"], args=items, metrics={"loss": row["validation"]["loss"]})

    def restore_params(self, step: int, shapes: Parameters) -> Parameters:
        """The evaluated parameters at a step."""
        return self._restore(step, params=shapes)["params"]

    def restore_state(self, step: int, shapes: TrainState) -> TrainState:
        """The whole training state at a step."""
        items = self._restore(step, params=shapes.best_params, training=_training_item(shapes))
        training = items["training"]
        if shapes.ema_params is None:
            return TrainState(items["params"], training["opt_state"], training["step"])
        return TrainState(training["params"], training["opt_state"], training["step"], items["params"])

    def _restore(self, step: int, **shapes: Any) -> Any:
        device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        targets = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), shapes)
        arguments = {name: self._ocp.args.StandardRestore(target) for name, target in targets.items()}
        try:
            return self._manager.restore(step, args=self._ocp.args.Composite(**arguments))
        except Exception as error:  # orbax raises anything from ValueError to JSONDecodeError on damage
            reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            raise UsageError(
                f"Checkpoint {step} of {self._run} can't be restored: {reason}\n"
                "It is damaged, or belongs to another config.json; train the run again."
            ) from error


def _training_item(state: TrainState) -> dict[str, Any]:
    item = {"opt_state": state.opt_state, "step": state.step}
    return item if state.ema_params is None else {**item, "params": state.params}
