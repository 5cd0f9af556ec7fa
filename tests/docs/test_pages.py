"""The pages of docs/: their code runs, their commands have the flags that they name, their links lead somewhere."""

import importlib
import re
import shlex
import shutil
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vae_jax
from vae_jax import registry
from vae_jax.__main__ import COMMANDS
from vae_jax.cli.command import parse
from vae_jax.registry import Registry

ROOT = Path(__file__).parents[2]
PAGES = {str(path.relative_to(ROOT / "docs")): path for path in sorted((ROOT / "docs").rglob("*.md"))}
REGISTRIES = [each for each in vars(registry).values() if isinstance(each, Registry)]
FENCED = re.compile(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
SHOWN = {"py", "text", "json", "slurm", "pycon"}
"""Languages of blocks that are not run: code of other libraries, what is printed, what a file holds."""
ELSEWHERE = {"guides/track.md"}
"""Pages whose code needs packages that are no part of vae_jax; tests/cli/test_track.py runs it."""
MADE = ("api", "lessons")
"""Folders whose pages the build makes, and whose links it checks."""
TRAINED = {
    *("guides/anomalies.md", "guides/conditional.md", "guides/from_pythae.md", "guides/resume.md", "guides/seeds.md"),
    "models/sparse_autoencoder.md",
}
"""Pages that train for seconds what other tests train, too: the slow tests run their code."""
OTHERS = {"pip", "tensorboard", "srun", "sbatch", "gcloud", "cp", "scp", "python"}
"""Programs that are not ours."""


def blocks(name, language):
    """The fenced blocks of a page in one language."""
    found = FENCED.findall(PAGES[name].read_text(encoding="utf-8"))
    return [textwrap.dedent(text) for _, kind, text in found if kind == language]


def pages_with(language):
    return [name for name in PAGES if blocks(name, language)]


def test_each_block_says_what_it_is():
    for name, path in PAGES.items():
        kinds = {kind for _, kind, _ in FENCED.findall(path.read_text(encoding="utf-8"))}
        assert kinds <= {"python", "sh", *SHOWN}, name


# Code.


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What pages find where they are run: runs/digits and runs/mnist, a VAE of digits, and photos/, in two classes."""
    where = tmp_path_factory.mktemp("pages")
    shutil.copytree(ROOT / "tests/runs/schema3_vae", where / "runs/digits")
    (where / "runs/mnist").symlink_to(where / "runs/digits")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 12, 16, 3), np.uint8)
    for i, image in enumerate(pixels):
        path = where / "photos" / ("cat", "dog")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return where


@pytest.fixture
def registered():
    """Takes out again what a page registers."""
    before = [(each, set(each)) for each in REGISTRIES]
    yield
    for each, names in before:
        for name in set(each) - names:
            each.unregister(name)


@pytest.mark.filterwarnings("ignore:photos:UserWarning")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in TRAINED else [])
        for name in pages_with("python")
        if name not in ELSEWHERE
    ],
)
def test_the_code_of_a_page_runs_from_its_first_block_to_its_last(name, folder, registered, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    names = {"__name__": "page"}
    for i, block in enumerate(blocks(name, "python")):
        exec(compile(block, f"{name}, block {i + 1}", "exec"), names)


# Commands.


def lines_of(block):
    """The commands of a block, each as its words, without comments and pipes."""
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words:
            end = next((i for i, word in enumerate(words) if word in ("|", "&&", ">", "&")), len(words))
            part = words[:end]
            words = [] if words[end : end + 1] == [">"] else words[end + 1 :]
            while part and re.fullmatch(r"[A-Z_]+=.*", part[0]):
                part = part[1:]
            if part:
                yield part


def check_command(words):
    """Parse a command as it would be, up to the point where it would read something."""
    if words[0] == "make":
        assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text(), words
        return
    if words[0].startswith("scripts/"):
        assert (ROOT / words[0]).exists(), words
        words = ["python", "-m", "experiments.mnist", *words[1:]]
    if "-m" in words and words[0] in ("python", "srun"):
        module, *arguments = words[words.index("-m") + 1 :]
        if module.startswith("experiments."):
            kind = importlib.import_module(module).Config
            return parse(kind, [word for word in arguments if word != "--resume"])
        words = ["vae-jax", *arguments] if module == "vae_jax" else words
    if words[0] == "srun" and "vae-jax" in words:
        words = words[words.index("vae-jax") :]
    if words[0] == "vae-jax":
        if words[1:] == ["--help"] or words[2:] == ["--help"]:
            return
        kind, _ = COMMANDS[words[1]]
        return parse(kind, [word for word in words[2:] if word != "--resume"])
    assert words[0] in OTHERS, f"{words[0]} is no program that pages name"


@pytest.mark.parametrize("name", pages_with("sh"))
def test_each_command_of_a_page_has_the_flags_and_values_that_it_is_given(name):
    for block in blocks(name, "sh"):
        for words in lines_of(block):
            try:
                check_command(words)
            except (vae_jax.UsageError, KeyError) as error:
                pytest.fail(f"{shlex.join(words)}: {error}")


def test_a_flag_a_value_or_a_command_that_is_not_there_is_found():
    check_command(["vae-jax", "train", "digits", "--beta", "4"])
    for wrong in ("train digits --betas 4", "train digits --beta x", "trains digits", "encode RUN"):
        with pytest.raises((vae_jax.UsageError, KeyError)):
            check_command(["vae-jax", *wrong.split()])
    with pytest.raises(vae_jax.UsageError):
        check_command(["python", "-m", "experiments.compare", "--seed", "5"])
    block = "A=1 vae-jax train x \\\n  --beta 2  # why\n\nmake test > file\n"
    assert [*lines_of(block)] == [["vae-jax", "train", "x", "--beta", "2"], ["make", "test"]]


# Links.


def anchors(path):
    """What a link can name in a page: its headings as MkDocs has them."""
    text = FENCED.sub("", path.read_text(encoding="utf-8"))
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        plain = re.sub(r"[^\w\s-]", "", re.sub(r"\]\(.*?\)", "", heading)).strip().lower()
        yield re.sub(r"[\s-]+", "-", plain)


@pytest.mark.parametrize("name", PAGES)
def test_each_relative_link_leads_somewhere(name):
    page = PAGES[name]
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        target, _, anchor = link.partition("#")
        if re.match(r"\w+:", target):
            continue
        path = (page.parent / target).resolve() if target else page
        if path.parent.name in MADE:
            continue
        assert path.exists(), link
        if anchor:
            assert anchor in [*anchors(path)], link
