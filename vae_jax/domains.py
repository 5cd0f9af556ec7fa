"""How a field of settings is declared with its domain, and checked. Imports no JAX."""

import dataclasses
import functools
import math
import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from vae_jax.errors import UsageError
from vae_jax.registry import Registry

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
MOST_COMPONENTS = 100
"""Of a mixture."""
MOST_SHOWN = 100
"""Rows, columns or models of a figure."""


Needs = tuple[str, Callable[[Any], bool]]
"""When a field acts, in words and as a test of the settings; elsewhere it must be its default."""


def setting(default: Any, allowed: str, valid: Callable[[Any], bool], **more: Any) -> Any:
    """A dataclass field with its domain.

    Args:
        default: its default.
        allowed: what is allowed, in words for the error.
        valid: the test.
        more: `group`, the heading of --help that it stands under; `needs`, when it acts; `common`, whether it is one of
            the few flags that --help shows first.
    """
    return dataclasses.field(default=default, metadata={"allowed": allowed, "valid": valid, **more})


def choice(default: Any, **more: Any) -> Any:
    """A field whose type says what is allowed, such as a Literal."""
    return dataclasses.field(default=default, metadata=more)


def named(default: str | None, registry: Registry, **more: Any) -> Any:
    """A field that names an entry of a registry."""
    return dataclasses.field(default=default, metadata={"registry": registry, **more})


def at_least(minimum: int, default: int | None, note: str = "", *, most: int = MOST_STEPS, **more: Any) -> Any:
    """An integer field of at least `minimum` and at most `most`; None is allowed where it is the default."""
    return setting(
        default,
        f"an integer of at least {minimum} and at most {most}{note}",
        lambda v: (v is None and default is None) or minimum <= v <= most,
        **more,
    )


def epoch_number(default: int | None = None, **more: Any) -> Any:
    """The field of a number of epochs; None is the study's own."""
    return at_least(1, default, most=MOST_EPOCHS, **more)


def layer_sizes(default: tuple[int, ...] | None = None, fewest: int = 0, **more: Any) -> Any:
    """The field of hidden layers; None is the architecture's own."""
    return setting(
        default,
        f"{'at least one, ' if fewest else ''}integers of at least 1 and at most {MOST_UNITS}, at most {MOST_SHOWN}",
        lambda v: v is None or (fewest <= len(v) <= MOST_SHOWN and all(1 <= size <= MOST_UNITS for size in v)),
        **more,
    )


def seed_field(**more: Any) -> Any:
    """The field of a seed."""
    return setting(0, "an integer from 0 to 4294967295", lambda v: 0 <= v < 2**32, **more)


def non_negative(default: float, note: str = "", *, most: float = LARGEST_NUMBER, **more: Any) -> Any:
    """A float field of at least 0."""
    return setting(default, f"a number of at least 0 and at most {most:g}{note}", lambda v: 0 <= v <= most, **more)


def positive(default: float, *, least: float = SMALLEST_NUMBER, most: float = LARGEST_NUMBER, **more: Any) -> Any:
    """A float field above 0."""
    allowed = f"a number of at least {least:g} and at most {most:g}"
    return setting(default, allowed, lambda v: least <= v <= most, **more)


def fraction(default: float, note: str = "", **more: Any) -> Any:
    """A float field in [0, 1)."""
    return setting(default, f"a number in [0, 1){note}", lambda v: 0 <= v < 1, **more)


def probability(default: float, **more: Any) -> Any:
    """A float field strictly between 0 and 1."""
    return setting(
        default,
        f"a number between 0 and 1, no nearer to them than {SMALLEST_NUMBER:g}",
        lambda v: SMALLEST_NUMBER <= v <= 1 - SMALLEST_NUMBER,
        **more,
    )


def image_sides(text: str | None) -> tuple[int, int] | None:
    """Height and width that "N" or "HxW" says; None of another text."""
    sides = re.fullmatch(r"([1-9][0-9]{0,4})(?:x([1-9][0-9]{0,4}))?", text or "")
    return (int(sides[1]), int(sides[2] or sides[1])) if sides else None


def shortened(text: str, most: int) -> str:
    """At most so many letters of a text, so that a message stays readable."""
    return text if len(text) <= most else text[: most - 4] + " ..."


def are_different(values: tuple[Any, ...], most: int = MOST_SHOWN) -> bool:
    """Whether these are between one and `most` values, each once."""
    return 0 < len(values) == len(set(values)) <= most


def hints_of(settings: Any) -> dict[str, Any]:
    """The types of a dataclass's fields by name."""
    kind: Any = type(settings)
    return _hints(kind)


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def flag_of(name: str) -> str:
    """The flag of a field, such as --latent-dim."""
    return "--" + name.replace("_", "-")


def check_fields(settings: Any, *, names: bool = True) -> None:
    """Check every field of a settings dataclass against its type and its domain.

    Args:
        settings: the dataclass.
        names: whether what a field names has to be registered.

    Raises:
        UsageError: naming the flag, the value and what is allowed, for the first bad field.
    """
    hints = hints_of(settings)
    for field in dataclasses.fields(settings):
        value, hint, metadata = getattr(settings, field.name), hints[field.name], field.metadata
        known = metadata["registry"] if names and "registry" in metadata else (value,)
        if (
            not _has_type(value, hint)
            or not metadata.get("valid", lambda _: True)(value)
            or value not in (*known, None)
        ):
            words = f"{flag_of(field.name)} must be {allowed(field, hint)}"
            raise UsageError(f"{words}, got {shortened(repr(value), 120)}.")


def allowed(field: Any, hint: Any) -> str:
    """What a field allows, in words."""
    if "registry" in field.metadata:
        return "one of " + ", ".join(field.metadata["registry"])
    return field.metadata.get("allowed") or _in_words(hint)


def as_declared(value: Any, hint: Any) -> Any:
    """A value as a field of this type holds it, where it means the same: lists, NumPy's numbers, paths as text."""
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if isinstance(value, np.generic):
        value = value.item()
    sequence = next((kind for kind in kinds if get_origin(kind) is tuple), None)
    if sequence and isinstance(value, list | tuple | np.ndarray):
        return tuple(as_declared(item, get_args(sequence)[0]) for item in value)
    if Path in kinds and isinstance(value, str) and value:
        return Path(value)
    return str(value) if str in kinds and isinstance(value, Path) else value


def _has_type(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in arguments
    if origin in (Union, types.UnionType):
        return any(_has_type(value, argument) for argument in arguments)
    if origin is tuple:
        return isinstance(value, tuple) and all(_has_type(item, arguments[0]) for item in value)
    if hint is float:
        # An integer is no NaN, but may be too large to be asked.
        return type(value) is int or (isinstance(value, float) and not math.isnan(value))
    if hint is int:
        return type(value) is int
    return value is None if hint is types.NoneType else isinstance(value, hint)


def _in_words(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    return "a path" if Path in get_args(hint) else "a text" if str in get_args(hint) else f"a {hint.__name__}"
