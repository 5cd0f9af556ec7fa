"""The benchmark: operations counted by hand, tables of made-up measurements, and a tiny run. No timing is asserted."""

import itertools
import json
import math
import subprocess
import sys

import jax
import numpy as np
import pytest

from experiments import benchmark
from experiments.benchmark import figures as plots_benchmark
from experiments.benchmark import quality
from experiments.benchmark.measure import check_losses, images_per_second, measure, order, roof
from experiments.benchmark.report import quality_text, report, series_text, startup_text, streaming_text
from experiments.benchmark.sections import Plan, summarise
from experiments.contestants.flax import _Network
from experiments.contestants.job import Job, conv_job, mlp_job, training_flops
from experiments.contestants.worker import Worker
from vae_jax.cli.command import parse

MNIST = (28, 28, 1)
JOB = mlp_job("none.npy", 1000, batch_size=100)


def test_operations_by_hand():
    forward = 784 * 400 + 400 * 40 + 20 * 400 + 400 * 784
    backward = 2 * forward - 784 * 400  # no gradient for the pixels
    assert training_flops(JOB, MNIST) == 2 * (forward + backward)
    encoder = [14 * 14 * 9 * 1 * 32, 7 * 7 * 9 * 32 * 64, 7 * 7 * 64 * 16, 16 * 4]
    # A transposed convolution spreads each input place over a 3x3 window.
    decoder = [2 * 7 * 7 * 64, 7 * 7 * 9 * 64 * 64, 14 * 14 * 9 * 64 * 32, 28 * 28 * 9 * 32 * 1]
    forward = sum(encoder) + sum(decoder)
    assert training_flops(conv_job("none.npy", 128), MNIST) == 2 * (3 * forward - encoder[0])


@pytest.mark.parametrize("make", [mlp_job, conv_job])
def test_counted_operations_are_those_that_xla_counts_for_the_forward_pass(make):
    job, x = make("none.npy", 1), np.zeros((1, 28, 28, 1), np.float32)
    network = _Network(job, MNIST)
    params = network.init(jax.random.key(0), x, jax.random.key(0))
    with jax.numpy_dtype_promotion("standard"):
        products = jax.jit(network.apply).lower(params, x, jax.random.key(0)).cost_analysis()["flops"]
    first = 784 * 400 if job.arch == "mlp" else 14 * 14 * 9 * 32
    forward = (training_flops(job, MNIST) / 2 + first) / 3 * 2
    # XLA adds the element-wise work, and leaves out what a window takes from the padding.
    assert forward == pytest.approx(products, rel=0.12)


def test_a_job_goes_through_json():
    job = conv_job("a.npy", 256, members=3)
    assert Job.from_json(json.loads(json.dumps(job.to_json()))) == job


def test_in_six_rounds_everyone_begins_and_follows_several_others():
    keys, begun, before = list("abcdef"), set(), {key: set() for key in "abcdef"}
    for number in range(6):
        turns = order(keys, number)
        assert sorted(turns) == keys
        begun.add(turns[0])
        for first, second in itertools.pairwise(turns):
            before[second].add(first)
    assert len(begun) > 1
    assert all(len(each) > 1 for each in before.values())


def measured():
    return {
        "ours": {"train": [0.1, 0.3, 0.2], "losses": [300.0, 200.0, 100.0], "peak_bytes": 5_000_000},
        "torch": {"train": [1.0, 0.8, 4.0], "losses": [300.0, 210.0, 104.0]},
        "flax": {"train": [0.5], "losses": [300.0, 290.0]},
        "keras_jax": {"missing": "no module named keras"},
        "torch_compile": {"failed": "no answer to train within 1 s", "losses": [3.0]},
        "roof_xla": {"rates": [{"512": 2e9, "1024": 8e9}, {"512": 9e9, "1024": 3e9}, {"512": 1e9, "1024": 5e9}]},
        "roof_torch": {"missing": "no module named torch"},
    }


def test_rates_are_medians_and_missing_ones_no_number():
    found = measured()
    assert images_per_second(found["ours"], JOB) == 1000 / 0.2
    assert images_per_second(found["torch"], JOB) == 1000 / 1.0
    assert images_per_second(found["keras_jax"], JOB) is None
    assert images_per_second(found["torch_compile"], JOB) is None
    assert images_per_second(found["ours"], Job("x", 1000, members=4)) == 4000 / 0.2
    assert roof(found) == 5e9
    assert roof({"roof_xla": {"missing": "no"}}) is None


