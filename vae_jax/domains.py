"""How a field of settings is declared with its domain, and checked. Imports no JAX."""

import dataclasses
import math
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

LARGEST_NUMBER = 1e6
"""Of a weight, a rate or a level: products and squares of such numbers are finite in float32."""
SMALLEST_NUMBER = 1e-12
"""Of one that has to be above 0, so that it is none in float32 either."""
MOST_UNITS = 2**20
"""Of a layer or of the latent space."""
MOST_STEPS = 2**31 - 1
"""The step is an int32."""
MOST_EPOCHS = 1_000_000
MOST_SAMPLES = 1_000_000
MOST_SHOWN = 100
"""Rows, columns or models of a figure."""


def setting(default: Any, allowed: str, valid: Callable[[Any], bool]) -> Any:
    """A dataclass field with its domain: `allowed` in words for the error, `valid` as the test."""
    return dataclasses.field(default=default, metadata={"allowed": allowed, "valid": valid})


def at_least(minimum: int, default: int | None, note: str = "", *, most: int = MOST_STEPS) -> Any:
    """An integer field of at least `minimum` and at most `most`; None is allowed where it is the default."""
    return setting(
        default,
        f"an integer of at least {minimum} and at most {most}{note}",
        lambda v: (v is None and default is None) or minimum <= v <= most,
    )


def epoch_number(default: int | None = None) -> Any:
    """The field of a number of epochs; None is the study's own."""
    return at_least(1, default, most=MOST_EPOCHS)


def layer_sizes(default: tuple[int, ...] | None = None, fewest: int = 0) -> Any:
    """The field of hidden layers; None is the architecture's own."""
    return setting(
        default,
        f"{'at least one, ' if fewest else ''}integers of at least 1 and at most {MOST_UNITS}, at most {MOST_SHOWN}",
        lambda v: v is None or (fewest <= len(v) <= MOST_SHOWN and all(1 <= size <= MOST_UNITS for size in v)),
    )


def seed_field() -> Any:
    """The field of a seed."""
    return setting(0, "an integer from 0 to 4294967295", lambda v: 0 <= v < 2**32)


def non_negative(default: float, note: str = "", *, most: float = LARGEST_NUMBER) -> Any:
    """A float field of at least 0."""
    return setting(default, f"a number of at least 0 and at most {most:g}{note}", lambda v: 0 <= v <= most)


def positive(default: float, *, least: float = SMALLEST_NUMBER, most: float = LARGEST_NUMBER) -> Any:
    """A float field above 0."""
    return setting(default, f"a number of at least {least:g} and at most {most:g}", lambda v: least <= v <= most)


def fraction(default: float, note: str = "") -> Any:
    """A float field in [0, 1)."""
    return setting(default, f"a number in [0, 1){note}", lambda v: 0 <= v < 1)


def probability(default: float) -> Any:
    """A float field strictly between 0 and 1."""
    return setting(
        default,
        f"a number between 0 and 1, no nearer to them than {SMALLEST_NUMBER:g}",
        lambda v: SMALLEST_NUMBER <= v <= 1 - SMALLEST_NUMBER,
    )


def shortened(text: str, most: int) -> str:
    """At most so many letters of a text, so that a message stays readable."""
    return text if len(text) <= most else text[: most - 4] + " ..."


def are_different(values: tuple[Any, ...], most: int = MOST_SHOWN) -> bool:
    """Whether these are between one and `most` values, each once."""
    return 0 < len(values) == len(set(values)) <= most


def has_type(value: Any, hint: Any) -> bool:
    """Whether a value is of the type that a field declares."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in arguments
    if origin in (Union, types.UnionType):
        return any(has_type(value, argument) for argument in arguments)
    if origin is tuple:
        return isinstance(value, tuple) and all(has_type(item, arguments[0]) for item in value)
    if hint is float:
        # An integer is no NaN, but may be too large to be asked.
        return type(value) is int or (isinstance(value, float) and not math.isnan(value))
    if hint is int:
        return type(value) is int
    return value is None if hint is types.NoneType else isinstance(value, hint)


def in_words(hint: Any) -> str:
    """What the type of a field allows, for an error."""
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    return "a path" if Path in get_args(hint) else "a text" if str in get_args(hint) else f"a {hint.__name__}"
