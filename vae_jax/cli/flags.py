"""Flags made from the fields of a dataclass: what a field is, allows and means stands in its class alone.

A field is the flag of its name, and its docstring is the help. Annotated, such as `Annotated[Path, "positional"]`, it
is an argument by its place; where it has a default, it is both. Imports no JAX.
"""

import argparse
import ast
import dataclasses
import difflib
import functools
import inspect
import re
import textwrap
import types
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from vae_jax.domains import flag_of
from vae_jax.errors import UsageError

HELP = {"-h", "--help", "--help-all"}
_SHORT = {"-o": "--output"}
_GROUPS = ("flags", "model", "data", "training", "run", "devices")
_REMEDY = "See --help for all flags."


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message.removeprefix('argument ')}.\n{_REMEDY}")


def read_flags(kind: type[Any], arguments: Sequence[str]) -> dict[str, Any]:
    """The fields that a command line gives, by name. What is no value of its field's type stays a text.

    Raises:
        UsageError: a flag is unknown or has no value, an argument is missing, empty or one too many.
    """
    if "" in arguments:
        before = next((flag for flag in reversed(arguments[: arguments.index("")]) if flag.startswith("--")), None)
        raise UsageError(f"{before or 'An argument'} is empty. Give it a value, or leave it out.")
    arguments = [_SHORT.get(word, word) for word in arguments]
    found, others = _parser(kind).parse_known_intermixed_args(arguments)
    for other in others:
        if other.startswith("-"):
            flags = [flag_of(field.name) for field in dataclasses.fields(kind)]
            raise UsageError(f"{other} is no flag.{guess(other.partition('=')[0], flags)}\n{_REMEDY}")
        raise UsageError(f"{other} is one argument too many, and the value of no flag.\n{_REMEDY}")
    hints = get_type_hints(kind)
    given = {name: _converted(value, hints[name.removeprefix("--")]) for name, value in vars(found).items()}
    for name in _places(kind):
        if (same := f"--{name}") in given:
            value = given.pop(same)
            if given.setdefault(name, value) != value:
                raise UsageError(
                    f"{name.upper()} and --{name} are the same, got {given[name]!r} and {value!r}. Leave one out."
                )
    return given


def guess(word: str, known: Iterable[str]) -> str:
    """What was meant, as a question, where something is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean {near[0]}?" if near else ""


def help_text(kind: type[Any], program: str, commands: Mapping[str, str], everything: bool) -> str:
    """What --help prints: usage, a sentence, commands, and the common flags, or all of them by their groups.

    Args:
        kind: the dataclass.
        program: as it is called.
        commands: words that may come first, and what they do.
        everything: whether all flags are shown.
    """
    parser = _parser(kind, everything)
    words = parser.add_argument_group("commands")
    for word, about in commands.items():
        words.add_argument(word, help=about.replace("%", "%%"))
    places = [f"[{name.upper()}]" if name in _flags(kind) else name.upper() for name in _places(kind)]
    parser.usage = " ".join([program, *places, "[--flags]" if _flags(kind) else "COMMAND ..."])
    return parser.format_help().rstrip()


def _parser(kind: type[Any], everything: bool = True) -> _Parser:
    # It tells flags from values, and no more: what a value may be is checked where it is checked for Python, too.
    flags, places, docs = _flags(kind), _places(kind), documented(kind)  # type: ignore[arg-type]
    parser = _Parser(
        description=inspect.getdoc(kind),
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=26, width=100),
        add_help=False,
        allow_abbrev=False,  # a flag to come would change what a short one means
        argument_default=argparse.SUPPRESS,
    )
    parser._negative_number_matcher = re.compile(r"-(\.?\d|inf|nan)")  # its own knows no -1e-3
    everything = everything or not any(field.metadata.get("common") for field in flags.values())
    groups = {name: parser.add_argument_group(name) for name in _GROUPS}
    for name in places:
        parser.add_argument(name, nargs="?" if name in flags else None, metavar=name.upper(), help=docs.get(name))
    hints = get_type_hints(kind)
    for name, field in flags.items():
        hint, common = hints[name], field.metadata.get("common")
        group = groups[field.metadata.get("group", "flags") if everything else "flags"]
        doc = f"The same as {name.upper()}." if name in places else docs.get(name, "")
        about = _with_values(field, hint, doc) if everything or common else argparse.SUPPRESS
        dest = f"--{name}" if name in places else name  # kept apart, to see whether both are given
        if hint is bool:
            group.add_argument(flag_of(name), dest=dest, action=argparse.BooleanOptionalAction, help=about)
        else:
            value = {int: "N", float: "X", Path: "PATH"}.get(
                _kinds(hint)[0], "NAME" if _choices(field, hint) else "TEXT"
            )
            nargs = "*" if _is_sequence(hint) else None
            group.add_argument(flag_of(name), dest=dest, nargs=nargs, metavar=value, help=about)
    if not everything:
        about = f"All {len(flags)} flags, by {', '.join(_GROUPS[1:])}."
        groups["flags"].add_argument("--help-all", action="store_true", help=about)
    return parser


def _places(kind: type[Any]) -> list[str]:
    return [name for name, hint in get_type_hints(kind, include_extras=True).items() if get_origin(hint) is Annotated]


def _flags(kind: type[Any]) -> dict[str, Any]:
    places, fields = _places(kind), sorted(dataclasses.fields(kind), key=lambda field: bool(field.kw_only))
    return {f.name: f for f in fields if f.name not in places or f.default is not dataclasses.MISSING}


@functools.cache
def documented(kind: Any) -> dict[str, str]:
    """The docstring of each field, which is no part of the class, but stands below it in its source."""
    docs = {}
    for each in reversed(kind.__mro__[:-1]):
        try:
            body = ast.parse(textwrap.dedent(inspect.getsource(each))).body[0].body  # type: ignore[attr-defined]
        except OSError:  # such as a class that was typed into an interpreter
            continue
        for field, below in pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                docs[ast.unparse(field.target)] = " ".join(str(ast.literal_eval(below.value)).split())
    return docs


def _choices(field: Any, hint: Any) -> list[str]:
    literals = [kind for kind in (hint, *get_args(hint)) if get_origin(kind) is Literal]
    return [*field.metadata.get("registry", ()), *(str(value) for kind in literals for value in get_args(kind))]


def _with_values(field: Any, hint: Any, about: str) -> str:
    notes = [", ".join(_choices(field, hint))] if _choices(field, hint) else []
    if field.default not in (None, ()) and hint is not bool:
        notes.append(f"default {' '.join(map(str, field.default)) if _is_sequence(hint) else field.default}")
    return f"{about} ({'; '.join(notes)})".replace(" ()", "").replace("%", "%%")


def _is_sequence(hint: Any) -> bool:
    return any(get_origin(kind) is tuple for kind in (hint, *get_args(hint)))


def _kinds(hint: Any) -> list[Any]:
    # The types of one value, such as [int] for tuple[int, ...] | None.
    if get_origin(hint) is Literal:
        return [type(value) for value in get_args(hint)]
    inner = [part for part in get_args(hint) if part not in (..., types.NoneType)]
    return [kind for part in inner for kind in _kinds(part)] if inner else [hint]


def _converted(value: Any, hint: Any) -> Any:
    if isinstance(value, list):
        return tuple(_converted(item, hint) for item in value)
    for kind in _kinds(hint) if isinstance(value, str) else ():
        try:
            return kind(value) if kind is not Path else Path(value).expanduser()
        except (ValueError, RuntimeError):
            continue
    return value
