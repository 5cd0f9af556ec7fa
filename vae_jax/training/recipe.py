"""What a model is trained by: the objects that the settings describe, or those that were given in their place."""

import dataclasses
from typing import Any

import numpy as np
import optax

from vae_jax.config import Settings, objective_name
from vae_jax.models.autoencoders import AnyModel
from vae_jax.models.evaluation import check_bound
from vae_jax.models.inputs import Inputs
from vae_jax.models.objectives import Objective
from vae_jax.registry import OBJECTIVES
from vae_jax.training.optimizer import make_optimizer, steps_per_epoch

RATES = ("beta", "learning_rate", "sparsity_weight", "corruption_level")
"""Settings that are arguments of the compiled steps: another value is no new program, and models that are trained
together may differ in them."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A model, and how it is trained on a number of images."""

    model: AnyModel
    settings: Settings
    images: int
    """Training images, on which the schedule of the learning rate depends."""
    given_objective: Objective | None = None
    given_optimizer: optax.GradientTransformation | None = None
    given_inputs: Inputs | None = None

    def __post_init__(self) -> None:
        self.objective.check(self.model)
        if self.settings.iwae_samples:
            check_bound(self.model)

    @property
    def objective(self) -> Objective:
        """What is minimised."""
        return self.given_objective or OBJECTIVES.make(objective_name(self.settings), self.settings)

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """What makes a step of a gradient."""
        return self.given_optimizer or make_optimizer(self.settings, self.images)

    @property
    def inputs(self) -> Inputs:
        """What the model sees of an image."""
        return self.given_inputs or Inputs.from_settings(self.settings)

    @property
    def beta(self) -> float:
        """Weight of the KL term in the rows of a run: that of the objective, where it has one."""
        return float(getattr(self.objective, "beta", self.settings.beta))

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return steps_per_epoch(self.images, self.settings.batch_size)

    def rates(self) -> dict[str, np.ndarray]:
        """The settings' values of RATES, as arguments of a program."""
        return {name: np.asarray(getattr(self.settings, name), np.float32) for name in RATES}

    def with_rates(self, rates: dict[str, Any]) -> "Recipe":
        """The same with these values, which may be traced."""
        return dataclasses.replace(self, settings=dataclasses.replace(self.settings, **rates))

    @property
    def own(self) -> list[str]:
        """Names of what was given, and can't be made from the settings again."""
        return [name for name in ("objective", "optimizer", "inputs") if getattr(self, f"given_{name}") is not None]
