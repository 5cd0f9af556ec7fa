"""Whatever a user gives, a command that refuses it says so in two lines, with exit code 1 or 2, and changes nothing."""

import json
import os
import resource
import runpy
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
from experiments.study import trained
from vae_jax.config import Settings

ROOT = Path(__file__).parents[2]
SECONDS = 15
MOST_GROWTH = 400 * 2**20
"""Of the process's memory within one command, in bytes."""


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, digits):
    """A finished VAE of the embedded digits, as small as it gets; it must not be changed."""
    path = tmp_path_factory.mktemp("finished") / "run"
    trained(path, Settings(dataset="digits", hidden_sizes=(4,), epochs=1, batch_size=512), digits)
    (path / "figures").mkdir()
    return path


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
    """Run `python -m experiments.COMMAND` in a folder, in this process: exit code, stderr."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [command, *arguments])
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "unused: JAX is imported already")
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder / "no_tfds"))
    monkeypatch.delenv("VAE_JAX_DATA_DIR", raising=False)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    code, show = 0, warnings.showwarning

    def too_slow(*_):
        raise AssertionError(f"took more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, too_slow)
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.resetwarnings()
            for category in (DeprecationWarning, RuntimeWarning, FutureWarning, ImportWarning):
                warnings.simplefilter("ignore", category)
            runpy.run_module(f"experiments.{command}", run_name="__main__", alter_sys=True)
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


INTEGER = ["x", "1.5", "nan", "-1", "1000000000000", "99999999999999999999999999"]
NUMBER = ["x", "nan", "inf", "-1", "1e39"]
INTEGERS = {
    "mnist": "latent-dim batch-size epochs seed dense-size kl-warmup-steps patience test-samples iwae-samples "
    "grid-size",
    "compare": "latent-dim seeds epochs batch-size samples",
    "sweep": "epochs batch-size seed",
    "sparse": "units epochs batch-size",
    "reparametrisation": "latent-dim epochs images draws",
    "denoising": "epochs batch-size plain-epochs seed",
    "anomaly": "epochs reverse-epochs batch-size samples neighbours components seed",
    "dimensionality": "epochs batch-size seed trust-images",
    "compression": "latent-dim epochs seed",
}
NUMBERS = {
    "mnist": "learning-rate beta sigma free-bits warmup-fraction gradient-clip ema-decay sparsity-weight "
    "sparsity-target corruption-level",
    "compare": "ae-learning-rate vae-learning-rate",
    "sweep": "learning-rate",
    "sparse": "l1-weight kl-weight sparsity-target learning-rate",
    "denoising": "learning-rate",
    "anomaly": "false-alarm-rate",
    "compression": "beta",
}
STUDIES = [name for name in INTEGERS if name != "mnist"]


def _flag_cases():
    cases = []
    for table, values in ((INTEGERS, INTEGER), (NUMBERS, NUMBER)):
        for command, flags in table.items():
            cases += [(command, [f"--{flag}", value], [f"--{flag}"]) for flag in flags.split() for value in values]
    for command in ("mnist", "compare", "sweep", "dimensionality", "sparse", "denoising"):
        for value in ("0", "-1", "1.5", "x", "1000000000000"):
            cases.append((command, ["--hidden-sizes", "8", value], ["--hidden-sizes", value]))
    for value in ("0", "-1", "1.5", "x", "1000000000000"):
        cases += [("sweep", ["--latent-dim", value], ["--latent-dim", value])]
        cases += [("dimensionality", ["--latent-dims", value], ["--latent-dims", value])]
    for value in NUMBER:
        cases.append(("sweep", ["--beta", value], ["--beta"]))
    for text in ("gaussian", "gaussian:", "gaussian:x", "gaussian:nan", "gaussian:-1", "gaussian:0", "gaussian:1e300"):
        cases.append(("denoising", ["--corruptions", text], ["--corruptions", text, "KIND:LEVEL"]))
    for texts in (["blur:1"], ["masking:1.5"], ["masking:0.5", "masking:0.5"], [""], [":"]):
        cases.append(("denoising", ["--corruptions", *texts], ["--corruptions"]))
    return cases


# Command, arguments, words of the message.
CASES = [
    *_flag_cases(),
    ("mnist", ["--model", "gan"], ["--model", "gan", "vae"]),
    ("mnist", ["--arch", "resnet"], ["--arch", "resnet", "conv"]),
    ("mnist", ["--activation", "step"], ["--activation", "step", "gelu"]),
    ("mnist", ["--likelihood", "poisson"], ["--likelihood", "poisson"]),
    ("mnist", ["--binarize", "yes"], ["--binarize", "yes"]),
    ("mnist", ["--sparsity", "l7"], ["--sparsity", "l7"]),
    ("mnist", ["--corruption", "blur"], ["--corruption", "blur"]),
    ("mnist", ["--code-activation", "step"], ["--code-activation", "step"]),
    ("mnist", ["--no-such-flag", "1"], ["--no-such-flag", "--help"]),
    ("mnist", ["stray"], ["stray"]),
    ("mnist", ["--latent-dim"], ["--latent-dim"]),
    ("mnist", ["--latent-dim", ""], ["--latent-dim", "empty"]),
    ("mnist", ["--run-dir", ""], ["--run-dir", "empty"]),
    ("mnist", ["--dataset", ""], ["--dataset", "empty"]),
    ("mnist", ["--data-dir", ""], ["--data-dir", "empty"]),
    ("mnist", ["--classes", "x"], ["--classes", "x"]),
    ("mnist", ["--classes"], ["--classes"]),
    ("mnist", ["--dataset", "digits", "--classes", "1", "1"], ["--classes", "different"]),
    ("mnist", ["--dataset", "digits", "--classes", "77"], ["--classes", "77", "0, 1"]),
    ("mnist", ["--dataset", "digits", "--classes", "9" * 30], ["--classes", "32 bits"]),
    ("mnist", ["--dataset", "no_labels.npz", "--classes", "1"], ["--classes", "labels"]),
    ("mnist", ["--dataset", "one_class.npz", "--classes", "1"], ["--classes", "1", "0"]),
    ("mnist", ["--dataset", "rare_class.npz", "--classes", "1", "--batch-size", "1"], ["--classes", "1", "0"]),
    ("mnist", ["--dataset", "digits", "--hidden-sizes", *["4"] * 101], ["--hidden-sizes", "at most 100"]),
    ("mnist", ["--dataset", "digits", "--hidden-sizes", "1000000", "1000000"], ["--hidden-sizes", "GiB", "1000000"]),
    ("mnist", ["--dataset", "digits", "--latent-dim", "1000000", "--hidden-sizes", "900000"], ["--latent-dim", "GiB"]),
    (
        "mnist",
        ["--dataset", "digits", "--arch", "conv", "--dense-size", "1000000", "--hidden-sizes", "900000"],
        ["GiB"],
    ),
    ("mnist", ["--dataset", "digits", "--arch", "conv", "--hidden-sizes"], ["--hidden-sizes"]),
    ("mnist", ["--dataset", "digits", "--arch", "patch"], ["--arch patch", "--model ae"]),
    ("mnist", ["--dataset", "digits", "--arch", "patch", "--model", "ae", "--latent-dim", "3"], ["--latent-dim", "3"]),
    ("mnist", ["--dataset", "digits", "--batch-size", "100000"], ["--batch-size", "100000", "1295"]),
    ("mnist", ["--dataset", "digits", "--epochs", "1000000000"], ["--epochs", "1000000000"]),
    ("mnist", ["--dataset", "steps.npz", "--epochs", "1000000", "--batch-size", "1"], ["--epochs", "steps"]),
    ("mnist", ["--dataset", "digits", "--iwae-samples", "5"], ["--iwae-samples", "--binarize"]),
    ("mnist", ["--dataset", "digits", "--sparsity", "l1"], ["--sparsity", "--model ae"]),
    ("mnist", ["--dataset", "digits", "--model", "ae", "--sparsity", "kl"], ["--sparsity", "sigmoid"]),
    ("mnist", ["--dataset", "digits", "--corruption", "masking", "--corruption-level", "2"], ["--corruption-level"]),
    ("mnist", ["--dataset", "digits", "--likelihood", "squared_error"], ["--likelihood", "--model ae"]),
    ("mnist", ["--dataset", "digits", "--sigma", "1e-30"], ["--sigma", "1e-30"]),
    ("mnist", ["--dataset", "digits", "--learning-rate", "1e-40"], ["--learning-rate", "1e-40"]),
    ("mnist", ["--dataset", "digits", "--run-dir", "file"], ["--run-dir", "file"]),
    ("mnist", ["--dataset", "digits", "--run-dir", "full"], ["--run-dir", "full"]),
    ("mnist", ["--dataset", "digits", "--run-dir", "run"], ["--run-dir", "finished run"]),
    ("mnist", ["--dataset", "digits", "--run-dir", "file/below"], ["file/below"]),
    ("mnist", ["--dataset", "digits", "--run-dir", "dangling"], ["dangling"]),
    ("mnist", ["--dataset", "digits", "--run-dir", "x" * 300], ["x" * 300]),
    ("mnist", ["--resume"], ["--resume", "--run-dir"]),
    ("mnist", ["--resume", "--run-dir", "full"], ["full", "run directory"]),
    ("mnist", ["--resume", "--run-dir", "file"], ["file", "run directory"]),
    ("mnist", ["--resume", "--run-dir", "run"], ["run", "finished run", "--epochs"]),
    ("mnist", ["--resume", "--run-dir", "run", "--seed", "3"], ["--seed", "3"]),
    ("mnist", ["--resume", "--run-dir", "run", "--latent-dim", "1000000000"], ["--latent-dim"]),
    ("mnist", ["--resume", "--run-dir", "run", "--epochs", "0"], ["--epochs", "0"]),
    ("mnist", ["--resume", "--run-dir", "run", "--dataset", "good.npz", "--batch-size", "8"], ["--dataset"]),
    ("plot_latent", [], ["run"]),
    ("plot_latent", ["nowhere"], ["nowhere", "run directory"]),
    ("plot_latent", ["file"], ["file", "run directory"]),
    ("plot_latent", ["dangling"], ["dangling", "run directory"]),
    ("plot_latent", ["full"], ["full", "run directory"]),
    ("plot_latent", ["run", "--split", "all"], ["--split", "all"]),
    ("plot_latent", ["run", "--output", "file"], ["--output", "file"]),
    ("plot_latent", ["run", "--output", "file/below"], ["--output", "file/below"]),
    ("plot_latent", ["run", "--output", "new", "--base-image", "100000"], ["--base-image", "100000"]),
    ("plot_latent", ["run", "--output", "new", "--max-points", "1"], ["--interpolations", "2"]),
    ("plot_latent", ["run", "--interpolation", "wavy"], ["--interpolation", "wavy"]),
    ("plot_latent", ["run", "--data-dir", "nowhere"], ["--data-dir", "nowhere"]),
    ("plot_latent", ["run", "--data-dir", "file"], ["--data-dir", "file"]),
    *[
        ("plot_latent", ["run", f"--{flag}", value], [f"--{flag}", value])
        for flag in ("max-points", "grid-size", "traversals", "base-image", "interpolations")
        for value in ("x", "-1", "1.5", "1000000000000")
    ],
    *[(name, ["--dataset", "nowhere.npz"], ["nowhere.npz"]) for name in STUDIES],
    *[(name, ["--dataset", "garbage.npz"], ["garbage.npz"]) for name in STUDIES],
    *[(name, ["--dataset", "one_image.npz"], ["one_image.npz"]) for name in STUDIES],
    *[(name, ["--data-dir", "nowhere"], ["--data-dir", "nowhere"]) for name in STUDIES],
    *[(name, ["--dataset", "digits", "--output", "file"], ["--output", "file"]) for name in STUDIES],
    *[(name, ["--dataset", "digits", "--output", "full"], ["--output", "full"]) for name in STUDIES],
    *[(name, ["--dataset", "digits", "--output", "dangling"], ["--output", "dangling"]) for name in STUDIES],
    *[(name, ["--dataset", "digits", "--output", "file/below"], ["--output", "file/below"]) for name in STUDIES],
    *[(name, ["--dataset", "digits", "--output", "study"], ["study"]) for name in STUDIES],
    *[(name, ["--output", ""], ["--output", "empty"]) for name in STUDIES],
    *[("sparse", ["--dataset", "digits", "--output", f"study{i}"], [f"study{i}", "--output"]) for i in range(6)],
    *[
        (name, ["--dataset", "digits", "--batch-size", "100000"], ["--batch-size", "100000"])
        for name in ("compare", "sweep", "sparse", "denoising", "anomaly", "dimensionality")
    ],
    *[
        (name, ["--dataset", "digits", "--hidden-sizes", "1000000", "1000000"], ["--hidden-sizes", "GiB"])
        for name in ("compare", "sweep", "sparse", "dimensionality")
    ],
    ("denoising", ["--dataset", "digits", "--arch", "mlp", "--hidden-sizes", "1000000", "900000"], ["GiB"]),
    ("reparametrisation", ["--latent-dim", "1000000000"], ["--latent-dim"]),
    ("compression", ["--dataset", "digits", "--latent-dim", "1000000000"], ["--latent-dim"]),
    ("compare", ["--ae", "nowhere"], ["nowhere", "run directory"]),
    ("compare", ["--ae", "run"], ["--ae", "run", "VAE"]),
    ("compare", ["--vae", "run", "--latent-dim", "3"], ["--latent-dim", "3"]),
    ("compare", ["--vae", "run", "--dataset", "good.npz", "--batch-size", "8"], ["--dataset"]),
    ("sweep", ["--beta"], ["--beta"]),
    ("sweep", ["--beta", "1", "1"], ["--beta", "different"]),
    ("sweep", ["--latent-dim", "2", "2"], ["--latent-dim", "different"]),
    ("sweep", ["--beta", *map(str, range(101))], ["--beta"]),
    ("sparse", ["--units", "1"], ["--units", "1"]),
    ("sparse", ["--sparsity-target", "0"], ["--sparsity-target", "0"]),
    ("sparse", ["--sparsity-target", "1"], ["--sparsity-target", "1"]),
    ("denoising", ["--run", "nowhere"], ["nowhere", "run directory"]),
    ("denoising", ["--run", "run", "--dataset", "other_shape.npz"], ["--run", "(6, 8, 1)"]),
    ("anomaly", ["--dataset", "no_labels.npz"], ["no_labels", "labels"]),
    ("anomaly", ["--dataset", "one_class.npz"], ["one_class", "two classes"]),
    ("anomaly", ["--dataset", "rare_class.npz"], ["rare_class", "two classes"]),
    ("anomaly", ["--dataset", "digits", "--protocol", "all"], ["--protocol", "all"]),
    ("anomaly", ["--dataset", "digits", "--batch-size", "1"], ["--batch-size", "1"]),
    ("anomaly", ["calibrate"], ["run"]),
    ("anomaly", ["calibrate", "nowhere"], ["nowhere", "run directory"]),
    ("anomaly", ["calibrate", "run", "--score", "beauty"], ["--score", "beauty"]),
    ("anomaly", ["calibrate", "run", "--false-alarm-rate", "0"], ["--false-alarm-rate", "0"]),
    ("anomaly", ["calibrate", "run", "--false-alarm-rate", "1e-300"], ["--false-alarm-rate", "1e-300"]),
    ("anomaly", ["calibrate", "run", "--false-alarm-rate", "0.0001"], ["--false-alarm-rate", "0.0001"]),
    ("anomaly", ["calibrate", "run", "--samples", "1000000000000"], ["--samples", "1000000000000"]),
    ("anomaly", ["calibrate", "run", "--data-dir", "nowhere"], ["--data-dir", "nowhere"]),
    ("anomaly", ["score", "run"], ["images"]),
    ("anomaly", ["score", "run", "good.npz", "--output", "taken.csv"], ["taken.csv"]),
    ("anomaly", ["score", "run", "good.npz", "--output", "nowhere/x.csv"], ["--output", "nowhere"]),
    ("anomaly", ["score", "run", "good.npz", "--output", "file/x.csv"], ["--output", "file"]),
    ("anomaly", ["score", "run", "good.npz", "--output", "dangling"], ["dangling"]),
    ("dimensionality", ["--latent-dims"], ["--latent-dims"]),
    ("dimensionality", ["--latent-dims", "2", "2"], ["--latent-dims"]),
    ("dimensionality", ["--run", "nowhere"], ["nowhere", "run directory"]),
    ("dimensionality", ["--trust-images", "5"], ["--trust-images", "5"]),
    ("dimensionality", ["embed", "run", "good.npz", "--output", "x.txt"], ["--output", "x.txt", ".npz"]),
    ("dimensionality", ["embed", "run", "good.npz", "--output", "taken.npz"], ["taken.npz"]),
    ("dimensionality", ["embed", "run", "good.npz", "--output", "nowhere/x.npz"], ["--output", "nowhere"]),
    ("dimensionality", ["embed", "run", "good.npz", "--output", "dangling.npz"], ["dangling.npz"]),
    ("denoising", ["denoise", "run", "good.npz", "--output", "x.txt"], ["--output", "x.txt", ".npz"]),
    ("denoising", ["denoise", "run", "good.npz", "--output", "taken.npz"], ["taken.npz"]),
    ("denoising", ["denoise", "run", "good.npz", "--output", "nowhere/x.npz"], ["--output", "nowhere"]),
    ("compression", ["--run", "nowhere"], ["nowhere", "run directory"]),
    ("compression", ["compress", "run", "good.npz", "out", "--quality", "9"], ["--quality", "9"]),
    ("compression", ["compress", "run", "good.npz", "out", "--quality", "best"], ["--quality", "best"]),
    ("compression", ["compress", "run", "good.npz", "taken.npz"], ["taken.npz"]),
    ("compression", ["compress", "run", "good.npz", "nowhere/out"], ["nowhere"]),
    ("compression", ["compress", "run", "good.npz", "out", "--data-dir", "nowhere"], ["--data-dir", "nowhere"]),
    ("compression", ["compress", "nowhere", "good.npz", "out"], ["nowhere", "run directory"]),
    ("compression", ["decompress", "run", "nowhere", "out.npz"], ["nowhere"]),
    ("compression", ["decompress", "run", "full", "out.npz"], ["full"]),
    ("compression", ["decompress", "run", "dangling", "out.npz"], ["dangling"]),
    ("compression", ["decompress", "run", "pipe.npz", "out.npz"], ["pipe.npz"]),
    ("compression", ["decompress", "run", "device.npz", "out.npz"], ["device.npz"]),
    ("compression", ["decompress", "run", "garbage.npz", "out.npz"], ["garbage.npz", "VAEZ"]),
    ("compression", ["decompress", "run", "empty.npz", "out.npz"], ["empty.npz", "VAEZ"]),
    ("compression", ["decompress", "run", "good.npz", "taken.npz"], ["taken.npz"]),
    ("benchmark", ["--sections", "speed"], ["--sections", "speed"]),
    ("benchmark", ["--repetitions", "0"], ["--repetitions", "0"]),
    ("benchmark", ["--contestants", "nobody"], ["--contestants", "nobody"]),
    ("verify", ["nowhere"], ["nowhere", "config.json"]),
    ("verify", ["full"], ["full", "config.json"]),
    ("mnist", ["--coordinator", "nowhere:1"], ["--num-processes"]),
    ("results", ["--readme", "nowhere.md"], ["--readme", "nowhere.md"]),
    ("results", ["--readme", "full"], ["--readme", "full"]),
    ("results", ["--readme", "README.md"], ["--readme", "README.md"]),
    ("results", ["--readme", "pipe.npz"], ["--readme", "pipe.npz"]),
    ("results", ["--readme", "garbage.npz"], ["--readme", "garbage.npz"]),
    *[
        ("results", ["--readme", "markers.md", f"--{flag}", value], [f"--{flag}", value])
        for flag in ("data-dir", "figures", "root")
        for value in ("file", "dangling")
    ],
    ("results", ["--readme", "markers.md", "--data-dir", "nowhere"], ["--data-dir", "nowhere"]),
    ("dimensionality", ["embed", "run", "/"], ["/", "--output"]),
    ("anomaly", ["score", "run", "/"], ["/", "--output"]),
    ("denoising", ["denoise", "run", "/"], ["/", "--output"]),
    ("results", ["--tables", "both"], ["--tables", "both"]),
]


def _name(value):
    return " ".join(value)[:70] if isinstance(value, list) else value


@pytest.mark.parametrize(("command", "arguments", "words"), CASES, ids=_name)
def test_a_bad_flag_or_path_is_refused(command, arguments, words, workshop, capsys, monkeypatch):
    refuse(command, arguments, words, workshop, capsys, monkeypatch)


BAD_NPZ = [
    "one_image",
    "three_images",
    "no_image",
    "no_images",
    "nothing",
    "scalar",
    "flat",
    "five_axes",
    "two_channels",
    "channels_first",
    "float_255",
    "float_negative",
    "float_nan",
    "float_inf",
    "ints_negative",
    "ints_large",
    "ints_01",
    "complex",
    "text",
    "dates",
    "structured",
    "objects",
    "labels_short",
    "labels_2d",
    "labels_float",
    "labels_nan",
    "labels_huge",
    "labels_text",
    "test_other_shape",
    "test_empty",
    "test_labels_alone",
    "empty",
    "garbage",
    "html",
    "cut",
    "flipped",
    "pickle",
    "single",
    "promises",
    "negative_size",
    "no_header",
    "version_9",
    "dots",
    "absolute",
    "link",
    "bomb",
    "folder",
    "dangling",
    "loop",
    "pipe",
    "device",
    "nowhere",
]
FINE_WITHOUT_SPLIT = {"one_image", "three_images", "test_other_shape", "test_empty"}
BAD_FOLDERS = [
    "images_none",
    "images_three",
    "images_sizes",
    "images_text",
    "images_empty",
    "images_cut",
    "images_16bit",
    "images_bomb",
    "images_many",
    "images_dangling",
    "images_pipe",
    "images_mixed",
    "images_deep",
]
BAD_IDX = [
    "idx_missing",
    "idx_empty",
    "idx_html",
    "idx_cut",
    "idx_promises",
    "idx_floats",
    "idx_labels_few",
    "idx_swapped",
    "idx_none",
    "idx_gzip_cut",
    "idx_gzip_bomb",
    "idx_other_size",
]
READERS = [
    ("dimensionality", ["embed", "run"], []),
    ("anomaly", ["score", "run"], []),
    ("denoising", ["denoise", "run"], []),
    ("compression", ["compress", "run"], ["out"]),
]


@pytest.mark.parametrize("name", BAD_NPZ)
def test_a_bad_npz_file_is_refused_as_a_data_set(name, workshop, capsys, monkeypatch):
    # Where the path is taken for a folder, its name is all that is left of it.
    arguments = ["--dataset", f"{name}.npz", "--batch-size", "1"]
    refuse("mnist", arguments, [f"{name}.npz"], workshop, capsys, monkeypatch)


@pytest.mark.parametrize(("i", "name"), list(enumerate([*BAD_NPZ, "other_shape"])), ids=str)
def test_a_bad_npz_file_is_refused_as_images(i, name, workshop, capsys, monkeypatch):
    if name in FINE_WITHOUT_SPLIT:
        pytest.skip("all that is read of it is fine")
    command, before, after = READERS[i % len(READERS)]
    refuse(command, [*before, f"{name}.npz", *after], [f"{name}.npz"], workshop, capsys, monkeypatch)


@pytest.mark.parametrize("name", BAD_FOLDERS)
def test_a_bad_folder_of_images_is_refused(name, workshop, capsys, monkeypatch):
    refuse("mnist", ["--dataset", name, "--batch-size", "1"], [name], workshop, capsys, monkeypatch)


@pytest.mark.parametrize("name", BAD_IDX)
def test_a_bad_folder_of_idx_files_is_refused(name, workshop, capsys, monkeypatch):
    refuse("mnist", ["--dataset", "mnist", "--data-dir", name], [name], workshop, capsys, monkeypatch)


@pytest.mark.parametrize("name", ["mnits", "a b", "mnist:9.9.9", "mnist/x", "~nobody", "-", "\N{SNOWMAN}", "x" * 300])
def test_an_unknown_data_set_is_refused(name, workshop, capsys, monkeypatch):
    refuse("mnist", [f"--dataset={name}"], [name], workshop, capsys, monkeypatch)


def nested(_):
    return b"[" * 200_000


DAMAGE = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "garbage": lambda content: np.random.default_rng(len(content)).bytes(len(content)),
    "list": lambda content: b"[]",
    "number": lambda content: b"1e999",
    "nested": nested,
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


EMBED = ("dimensionality", ["embed", "run", "good.npz"])
RESUME = ("mnist", ["--resume", "--run-dir", "run", "--epochs", "2"])


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "summary.json"])
def test_a_damaged_record_is_named_or_harmless(name, how, copied, capsys, monkeypatch):
    damage(copied / "run" / name, how)
    # Without them a run is one that has not begun or not ended; a row that is cut off is dropped.
    harmless = {"metrics.jsonl": ("empty", "cut", "missing", "nested"), "summary.json": ("missing",)}
    if how in harmless.get(name, ()):
        assert attempt(*EMBED, copied, capsys, monkeypatch) == (0, "")
        return
    for command in (EMBED, RESUME):
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


CHANGES = [
    ("config.json", "schema", 1),
    ("config.json", "schema", "2"),
    ("config.json", "schema", 10**300),
    ("config.json", "schema", None),
    ("config.json", "settings", []),
    ("config.json", "settings", None),
    ("config.json", "settings.colour", "red"),
    ("config.json", "settings.latent_dim", "2"),
    ("config.json", "settings.latent_dim", 0),
    ("config.json", "settings.latent_dim", 2**19),
    ("config.json", "settings.latent_dim", 10**12),
    ("config.json", "settings.latent_dim", 2.0),
    ("config.json", "settings.latent_dim", True),
    ("config.json", "settings.hidden_sizes", [[4]]),
    ("config.json", "settings.hidden_sizes", [2**20] * 3),
    ("config.json", "settings.hidden_sizes", {"4": 4}),
    ("config.json", "settings.hidden_sizes", [8]),
    ("config.json", "settings.beta", 10**400),
    ("config.json", "settings.beta", float("nan")),
    ("config.json", "settings.beta", float("inf")),
    ("config.json", "settings.beta", {}),
    ("config.json", "settings.model", ["vae"]),
    ("config.json", "settings.model", "ae"),
    ("config.json", "settings.arch", {}),
    ("config.json", "settings.seed", -1),
    ("config.json", "settings.data_dir", 7),
    ("config.json", "settings.epochs", 10**9),
    ("config.json", "dataset", "digits"),
    ("config.json", "dataset.name", 3),
    ("config.json", "dataset.sha256", None),
    ("config.json", "dataset.image_shape", [8, 8]),
    ("config.json", "dataset.image_shape", [8, 8, -1]),
    ("config.json", "dataset.image_shape", [10**9, 10**9, 1]),
    ("config.json", "dataset.image_shape", [2**20, 2**20, 1]),
    ("config.json", "dataset.image_shape", [9, 8, 1]),
    ("config.json", "dataset.image_shape", ["8", 8, 1]),
    ("metrics.jsonl", "epoch", "one"),
    ("metrics.jsonl", "step", True),
    ("metrics.jsonl", "step", 1.5),
    ("metrics.jsonl", "train", None),
    ("metrics.jsonl", "train.loss", float("nan")),
    ("metrics.jsonl", "validation", [1, 2]),
    ("metrics.jsonl", "validation.kl", None),
    ("metrics.jsonl", "validation.loss", "low"),
    ("metrics.jsonl", "seconds", None),
    ("metrics.jsonl", "images_per_second", {}),
    ("summary.json", "test", None),
    ("summary.json", "test", 3),
    ("summary.json", "test.loss", "low"),
    ("summary.json", "test.loss", float("nan")),
    ("summary.json", "test.kl", None),
    ("summary.json", "test.reconstruction", 10**400),
]


@pytest.mark.parametrize(("name", "keys", "value"), CHANGES, ids=lambda v: str(v)[:40])
def test_a_record_with_a_bad_value_is_refused(name, keys, value, copied, capsys, monkeypatch):
    change(copied / "run" / name, keys.split("."), value)
    refuse(*EMBED, ["run"], copied, capsys, monkeypatch)


ANOMALY = {"score": "kl", "threshold": 1.5, "false_alarm_rate": 0.1, "validation_images": 5, "samples": 1}
ANOMALY |= {"neighbours": 5, "step": 3}


@pytest.mark.parametrize(
    "changes",
    [
        {"score": "beauty"},
        {"score": ["kl"]},
        {"threshold": "1"},
        {"threshold": float("nan")},
        {"threshold": float("-inf")},
        {"threshold": 10**400},
        {"threshold": 10**100},
        {"false_alarm_rate": 2},
        {"samples": 0},
        {"samples": 10**9},
        {"neighbours": -(10**30)},
        {"neighbours": True},
        {"step": 2},
        {"step": 2.5},
        {"unknown": 1},
    ],
    ids=lambda changes: str(changes)[:40],
)
def test_a_bad_threshold_is_refused(changes, copied, capsys, monkeypatch):
    (copied / "run" / "anomaly.json").write_text(json.dumps({**ANOMALY, **changes}))
    refuse("anomaly", ["score", "run", "good.npz"], ["run", "calibrate"], copied, capsys, monkeypatch)


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_threshold_is_refused(how, copied, capsys, monkeypatch):
    if how == "missing":
        pytest.skip("a run without one is calibrated")
    (copied / "run" / "anomaly.json").write_text(json.dumps(ANOMALY))
    damage(copied / "run" / "anomaly.json", how)
    refuse("anomaly", ["score", "run", "good.npz"], ["anomaly.json", "calibrate"], copied, capsys, monkeypatch)


def checkpoint_files(run):
    # Without the recorded loss of each step, which has a test of its own.
    files = (path.relative_to(run) for path in (run / "checkpoints").rglob("*") if path.is_file())
    return sorted(path for path in files if path.name != "metrics")


def check_damaged_checkpoint(path, how, copied, capsys, monkeypatch):
    """What is damaged is named, and the checkpoint used if no array of it is hit, else refused."""
    damage(copied / "run" / path, how)
    before = tree(copied)
    code, error = attempt(*EMBED, copied, capsys, monkeypatch)
    if code == 0:
        assert "it is used" in error
        assert (copied / "good-embedding.npz").exists()
    else:
        check_refusal(code, error, ["run", "heckpoint"])
        assert tree(copied) == before
    return code


def test_each_damaged_file_of_a_checkpoint_is_named(finished_run, copied, capsys, monkeypatch):
    files, hows = checkpoint_files(finished_run), ["missing", "empty", "cut", "garbage"]
    codes = []
    for i, path in enumerate(files):
        codes.append(check_damaged_checkpoint(path, hows[i % len(hows)], copied, capsys, monkeypatch))
        (copied / "good-embedding.npz").unlink(missing_ok=True)
        (copied / "good-embedding.csv").unlink(missing_ok=True)
        shutil.rmtree(copied / "run")
        shutil.copytree(finished_run, copied / "run")
    assert sum(codes) > 0


@pytest.mark.slow
@pytest.mark.parametrize("how", ["missing", "empty", "cut", "garbage", "folder"])
def test_every_file_of_a_checkpoint_damaged_in_every_way(how, finished_run, copied, capsys, monkeypatch):
    for path in checkpoint_files(finished_run):
        check_damaged_checkpoint(path, how, copied, capsys, monkeypatch)
        for file in copied.glob("good-embedding.*"):
            file.unlink()
        shutil.rmtree(copied / "run")
        shutil.copytree(finished_run, copied / "run")


@pytest.mark.parametrize(
    ("command", "arguments", "words"),
    [
        ("mnist", ["--latent-dim", "1000000000"], ["--latent-dim", "1000000000"]),
        ("mnist", ["--dataset", "digits", "--hidden-sizes", "1000000", "1000000"], ["--hidden-sizes", "GiB"]),
        ("anomaly", ["score", "run", "promises.npz"], ["promises.npz"]),
    ],
    ids=_name,
)
def test_in_a_process_of_its_own_with_little_memory(command, arguments, words, workshop):
    before = tree(workshop)
    limited = f'ulimit -v {16 * 2**20}; exec "$@"'  # kilobytes
    result = subprocess.run(
        ["bash", "-c", limited, "bash", sys.executable, "-m", f"experiments.{command}", *arguments],
        cwd=workshop,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(workshop.parent / "cache")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    check_refusal(result.returncode, result.stderr, words)
    assert tree(workshop) == before
