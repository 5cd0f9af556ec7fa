"""Whatever a user gives, a command that refuses it says so in two lines, with exit code 1 or 2, and changes nothing."""

import importlib
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from bad_files import make_bad_files

from experiments import results
from vae_jax.__main__ import COMMANDS, tool
from vae_jax.cli.command import main

ROOT = Path(__file__).parents[2]
SECONDS = 15
MOST_GROWTH = 400 * 2**20
"""Of the process's memory within one command, in bytes."""


@pytest.fixture(scope="session")
def workshop(tmp_path_factory, finished_run):
    """A folder with bad files, and `run`, a copy of the finished run."""
    folder = tmp_path_factory.mktemp("bad")
    make_bad_files(folder)
    shutil.copytree(finished_run, folder / "run")
    (folder / "file").write_text("text")
    (folder / "full").mkdir()
    (folder / "full" / "mine.txt").write_text("mine")
    (folder / "dangling").symlink_to("nowhere/at/all")
    (folder / "taken.npz").write_text("mine")
    (folder / "taken.csv").write_text("mine")
    (folder / "study").mkdir()
    (folder / "study" / "study.json").write_text('{"study": "sweep", "dataset": "x", "sha256": "0"}')
    for i, content in enumerate(["", "[]", "[" * 100_000, '{"study": 3}', '{"study": "a", "dataset": "b"}', "\udcff"]):
        (folder / f"study{i}").mkdir()
        (folder / f"study{i}" / "study.json").write_text(content, errors="surrogateescape")
    (folder / "README.md").write_text("no markers here")
    (folder / "markers.md").write_text("\n".join(line for pair in results.MARKERS.values() for line in pair))
    np.savez(folder / "steps.npz", images=np.zeros((4000, 1, 1), np.uint8))
    return folder


def tree(folder):
    """All that a folder holds, by path: what changes with each write."""
    found, folders = {}, [folder]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                found[entry.path] = (status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns)
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                    found[entry.path] = found[entry.path][:2]  # a lock that came and went leaves its time there
    return found