def test_a_contestant_that_does_less_work_is_named():
    wrong = check_losses(measured())
    assert list(wrong) == ["flax"]
    assert "290.0, the median of all is 104.0" in wrong["flax"]
    assert "did not fall" in check_losses({"a": {"losses": [5.0, 5.0]}})["a"]
    assert "did not fall" in check_losses({"a": {"losses": [5.0, math.nan]}})["a"]


def rows_of(text):
    """The rows of the tables in a text, each as its cells."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]


def test_the_report_says_what_is_missing_and_what_does_not_count():
    case = {"job": JOB.to_json(), **summarise(measured(), JOB, MNIST)}
    text = report("How.", {"training": [case]})
    found = {row[0]: row[1:] for row in rows_of(text)}
    share = 5000 * training_flops(JOB, MNIST) / 5e9
    assert found["vae_jax"] == ["5,000", "", f"{share:.0%}", "100.0", "5"]
    assert found["PyTorch"][1] == "5.00 × as fast"
    assert found["Keras on JAX"] == ["not installed", "", "", "", ""]
    assert "Keras on JAX: not installed (no module named keras)." in text
    assert "torch.compile: failed (no answer" in text
    assert "**plain Flax loop: a last loss of 290.0" in text


def test_series_start_up_and_streaming_in_tables():
    rows = [
        {"value": 1, "images_per_second": 100.0, "unavailable": None},
        {"value": 2, "images_per_second": 150.0, "unavailable": None},
        {"value": 4, "images_per_second": None, "unavailable": "failed (one device)"},
    ]
    assert rows_of(series_text([{"title": "devices", "rows": rows}]))[1:] == [
        *(["1", "100", "1.00"], ["2", "150", "1.50"], ["4", "failed (one device)", ""])
    ]
    starts = [{"to_first_epoch": t, "whole_command": 10.0} for t in (3.0, 9.0, 4.0)]
    assert rows_of(startup_text({"cold": starts[:1], "warm": starts}))[1:] == [
        *(["cold, 1 start", "3.0", "10.0"], ["warm, 3 starts", "4.0", "10.0"])
    ]
    rows = [
        {"images": 1024, "file_bytes": 5e6, "images_per_second": 2e4, "peak_bytes": 4.2e8, "unavailable": None},
        {"images": 4096, "file_bytes": 2e7, "images_per_second": None, "peak_bytes": None, "unavailable": "failed (x)"},
    ]
    assert rows_of(streaming_text([{"rows": rows}]))[1:] == [
        *(["1,024", "5", "20,000", "420"], ["4,096", "20", "failed (x)", ""])
    ]


def test_time_to_quality_counts_from_the_first_loss_that_is_low_enough():
    curve = [[3.0, 160.0], [4.0, 149.0], [5.0, math.nan], [6.0, 139.5], [7.0, 141.0]]
    found = [{"curve": curve}, {"curve": [], "missing": "no module named torch"}]
    rows = [
        {"title": title, "recipe": "an example", "limit": 9.0, **quality.summarise(each)}
        for title, each in zip("ab", found, strict=True)
    ]
    assert rows[0]["seconds_to"] == {"150": 4.0, "145": 6.0, "140": 6.0, "135": None}
    text = quality_text(rows)
    assert rows_of(text)[1:] == [
        ["a", "an example", "4", "6", "6", "", "139.5", "5", "7"],
        ["b", "an example", "", "", "", "", "", "0", ""],
    ]
    assert "ends after 9 s" in text
    assert "one seed each" in text
    assert "b: not installed (no module named torch)." in text


class Asked:
    """A worker that answers at once, and at the limit not at all."""

    def __init__(self, clock, epoch_seconds):
        self.clock, self.epoch_seconds, self.closed = clock, epoch_seconds, False

    def __call__(self, *_):
        return self

    def ask(self, action, seconds, **_):
        took = {"prepare": 2.0, "train": self.epoch_seconds, "held_out": 100.0}[action]
        self.clock[0] += min(took, seconds)
        if took > seconds:
            return {"failed": "no answer"}
        return {"epochs": 4} if action == "prepare" else {action: 1.0, "held_out": 200.0 - self.clock[0]}

    def close(self):
        self.closed = True


@pytest.mark.parametrize(("seconds", "epochs"), [(1.0, 4), (5.0, 1)])
def test_a_recipe_ends_by_itself_or_at_the_limit_and_measuring_costs_it_nothing(monkeypatch, tmp_path, seconds, epochs):
    clock = [50.0]
    worker = Asked(clock, seconds)
    monkeypatch.setattr(quality, "Worker", worker)
    monkeypatch.setattr(quality.time, "perf_counter", lambda: clock[0])
    found = quality.train(quality.RECIPES["ours"], JOB, 10.0, tmp_path)
    assert "failed" not in found
    assert [at for at, _ in found["curve"]] == [2.0 + seconds * (i + 1) for i in range(epochs)]
    assert worker.closed


def test_the_figure_shows_every_contestant_and_no_bar_where_there_is_no_number():
    case = summarise(measured(), JOB, MNIST)
    figure = plots_benchmark.training([("one", case["rows"]), ("two", case["rows"]), ("three", case["rows"])], "title")
    figure.draw_without_rendering()
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()][:2] == ["vae_jax", "plain Flax loop"]
    assert [bar.get_width() for bar in axes.patches] == [5000, 2000, 1000, 0, 0]
    assert {text.get_text() for text in axes.texts} >= {"not installed", "failed"}


def test_a_worker_imports_no_framework_before_it_knows_its_own():
    code = "import sys, experiments.contestants.worker; print({'jax', 'torch', 'keras', 'flax'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_what_fails_in_a_process_and_one_that_dies_are_named(tmp_path):
    found = measure({"a": ("ours", mlp_job(str(tmp_path / "no.npy"), 128))}, ["train"], 1, tmp_path)
    assert "FileNotFoundError" in found["a"]["failed"]
    worker = Worker("torch", tmp_path, JOB)
    try:
        worker.process.kill()
        assert "ended with code" in worker.ask("prepare", 30.0, job=JOB.to_json())["failed"]
    finally:
        worker.close()


def test_sections_without_jobs_are_left_out(tmp_path):
    plan = Plan("none.npy", 100, (8, 8, 1), ("flax",), 1, quick=False, accelerator=False, logs=tmp_path)
    assert plan.batch_sizes == ()
    assert measure({}, ["train"], 1, tmp_path) == {}


@pytest.mark.slow
def test_a_tiny_run_measures_trains_and_draws(tmp_path, capsys):
    output = tmp_path / "b"
    flags = [
        "--dataset",
        "digits",
        "--quick",
        "--sections",
        "training",
        "streaming",
        "quality",
        "--contestants",
        "ours",
        "flax",
    ]
    summary = benchmark.run(parse(benchmark.Config, [*flags, "--repetitions", "1", "--output", str(output)]))
    assert [case["job"]["arch"] for case in summary["training"]] == ["mlp", "conv"]
    for case in summary["training"]:
        assert case["roof_flops"] > 0
        for row in case["rows"]:
            assert row["unavailable"] is None
            assert row["images_per_second"] > 0
            assert row["roof_share"] > 0
            assert 0 < row["last_loss"] < 64 * math.log(2) * 1.2  # uniform grey costs 64 log 2 nats
    (streamed,) = summary["streaming"]
    assert [row["images"] for row in streamed["rows"]] == [1024, 4096, 16384]
    assert all(row["images_per_second"] > 0 and row["peak_bytes"] > 1e8 for row in streamed["rows"])
    assert [row["title"] for row in summary["quality"]] == ["vae_jax, its default", "plain Flax loop"]
    for row in summary["quality"]:
        assert row["unavailable"] is None
        assert row["epochs"] == 2
        assert 0 < row["lowest_loss"] < 64 * math.log(2) * 1.2
        assert row["seconds_to"]["135"] > 0
    assert not list(output.glob("**/*.npy"))
    raw = json.loads((output / "benchmark.json").read_text())["training"][0]["measured"]
    assert len(raw["ours"]["train"]) == 1
    assert len(raw["ours"]["losses"]) == 2  # the first repetition's too
    assert {"report.md", "summary.json", "figures", "logs"} <= {path.name for path in output.iterdir()}
    assert (output / "figures" / "benchmark.png").stat().st_size > 5000
    assert "vae_jax" in (output / "report.md").read_text()
