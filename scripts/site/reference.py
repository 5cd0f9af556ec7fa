"""A hook of mkdocs: an API page for each module of the library, and one that lists the public names.

Nothing is imported: the sources are read by griffe, as mkdocstrings does. A public name without a docstring ends the
build.
"""

import ast
from pathlib import Path
from typing import Any

PACKAGE = Path("vae_jax")
COMMANDS = ("cli", "explore", "__main__.py", "_xla.py")
"""What is no library: users call it by the command."""
FIRST = """# API

The names that `import vae_jax` gives, loaded when they are first used:

| name | what it is |
|---|---|
{names}

The rest is imported from where it lies, such as `from vae_jax.registry import LIKELIHOODS`. Names that begin with an
underscore may change; the command line is described by `vae-jax --help`.

| module | what it holds |
|---|---|
{modules}
"""


def on_files(files: Any, config: Any) -> Any:
    """Add the pages."""
    from mkdocs.structure.files import File

    package = _package()
    if lacking := [name for name in undocumented(package) if not name.split(".")[1].startswith(COMMANDS)]:
        from mkdocs.exceptions import PluginError

        raise PluginError(f"public names must have a docstring, {len(lacking)} have none: {', '.join(lacking[:20])}")
    pages = {
        f"api/{_place(module)}.md": f"---\ntitle: {module.rpartition('.')[2]}\n---\n\n::: {module}\n"
        for module in modules()
    }
    pages["api/index.md"] = FIRST.format(
        names="\n".join(_row(package, f"vae_jax.{name}", home) for name, home in public_names().items()),
        modules="\n".join(_row(package, module, module) for module in modules()),
    )
    for place, content in pages.items():
        files.append(File.generated(config, place, content=content))
    return files


def modules() -> list[str]:
    """The modules of the library that hold public names, by rooms; those for all rooms come first."""
    paths = [path for path in sorted(PACKAGE.rglob("*.py")) if path.relative_to(PACKAGE).parts[0] not in COMMANDS]
    paths = [path for path in paths if path.name != "__init__.py"]
    paths.sort(key=lambda path: (len(path.parts), path))
    return [".".join(path.with_suffix("").parts) for path in paths]


def public_names() -> dict[str, str]:
    """What `vae_jax` itself gives, and where each name lives."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    homes = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_HOMES"
    )
    named = {name: f"vae_jax.{home}.{name}" for home, names in homes.items() for name in names}
    return dict(sorted(named.items(), key=lambda item: item[0].lower()))


def undocumented(thing: Any) -> list[str]:
    """Public modules, classes, functions and methods below this one that have no docstring."""
    lacking = []
    for name, member in thing.members.items():
        if name.startswith("_") or member.is_alias or not (member.is_module or member.is_class or member.is_function):
            continue
        lacking += ([] if member.has_docstring else [member.path]) + undocumented(member)
    return lacking


def _package() -> Any:
    import griffe

    return griffe.load("vae_jax", search_paths=["."], docstring_parser="google")


def _place(module: str) -> str:
    parts = module.split(".")[1:]
    return "/".join(parts)


def _row(package: Any, shown: str, home: str) -> str:
    thing = package[home.removeprefix("vae_jax.")]
    summary = thing.docstring.value.split("\n\n")[0].replace("\n", " ") if thing.docstring else ""
    return f"| [`{shown}`][{home}] | {summary} |"
