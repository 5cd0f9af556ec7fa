"""Every flag of every command, from its own field: what its type and domain exclude is refused, its default taken."""

import dataclasses
import importlib
import re
import subprocess
import sys
import types
from dataclasses import MISSING
from pathlib import Path
from typing import Annotated, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from conftest import refusal

from vae_jax.__main__ import COMMANDS, Tool, tool
from vae_jax.cli.command import main, parse
from vae_jax.cli.flags import documented, help_text, read_flags
from vae_jax.cli.train import Config, TrainConfig
from vae_jax.domains import allowed, at_least, flag_of
from vae_jax.errors import UsageError
from vae_jax.registry import LIKELIHOODS

ROOT = Path(__file__).parents[2]
STUDIES = (
    "anomaly benchmark compare compression denoising dimensionality lossless reparametrisation results sparse sweep"
)
KINDS = {name: kind for name, (kind, _) in COMMANDS.items()}
KINDS |= {name: importlib.import_module(f"experiments.{name}").Config for name in STUDIES.split()}
FIELDS = [(name, field.name) for name, kind in KINDS.items() for field in dataclasses.fields(kind)]
EDGES = """
x no_such_name 1.5 nan inf -inf -1 0 1 3 1e39 -1e-3 1e-300 1000000000000 99999999999999999999999999 gaussian : blur:1
masking:1.5 gaussian: gaussian:x gaussian:nan gaussian:-1 gaussian:0 gaussian:1e300
"""
SEVERAL = [[], ["2", "2"], ["-1", "2"], ["3", "x"], ["masking:0.5", "masking:.5"], [str(i) for i in range(1, 102)]]


def value_of(text, kind):
    """The value of this type that a text is; None: it is none."""
    if get_origin(kind) is Literal:
        return next((value for value in get_args(kind) if str(value) == text), None)
    if get_origin(kind) in (Union, types.UnionType):
        values = (value_of(text, part) for part in get_args(kind) if part is not types.NoneType)
        return next((value for value in values if value is not None), None)
    if kind is int:
        return int(text) if re.fullmatch(r"-?\d+", text) else None
    if kind is float:
        return float(text) if re.fullmatch(r"-?(\d+(\.\d*)?(e-?\d+)?|inf)", text) else None
    return kind(text)


def tuple_of(hint):
    """The tuple that a type is or may be, such as tuple[int, ...] of tuple[int, ...] | None."""
    return next((kind for kind in (hint, *get_args(hint)) if get_origin(kind) is tuple), None)


def excluded(field, hint):
    """Values, as texts, that the type or the domain of a field excludes."""

    def allows(texts):
        of = tuple_of(hint)
        values = tuple(value_of(text, get_args(of)[0] if of else hint) for text in texts)
        value = values if of else values[0]
        named = value in field.metadata.get("registry", [value])
        return None not in values and named and field.metadata.get("valid", lambda _: True)(value)

    cases = [[text] for text in EDGES.split()] + (SEVERAL if tuple_of(hint) else [])
    return [texts for texts in cases if not allows(texts)]