def attempt(command, arguments, folder, capsys, monkeypatch):
    """Run a command of the tool, or a study, in a folder, in this process: exit code, stderr."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "unused: JAX is imported already")
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder / "no_tfds"))
    monkeypatch.delenv("VAE_JAX_DATA_DIR", raising=False)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    code, show = 0, warnings.showwarning
    study = None if command in COMMANDS else importlib.import_module(f"experiments.{command}")

    def too_slow(*_):
        raise AssertionError(f"took more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, too_slow)
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.resetwarnings()
            for category in (DeprecationWarning, RuntimeWarning, FutureWarning, ImportWarning):
                warnings.simplefilter("ignore", category)
            main(study.Config, study.run, arguments) if study else tool([command, *arguments])
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        warnings.showwarning = show
    growth = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory)
    assert growth < MOST_GROWTH, f"{growth / 2**20:.0f} MiB"
    return code, capsys.readouterr().err


def check_refusal(code, error, words):
    """A refusal as the design has it."""
    assert code in (1, 2), (code, error)
    lines = error.strip().splitlines()
    assert 1 <= len(lines) <= 2, error
    assert "Traceback" not in error
    assert max(map(len, lines)) < 500
    for word in words:
        assert word in error, (word, error)


def refuse(command, arguments, words, folder, capsys, monkeypatch):
    """Run a command that has to be refused, and check that nothing was changed."""
    before = tree(folder)
    code, error = attempt(command, arguments, folder, capsys, monkeypatch)
    check_refusal(code, error, words)
    assert tree(folder) == before
    return error


WITH_LAYERS = "compare sweep sparse dimensionality"
WITH_BATCHES = f"{WITH_LAYERS} denoising anomaly"
STUDIES = f"{WITH_BATCHES} reparametrisation compression"

# A command line, and the words of the message. What a flag's own domain excludes is in test_flags.py.
CASES = """
train digits --classes 77 | --classes; 77; 0, 1
train no_labels.npz --classes 1 | --classes; labels
train one_class.npz --classes 1 | --classes; 1; 0
train rare_class.npz --classes 1 --batch-size 1 | --classes 1; split
train digits --hidden-sizes 1000000 1000000 | --hidden-sizes; GiB; 1000000
train digits --latent-dim 1000000 --hidden-sizes 900000 | --latent-dim; GiB
train digits --arch conv --dense-size 1000000 --hidden-sizes 900000 | GiB
train digits --arch patch --model ae --latent-dim 3 | --latent-dim; 3
train digits --arch residual --latent-dim 3 | --latent-dim; 3; Use 4, or --latent vector
train digits --batch-size 100000 | --batch-size; 100000; 1,295
train steps.npz --epochs 1000000 --batch-size 1 | --epochs; steps
train digits --minutes 1 --epochs 2 | --minutes; --epochs
train digits --steps 3 --epochs 2 | --steps 3; --epochs 2
train digits --minutes 0 | --minutes; above 0
train digits --run-dir file | --run-dir; file
train digits --run-dir full | --run-dir; full
train digits --run-dir run | --run-dir; finished run
train nowhere.npz --run-dir run | --run-dir; finished run
train digits --dataset mnist --run-dir new | DATASET and --dataset are the same
train digits --run-dir file/below | file/below
train digits --run-dir dangling | dangling
train --resume | --resume; --run-dir
train --resume --run-dir full | full; run directory
train --resume --run-dir file | file; run directory
train --resume --run-dir run | run; finished run; --epochs
train --resume --run-dir run --seed 3 | --seed; 3
train --resume --run-dir run --epochs 0 | --epochs; 0
train good.npz --resume --run-dir run --batch-size 8 | good.npz; other data; --data-dir
train --coordinator nowhere:1 | --num-processes
plot run --output file | --output; file
plot run --output file/below | --output; file/below
plot run --output new.jpg | --output; folder without the ending .jpg; new.jpg
plot run --output new --base-image 100000 | --base-image; 100000
plot run --output new --max-points 1 | --interpolations; 2
compare --ae nowhere | nowhere; run directory
compare --ae run | --ae; run; VAE
compare --vae run --latent-dim 3 | --latent-dim; 3
compare --vae run --dataset good.npz --batch-size 8 | --dataset
denoising --run nowhere | nowhere; run directory
denoising --run run --dataset other_shape.npz | --run; (6, 8, 1)
denoising --dataset digits --arch mlp --hidden-sizes 1000000 900000 | GiB
anomaly --dataset no_labels.npz | no_labels; labels
anomaly --dataset one_class.npz | one_class; two classes
anomaly --dataset rare_class.npz | rare_class; two classes
anomaly --dataset digits --batch-size 1 | --batch-size; 1
dimensionality --run nowhere | nowhere; run directory
compression --run nowhere | nowhere; run directory
calibrate run --false-alarm-rate 0.0001 | --false-alarm-rate; 0.0001
encode run good.npz --output x.txt | --output; x.txt; .csv or .npz
score run good.npz --output x.npz | --output; x.npz; .csv
reconstruct run good.npz --output x.csv | --output; folder without the ending .csv
generate run --output x.jpg | --output; end in .png, or be the name of a folder without the ending .jpg; 'x.jpg'
generate run --output x.npz | --output; without the ending .npz
export run --output x.npz | --output; folder without the ending .npz
export run --output full | full; overwritten
export run --format pickle | --format; stablehlo, onnx, safetensors
generate run --temperature -1 | --temperature; -1; at least 0
explore run -o x.png | --output; .html; x.png
explore run --images -1 | --images; -1
explore run run full | full; one argument too many
explore run study | study; run directory
nearest run mine.npz --number 0 | --number; 0
nearest run mine.npz --output x.npz | --output; .png or .csv; x.npz
interpolate run mine.npz mine.npz --output x.csv | --output; .png
interpolate run mine.npz | SECOND
compress run good.npz x.png | OUTPUT; end in .vaez, or be the name of a file without the ending .png
decompress run good.npz x.csv | OUTPUT; .npz; x.csv
train digits --run-dir x.jpg | --run-dir; folder without the ending .jpg
sparse --dataset digits --output x.zip | --output; folder without the ending .zip
calibrate run --score latent_knn --neighbours 2000 | --neighbours; 1295; 2000
encode run good.npz --output dangling.npz | dangling.npz
score run good.npz --output dangling | --output; dangling; .csv
reconstruct run good.npz --output full | full; overwritten
reconstruct run good.npz --output taken.npz | taken.npz
generate run --output full | full; overwritten
generate run --output file/x.png | --output; file/x.png
encode run / | /; --output
score run / | /; --output
reconstruct run / | /; --output
compress run good.npz taken.npz | taken.npz
compress run good.npz nowhere/out | nowhere
compress run good.npz full | full; overwritten
decompress run nowhere out.npz | nowhere
decompress run full out.npz | full
decompress run dangling out.npz | dangling
decompress run pipe.npz out.npz | pipe.npz
decompress run device.npz out.npz | device.npz
decompress run garbage.npz out.npz | garbage.npz; VAEZ
decompress run empty.npz out.npz | empty.npz; VAEZ
decompress run good.npz taken.npz | taken.npz
verify full | full; config.json
results --readme nowhere.md | --readme; nowhere.md
results --readme full | --readme; full
results --readme README.md | --readme; README.md
results --readme pipe.npz | --readme; pipe.npz
results --readme garbage.npz | --readme; garbage.npz
results --readme markers.md --data-dir nowhere | --data-dir; nowhere
""".strip().splitlines()


def each(case, **words):
    """The case with each combination of these words in its places."""
    combinations = itertools.product(*(text.split() for text in words.values()))
    return [case.format(**dict(zip(words, chosen, strict=True))) for chosen in combinations]


CASES += [f"train digits --run-dir {'x' * 300} | {'x' * 300}"]
CASES += each("{name} {run} good.npz | {run}; run directory", name="encode score reconstruct", run="nowhere full")
CASES += each(
    "{name} {run} | {run}; run directory", name="plot calibrate generate export", run="nowhere file dangling full"
)
CASES += each("{name} run --data-dir nowhere | --data-dir; nowhere", name="plot calibrate verify")
CASES += each("compress run good.npz out {flag} nowhere | {flag}; nowhere", flag="--data-dir")
CASES += each("{name} run good.npz --output {to}.csv | {to}", name="encode score", to="taken nowhere/x file/x")
CASES += each("{name} --dataset {data} | {data}", name=STUDIES, data="nowhere.npz garbage.npz one_image.npz")
CASES += each("{name} --data-dir nowhere | --data-dir; nowhere", name=STUDIES)
CASES += each("{name} --dataset digits --output {to} | --output; {to}", name=STUDIES, to="full")
CASES += each("sweep --dataset digits --output {to} | --output; {to}", to="file dangling file/below")
CASES += each("{name} --dataset digits --output {to} | {to}; --output", name=STUDIES, to="study")
CASES += each("sparse --dataset digits --output study{i} | study{i}; --output", i="0 1 2 3 4 5")
CASES += each("{name} --dataset digits --batch-size 100000 | --batch-size; 100000", name=WITH_BATCHES)
CASES += each("{name} --dataset digits --hidden-sizes 1000000 1000000 | --hidden-sizes; GiB", name=WITH_LAYERS)
CASES += each(
    "results --readme markers.md --{flag} {to} | --{flag}; {to}", flag="data-dir figures root", to="file dangling"
)


BAD_NPZ = """
no_image no_images nothing scalar flat five_axes channels_first float_255 float_negative float_nan float_inf
ints_negative ints_large ints_01 complex text dates structured objects labels_short labels_2d labels_float labels_nan
labels_huge test_other_shape test_empty test_labels_alone empty garbage html cut flipped pickle single promises
negative_size no_header version_9 dots absolute link bomb folder dangling loop pipe device nowhere
"""
BAD_FOLDERS = "none three empty cut 16bit bomb many dangling pipe deep"
BAD_IDX = "missing empty html cut promises floats labels_few swapped none gzip_cut gzip_bomb other_size"
# Where the path is taken for a folder, its name is all that is left of it.
CASES += each("train {name}.npz --batch-size 1 | {name}.npz", name=f"{BAD_NPZ} one_image three_images")
CASES += each("train images_{name} --batch-size 1 | images_{name}", name=BAD_FOLDERS)
CASES += each("train mnist --data-dir idx_{name} | idx_{name}", name=BAD_IDX)
CASES += each("train --dataset={name} | {name}", name=f"mnits mnist:9.9.9 mnist/x ~nobody - \N{SNOWMAN} {'x' * 300}")
USES = itertools.cycle(["encode run {}", "score run {}", "reconstruct run {}", "compress run {} out"])
for name in [*BAD_NPZ.split(), "other_shape", "two_channels"]:
    CASES.append(f"{next(USES)} | {{}}".replace("{}", f"{name}.npz"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.partition(" | ")[0][:70])
def test_what_is_bad_is_refused(case, workshop, capsys, monkeypatch):
    line, _, words = case.partition(" | ")
    command, *arguments = line.split()
    refuse(command, arguments, words.split("; "), workshop, capsys, monkeypatch)


DAMAGE = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "garbage": lambda content: np.random.default_rng(len(content)).bytes(len(content)),
    "list": lambda content: b"[]",
    "number": lambda content: b"1e999",
    "nested": lambda content: b"[" * 200_000,
    "missing": None,
    "folder": None,
    "pipe": None,
    "device": None,
}


def damage(path, how):
    content = path.read_bytes()
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "device":
        path.symlink_to("/dev/zero")
    elif how != "missing":
        path.write_bytes(DAMAGE[how](content))


@pytest.fixture
def copied(tmp_path, finished_run, workshop):
    """A copy of the finished run as `run`, and good images beside it."""
    shutil.copytree(finished_run, tmp_path / "run")
    shutil.copy(workshop / "good.npz", tmp_path / "good.npz")
    return tmp_path


ENCODE = ("encode", ["run", "good.npz"])
RESUME = ("train", ["--resume", "--run-dir", "run", "--epochs", "2"])


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "summary.json"])
def test_a_damaged_record_is_named_or_harmless(name, how, copied, capsys, monkeypatch):
    damage(copied / "run" / name, how)
    # Without them a run is one that has not begun or not ended; a row that is cut off is dropped.
    harmless = {"metrics.jsonl": ("empty", "cut", "missing", "nested"), "summary.json": ("missing",)}
    if how in harmless.get(name, ()):
        assert attempt(*ENCODE, copied, capsys, monkeypatch) == (0, "")
        return
    for command in (ENCODE, RESUME):
        words = ["run", "run directory"] if (name, how) == ("config.json", "missing") else [f"run/{name}"]
        refuse(*command, words, copied, capsys, monkeypatch)


def change(path, keys, value):
    """Set what stands at these keys of a JSON file (of its first line); no value: remove it."""
    first, _, rest = path.read_text().partition("\n") if path.suffix == ".jsonl" else (path.read_text(), "", "")
    content = json.loads(first)
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    if value is None:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    path.write_text(json.dumps(content) + ("\n" + rest if rest else ""))


CHANGES = {
    "config.json schema": [0, "2", 10**300, None],
    "config.json settings": [[], None],
    "config.json settings.colour": ["red"],
    "config.json settings.latent_dim": ["2", 0, 2**19, 10**12, 2.0, True],
    "config.json settings.hidden_sizes": [[[4]], [2**20] * 3, {"4": 4}, [8]],
    "config.json settings.beta": [10**400, float("nan"), float("inf"), {}],
    "config.json settings.model": [["vae"], "ae"],
    "config.json settings.arch": [{}],
    "config.json settings.seed": [-1],
    "config.json settings.data_dir": [7],
    "config.json settings.epochs": [10**9],
    "config.json dataset": ["digits"],
    "config.json dataset.name": [3],
    "config.json dataset.sha256": [None],
    "config.json dataset.image_shape": [[8, 8], [8, 8, -1], [10**9, 10**9, 1], [2**20, 2**20, 1], [9, 8, 1]],
    "metrics.jsonl epoch": ["one"],
    "metrics.jsonl step": [True, 1.5],
    "metrics.jsonl train": [None],
    "metrics.jsonl train.loss": [float("nan")],
    "metrics.jsonl validation": [[1, 2]],
    "metrics.jsonl validation.kl": [None],
    "metrics.jsonl validation.loss": ["low"],
    "metrics.jsonl seconds": [None],
    "metrics.jsonl images_per_second": [{}],
    "summary.json test": [None, 3],
    "summary.json test.loss": ["low", float("nan")],
    "summary.json test.kl": [None],
    "summary.json test.reconstruction": [10**400],
}
CHANGES = [(place, value) for place, values in CHANGES.items() for value in values]


@pytest.mark.parametrize(("place", "value"), CHANGES, ids=lambda value: str(value)[:40])
def test_a_record_with_a_bad_value_is_refused(place, value, copied, capsys, monkeypatch):
    name, keys = place.split()
    change(copied / "run" / name, keys.split("."), value)
    refuse(*ENCODE, ["run"], copied, capsys, monkeypatch)


ANOMALY = {"score": "kl", "threshold": 1.5, "false_alarm_rate": 0.1, "validation_images": 5, "samples": 1}
ANOMALY |= {"neighbours": 5, "step": 3}
ANOMALY_CHANGES = {
    "score": ["beauty", ["kl"]],
    "threshold": ["1", float("nan"), float("-inf"), 10**400, 10**100],
    "false_alarm_rate": [2],
    "samples": [0, 10**9],
    "neighbours": [-(10**30), True],
    "step": [2, 2.5],
    "unknown": [1],
}


def test_a_bad_or_damaged_threshold_is_refused(copied, capsys, monkeypatch):
    file = copied / "run" / "anomaly.json"
    for name, values in ANOMALY_CHANGES.items():
        for value in values:
            file.write_text(json.dumps({**ANOMALY, name: value}))
            refuse("score", ["run", "good.npz"], ["run", "calibrate"], copied, capsys, monkeypatch)
    for how in DAMAGE.keys() - {"missing"}:  # a run without one is calibrated
        file.write_text(json.dumps(ANOMALY))
        damage(file, how)
        refuse("score", ["run", "good.npz"], ["anomaly.json", "calibrate"], copied, capsys, monkeypatch)
        shutil.rmtree(file) if file.is_dir() else file.unlink()


def encoded(copied, capsys, monkeypatch):
    """Exit code and message of encoding, and the table, which is removed again."""
    code, error = attempt(*ENCODE, copied, capsys, monkeypatch)
    output = copied / "good-codes.csv"
    table = output.read_text() if output.exists() else None
    output.unlink(missing_ok=True)
    return code, error, table


def damaged_checkpoints(hows, finished_run, copied, capsys, monkeypatch):
    """Damage each file of a checkpoint in turn: the codes are the same, or it is refused. Gives back which were."""
    _, _, wanted = encoded(copied, capsys, monkeypatch)
    refused = []
    files = sorted(path.relative_to(finished_run) for path in (finished_run / "checkpoints").rglob("*"))
    for i, path in enumerate(path for path in files if (finished_run / path).is_file()):
        damage(copied / "run" / path, hows[i % len(hows)])
        before = tree(copied)
        code, error, table = encoded(copied, capsys, monkeypatch)
        if code == 0:
            assert (error, table) == ("", wanted)
        else:
            check_refusal(code, error, ["run", "heckpoint"])
            assert table is None
            refused.append(path.parts[2])
        assert tree(copied) == before
        shutil.rmtree(copied / "run")
        shutil.copytree(finished_run, copied / "run")
    return refused


def test_each_damaged_file_of_a_checkpoint_is_named_or_harmless(finished_run, copied, capsys, monkeypatch):
    hows = ["missing", "empty", "cut", "garbage"]
    refused = damaged_checkpoints(hows, finished_run, copied, capsys, monkeypatch)
    assert {"params", "record"} == set(refused)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["missing", "empty", "cut", "garbage", "folder"])
def test_every_file_of_a_checkpoint_damaged_in_every_way(how, finished_run, copied, capsys, monkeypatch):
    refused = damaged_checkpoints([how], finished_run, copied, capsys, monkeypatch)
    assert {"params", "record"} == set(refused)


def test_in_a_process_of_its_own_with_little_memory(workshop):
    before = tree(workshop)
    limited = f'ulimit -v {16 * 2**20}; exec "$@"'  # kilobytes
    arguments = ["experiments.mnist", "--dataset", "digits", "--hidden-sizes", "1000000", "1000000"]
    result = subprocess.run(
        ["bash", "-c", limited, "bash", sys.executable, "-m", *arguments],
        cwd=workshop,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(workshop.parent / "cache")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    check_refusal(result.returncode, result.stderr, ["--hidden-sizes", "GiB"])
    assert tree(workshop) == before
