"""Speed beside PyTorch, Keras and plain Flax, in one run: `make benchmark`, or `python -m experiments.benchmark`.

Every contestant trains the same architecture on the same images in memory, with the same batch size and Adam, in a
process of its own, warm; their repetitions alternate, and medians count. The roof is the largest rate of a float32
matrix product in the same run. What is not installed is named, never counted. For time to quality each trains by its
own published recipe, 20 minutes at most, in two latent dimensions.
"""

import dataclasses
from typing import Literal, get_args

from experiments.contestants.worker import CONTESTANTS
from experiments.flags import StudyConfig, run
from vae_jax.domains import at_least, setting

__all__ = ["Config", "run"]
Section = Literal["training", "startup", "inference", "scaling", "streaming", "many", "quality"]
"""In the order in which they are measured."""
Name = Literal["ours", "torch", "torch_fused", "torch_compile", "keras_tensorflow", "keras_torch", "keras_jax", "flax"]


@dataclasses.dataclass(frozen=True)
class Config(StudyConfig):
    """Measure training, start-up, inference, scaling, streaming, many models at once, time to quality; report it."""

    sections: tuple[Section, ...] = setting(get_args(Section), "at least one section", lambda v: len(v) > 0)
    """What to measure."""
    contestants: tuple[Name, ...] = setting(tuple(CONTESTANTS), "at least one contestant", lambda v: len(v) > 0)
    """Who takes part."""
    repetitions: int = at_least(1, 5)
    """Timed repetitions of each contestant, after one that is not counted."""
    quick: bool = False
    """A trial with few images, two repetitions and one batch size: its numbers mean little."""