def never(_):
    pytest.fail("it must not come to this")


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_what_a_field_excludes_is_refused_and_its_default_is_taken(name, field, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    kind, hints = KINDS[name], get_type_hints(KINDS[name], include_extras=True)
    fields = {each.name: each for each in dataclasses.fields(kind)}
    places = [each for each in fields if get_origin(hints[each]) is Annotated and fields[each].default is MISSING]
    field, hint, flag = fields[field], get_type_hints(kind)[field], flag_of(field)
    given = ["nowhere" for _ in places]

    def refused(*arguments):
        return refusal(kind, never, [*given, *arguments], capsys)

    if field.name in places:
        given.pop()
        assert places[-1].upper() in refused()
        assert refused("").startswith("An argument is empty.")
    elif hint is bool:
        assert flag in refused(f"{flag}=yes")
        for said, value in ((flag, True), (f"--no-{flag[2:]}", False)):
            assert read_flags(kind, [*given, said])[field.name] is value
    else:
        cases = excluded(field, hint)
        for texts in cases:
            assert refused(flag, *texts).startswith(f"{flag} must be {allowed(field, hint)}, got "), texts
        assert len(cases) >= 4 or not re.search(
            "int|float|Literal", f"{hint}{'Literal' * ('registry' in field.metadata)}"
        )
        assert refused(flag, "").startswith(f"{flag} is empty.")
        if not tuple_of(hint):
            assert refused(flag).startswith(f"{flag}: expected one argument.")
        if field.default is not None:
            texts = map(str, field.default if tuple_of(hint) else [field.default])
            assert read_flags(kind, [*given, flag, *texts])[field.name] == field.default
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", KINDS)
def test_the_help_names_every_flag_and_says_what_it_is(name, capsys):
    main(KINDS[name], never, ["--help-all"])
    text = "".join(capsys.readouterr().out.split())
    for field in dataclasses.fields(KINDS[name]):
        assert (flag_of(field.name) in text) or (field.name.upper() in text)
        assert len(documented(KINDS[name])[field.name]) > 8
        assert "".join(documented(KINDS[name])[field.name].split()) in text


def test_the_help_of_the_main_command_shows_the_common_flags_on_one_screen_and_the_others_by_groups(capsys):
    main(Config, never, ["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("usage: ")
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100
    common = {flag_of(field.name) for field in dataclasses.fields(Config) if field.metadata.get("common")}
    shown = {line.split()[0].rstrip(",") for line in lines if line.startswith("  --")}
    assert shown == {*common, "--help-all"}
    everything = help_text(Config, "program", {}, True)
    headings = [line.rstrip(":") for line in everything.splitlines() if line.endswith(":") and line[0] != " "]
    assert headings == ["model", "data", "training", "run", "devices"]


def test_what_a_user_registers_is_a_value_and_in_the_help():
    LIKELIHOODS.register("mine", lambda settings: None)
    try:
        assert parse(Config, ["--likelihood", "mine"]).likelihood == "mine"
        assert "mine" in help_text(Config, "program", {}, False)
    finally:
        LIKELIHOODS.unregister("mine")
    with pytest.raises(UsageError, match=r"--likelihood must be one of bernoulli, .*, got 'mine'"):
        parse(Config, ["--likelihood", "mine"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--latent-di", "3"], ["--latent-di is no flag", "Did you mean --latent-dim?", "--help"]),
        (["--latent-dims=3"], ["--latent-dims=3 is no flag", "Did you mean --latent-dim?"]),
        (["--colour", "red"], ["--colour is no flag.\nSee"]),
        (["stray"], ["stray is one argument too many", "--help"]),
        (["--epochs", "3", "4"], ["4 is one argument too many"]),
        (["--beta", "-1e-3"], ["--beta", "-0.001"]),
        (["--beta", "-inf"], ["--beta", "-inf"]),
        (["--beta", "--epochs", "3"], ["--beta: expected one argument"]),
        (["--hidden-sizes", "3", "x"], ["--hidden-sizes", "x"]),
        (["--seed", "1", "--latent-dim"], ["--latent-dim: expected one argument"]),
    ],
    ids=" ".join,
)
def test_what_is_no_flag_or_no_value_is_named(arguments, words, capsys):
    error = refusal(Config, never, arguments, capsys)
    for word in words:
        assert word in error


def test_values_are_what_their_fields_are():
    text = "--classes -1 3 cat --hidden-sizes 8 4 --beta 1e-3 --epochs 7 --run-dir a/b --no-compilation-cache"
    given = {"classes": (-1, 3, "cat"), "hidden_sizes": (8, 4), "beta": 1e-3, "epochs": 7, "run_dir": Path("a/b")}
    assert read_flags(Config, text.split()) == given | {"compilation_cache": False}
    assert parse(Config, ["--hidden-sizes"]).hidden_sizes == ()
    assert parse(Config, []) == Config()


def test_the_data_set_comes_by_its_place_or_by_its_flag():
    for text in ("digits --epochs 3", "--epochs 3 digits", "--dataset digits --epochs 3"):
        assert read_flags(TrainConfig, text.split()) == {"dataset": "digits", "epochs": 3}
    assert read_flags(TrainConfig, []) == {}


def test_a_field_says_all_that_a_flag_needs(capsys):
    @dataclasses.dataclass(frozen=True)
    class Base:
        """Not shown."""

        size: int = at_least(1, 3)
        """Of it, 100% sure."""

    @dataclasses.dataclass(frozen=True)
    class Kind(Base):
        """Do this."""

        colour: Literal["red", "blue"] = "red"
        """Of
        that."""

    main(Kind, never, ["--help"], {"other": (Base, never)})
    out = " ".join(capsys.readouterr().out.split())
    assert "Do this. flags: --size N Of it, 100% sure. (default 3)" in out
    assert "--colour NAME Of that. (red, blue; default red) commands: other Not shown." in out
    assert read_flags(Kind, ["--colour", "blue", "--size", "4"]) == {"colour": "blue", "size": 4}


def test_the_tool_names_its_commands(capsys):
    tool(["--help"])
    out = capsys.readouterr().out
    for name, (kind, _) in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(kind.__doc__.split()[0])}", out, re.MULTILINE)
    for arguments, words in (([], "missing"), (["trian", "--x"], "trian is no command. Did you mean train?")):
        error = refusal(Tool, None, arguments, capsys, COMMANDS)
        assert words in error
        assert ", ".join(COMMANDS) in error


def test_help_is_quick_because_it_imports_no_jax():
    code = """
import runpy, sys
sys.argv[1:] = ["--help"]
runpy.run_module(NAME, None, "__main__")
assert "jax" not in sys.modules
"""
    for name in ("experiments.mnist", "vae_jax", "experiments.plot_latent"):
        program = [sys.executable, "-c", code.replace("NAME", repr(name))]
        result = subprocess.run(program, cwd=ROOT, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        assert "usage: " in result.stdout
