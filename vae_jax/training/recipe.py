"""What a model is trained by: the objects that the settings describe, or those that were given in their place."""

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import optax

from vae_jax.config import Settings, objective_name, sampling_name, steps_per_epoch, total_steps
from vae_jax.errors import UsageError
from vae_jax.models.autoencoders import AnyModel, build_model
from vae_jax.models.evaluation import check_bound
from vae_jax.models.inputs import Inputs
from vae_jax.models.objectives import Objective
from vae_jax.registry import OBJECTIVES, OPTIMIZERS, SAMPLINGS
from vae_jax.training.optimizer import make_optimizer
from vae_jax.training.sampling import Sampling

T = TypeVar("T")
RATES = ("beta", "tc_weight", "learning_rate", "sparsity_weight", "corruption_level")
"""Settings that are arguments of the compiled steps: another value is no new program, and models that are trained
together may differ in them."""

_GIVEN = ("objective", "optimizer", "inputs", "sampling")
_NOT_TOLD = ("parent", "name", "precision")  # what flax adds, and how the same model computes


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
    given_sampling: Sampling | None = None

    def __post_init__(self) -> None:
        self.objective.check(self.model)
        if self.model.infers and not self.objective.infers:
            raise UsageError(
                f"A model of --condition inferred must be trained by m2, got {type(self.objective).__name__}: its "
                "classifier would learn nothing.\nUse --objective m2, or --condition labels."
            )
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
    def sampling(self) -> Sampling:
        """Which images an epoch is made of."""
        return self.given_sampling or SAMPLINGS.make(sampling_name(self.settings), self.settings)

    @property
    def beta(self) -> float:
        """Weight of the KL term in the rows of a run: that of the objective, where it has one."""
        return float(getattr(self.objective, "beta", self.settings.beta))

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return steps_per_epoch(self.images, self.settings.batch_size)

    def step_after(self, epoch: int) -> int:
        """Steps that are done after epoch number `epoch`, from 0; the last epoch may end early."""
        return min((epoch + 1) * self.steps, total_steps(self.settings, self.images))

    def rates(self) -> dict[str, np.ndarray]:
        """The settings' values of RATES, as arguments of a program."""
        return {name: np.asarray(getattr(self.settings, name), np.float32) for name in RATES}

    def with_rates(self, rates: dict[str, Any]) -> "Recipe":
        """The same with these values, which may be traced."""
        return dataclasses.replace(self, settings=dataclasses.replace(self.settings, **rates))

    @property
    def of_program(self) -> "Recipe":
        """The same but for the defaults of what a program takes as arguments: seed and rates."""
        fields = dataclasses.fields(Settings)
        free: dict[str, Any] = {field.name: field.default for field in fields if field.name in (*RATES, "seed")}
        return dataclasses.replace(self, settings=dataclasses.replace(self.settings, **free))

    @property
    def own(self) -> list[str]:
        """Names of what was given, and can't be made from the settings again."""
        try:
            as_described = build_model(self.settings, self.model.image_shape, self.model.classes) == self.model
        except UsageError:
            as_described = False
        given = [name for name in _GIVEN if getattr(self, f"given_{name}") is not None]
        return given if as_described else ["model", *given]

    @property
    def described(self) -> dict[str, str]:
        """What the model is, and what was given; an optimiser can't be told from another."""
        return {name: description(getattr(self, name)) for name in {"model", *self.own} - {"optimizer"}}


def kept(make: Callable[..., T]) -> Callable[..., T]:
    """Keep the last programs that `make` made, of a recipe and of more: for another seed or rate they serve again.

    With objects that were given, or that one's own entry of a registry makes, a program is made anew: they may have
    changed between two calls.
    """

    @functools.lru_cache(maxsize=32)
    def again(*arguments: Any) -> T:
        return make(*arguments)

    def made(recipe: Recipe, *more: Any) -> T:
        settings, given = recipe.settings, [getattr(recipe, f"given_{name}") for name in _GIVEN]
        own = (
            OBJECTIVES.own(objective_name(settings)),
            SAMPLINGS.own(sampling_name(settings)),
            OPTIMIZERS.own(settings.optimizer),
        )
        if any(own) or any(one is not None for one in given):
            return make(recipe, *more)
        return again(recipe.of_program, *more)

    return made


def description(part: Any) -> str:
    """What an object is, alike in every process: its class, and the fields that are not their defaults."""
    if hasattr(part, "_fields"):
        defaults = dict.fromkeys(part._fields) | part._field_defaults
    elif dataclasses.is_dataclass(part) and not isinstance(part, type):
        defaults = {field.name: field.default for field in dataclasses.fields(part) if field.name not in _NOT_TOLD}
    elif isinstance(part, tuple | list):
        return f"({', '.join(map(description, part))})"
    elif type(part).__repr__ is object.__repr__:
        return type(part).__name__
    else:
        return getattr(part, "__qualname__", None) or " ".join(re.sub(" at 0x[0-9a-f]+", "", repr(part)).split())
    values = {name: getattr(part, name) for name in defaults}
    own = [f"{name}={description(value)}" for name, value in values.items() if repr(value) != repr(defaults[name])]
    return f"{type(part).__name__}({', '.join(own)})"
