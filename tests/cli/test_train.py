"""Each command as a user runs it: smoke runs on the embedded digits, messages and exit codes."""

import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from unoptimised import XLA_FLAGS

import vae_jax
from experiments import mnist, plot_latent
from vae_jax.__main__ import tool
from vae_jax.cli.command import main, parse
from vae_jax.cli.figures import headline
from vae_jax.cli.progress import Progress
from vae_jax.cli.session import initial_of, load
from vae_jax.models.evaluation import evaluate
from vae_jax.models.quality import psnr
from vae_jax.plots.animation import read_progress_grids
from vae_jax.runs.verify import check

ROOT = Path(__file__).parents[2]
SMALL = ["--dataset", "digits", "--epochs", "2", "--hidden-sizes", "16", "--no-compilation-cache", "--grid-size", "5"]
FIGURES = {
    "latent_means.png",
    "latent_grid.png",
    "reconstructions.png",
    "samples.png",
    "training_curves.png",
    "training_progress.gif",
}


def command(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": XLA_FLAGS, **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.fixture(scope="session")
def vae_run(tmp_path_factory):
    path = tmp_path_factory.mktemp("experiments") / "vae"
    result = command("experiments.mnist", *SMALL, "--run-dir", str(path))
    assert result.returncode == 0, result.stderr
    return path, result.stdout


def test_minutes_become_steps_by_the_pace_of_the_first_ones(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("vae_jax.training.fit.PACE_SECONDS", 0.0)
    monkeypatch.setattr("vae_jax.cli.session.draw_run", lambda *_: None)
    flags = [*SMALL[:2], *SMALL[4:], "--run-dir", str(tmp_path / "run"), "--minutes", "1e-9"]
    main(mnist.Config, mnist.run, flags)
    assert "1e-09 minutes of training are 1 step, 0.2 epochs, at " in capsys.readouterr().out
    run = vae_jax.load_run(tmp_path / "run")
    assert (run.config.steps, run.config.epochs, run.summary["steps"]) == (1, None, 1)
    assert all(good for _, good, _ in check(run.path))
    for more, words in (["--minutes", "1"], "a run that goes on keeps its steps"), ([], "finished run of --steps 1"):
        with pytest.raises(SystemExit):
            main(mnist.Config, mnist.run, ["--resume", "--run-dir", str(tmp_path / "run"), *more])
        assert words in capsys.readouterr().err


def test_a_run_begins_with_the_networks_and_parameters_of_another(vae_run, capsys):
    flags = [*SMALL[:2], *SMALL[6:], "--init-from", str(vae_run[0])]
    config = parse(mnist.Config, flags)
    dataset, recipe = load(config)
    _, state = initial_of(config, recipe, dataset)
    said = capsys.readouterr().out
    assert f"Networks as in {vae_run[0]}, where no flag says else." in said
    assert "Begun anew" not in said
    origin = vae_jax.load_run(vae_run[0])
    assert recipe.settings.hidden_sizes == origin.config.hidden_sizes == (16,)
    for one, other in zip(jax.tree.leaves(origin.params), jax.tree.leaves(state.params), strict=True):
        np.testing.assert_array_equal(one, other)
    # A flag says else.
    other = load(parse(mnist.Config, [*flags, "--hidden-sizes", "9"]))[1].settings
    assert (other.hidden_sizes, other.latent_dim) == ((9,), 2)


def test_time_and_memory_are_said_before_they_are_spent(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("vae_jax.cli.progress.PACE_SECONDS", 0.0)
    monkeypatch.setattr("vae_jax.cli.session.draw_run", lambda *_: None)
    for where, flags in (("kept in", []), ("fed from the host to", ["--device-data", "never"])):
        main(mnist.Config, mnist.run, [*SMALL, *flags, "--batch-size", "32", "--run-dir", str(tmp_path / where[:4])])
        output = capsys.readouterr().out
        assert f"They take 0.1 MB and are {where} the device, whose memory is " in output
        first = output.index("epoch 1/2:")
        assert re.search(r"\d+ steps at [\d,]+ images/s: about \d+ seconds of training\.\n", output[:first])
        assert output.count(" of training.") == 1


def test_a_run_leaves_the_directory_of_the_design(vae_run):
    path, output = vae_run
    assert {p.name for p in path.iterdir()} == {
        *("config.json", "environment.json", "metrics.jsonl", "summary.json", "checkpoints", "figures")
    }
    assert {p.name for p in (path / "figures").iterdir()} == FIGURES
    summary = json.loads((path / "summary.json").read_text())
    keys = "test epochs steps seconds images_per_second time_to_first_epoch_seconds parameters dataset device"
    assert set(keys.split()) <= set(summary)
    assert (summary["epochs"], summary["dataset"]) == (2, "digits")
    for word in ("test loss", "reconstruction", "KL", "images/s", "seconds", "figures", "epoch 2/2", "digits"):
        assert word in output


def test_rows_add_up_and_the_summary_is_what_load_run_recomputes(vae_run, digits):
    path, _ = vae_run
    run = vae_jax.load_run(path)
    for row in run.metrics:
        for part in (row["train"], row["validation"]):
            assert abs(part["loss"] - (part["reconstruction"] + row["beta"] * part["kl"])) <= 1e-3
    again = evaluate(run.model, run.params, digits.test.images, run.evaluation_key)
    for name, value in again.items():
        assert run.summary["test"][name] == pytest.approx(value, abs=1e-4)
    assert not any("bits" in name for name in (*run.summary["test"], *run.metrics[0]["validation"]))
    rebuilt = np.clip(run.reconstruct(digits.test.images), 0, 1)
    assert run.summary["test"]["psnr"] == pytest.approx(psnr(digits.test.images / np.float32(255), rebuilt).mean())


def test_resuming_a_finished_run_with_more_epochs_takes_the_saved_settings(vae_run, capsys):
    path, _ = vae_run
    main(mnist.Config, mnist.run, ["--run-dir", str(path), "--resume", "--epochs", "3"])
    run = vae_jax.load_run(path)
    assert [row["epoch"] for row in run.metrics] == [1, 2, 3]
    assert run.config.hidden_sizes == (16,)
    with Image.open(path / "figures" / "training_progress.gif") as gif:
        assert gif.n_frames == 3
    assert "epoch 3/3" in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags",
    [
        ["--latent-dim", "1", "--binarize", "dynamic"],
        pytest.param(
            ["--latent-dim", "3", "--likelihood", "learned_gaussian", "--iwae-samples", "3"], marks=pytest.mark.slow
        ),
        pytest.param(["--model", "ae", "--latent-dim", "3", "--likelihood", "squared_error"], marks=pytest.mark.slow),
        pytest.param(
            ["--arch", "conv", "--hidden-sizes", "4", "--model", "ae", "--latent-dim", "1"], marks=pytest.mark.slow
        ),
        pytest.param(
            ["--arch", "residual", "--hidden-sizes", "4", "--latent-dim", "8", "--augment", "flip", "crop"],
            marks=pytest.mark.slow,
        ),
    ],
    ids=" ".join,
)
def test_every_latent_dimension_and_model_gives_every_figure(flags, tmp_path):
    config = parse(mnist.Config, [*SMALL, *flags, "--epochs", "1", "--run-dir", str(tmp_path / "run")])
    run = mnist.run(config)
    assert {p.name for p in (run.path / "figures").iterdir()} == FIGURES
    assert len(plot_latent.run(plot_latent.Config(run.path, output=tmp_path / "out", grid_size=3))) == 4
    assert np.isfinite(run.summary["test"]["loss"])
    assert ("iwae_nll" in run.summary["test"]) == (config.iwae_samples > 0)


def test_bits_per_dimension_are_told_of_masses_of_8_bit_pixels_alone(tmp_path, capsys):
    flags = ["--epochs", "2", "--run-dir", str(tmp_path / "run"), "--beta", "0.5", "--likelihood"]
    run = mnist.run(parse(mnist.Config, [*SMALL, *flags, "discretized_logistic", "--iwae-samples", "20"]))
    test, said, values = run.summary["test"], capsys.readouterr().out, 64 * np.log(2)
    assert test["loss"] == pytest.approx(test["reconstruction"] + test["kl"])
    assert test["bits_per_dim"] == pytest.approx(test["loss"] / values)
    assert test["iwae_bits_per_dim"] == pytest.approx(test["iwae_nll"] / values)
    assert test["iwae_bits_per_dim"] < test["bits_per_dim"]
    assert 0 < test["bits_per_dim_se"] < 0.2
    assert test["psnr"] > 8
    for row in run.metrics:
        scores = row["validation"]
        assert scores["bits_per_dim"] == pytest.approx((scores["reconstruction"] + scores["kl"]) / values)
        assert f"({scores['bits_per_dim']:.3f} bits per dimension)" in said
    assert f"bits per dimension              {test['bits_per_dim']:.3f} ± {test['bits_per_dim_se']:.3f}\n" in said
    assert f"the same in bits per dimension  {test['iwae_bits_per_dim']:.3f}\n" in said
    again, images = vae_jax.load_run(tmp_path / "run"), vae_jax.load_dataset("digits").test.images
    assert again.evaluate(images)["bits_per_dim"] == pytest.approx(test["bits_per_dim"], rel=1e-5)
    assert f"{test['bits_per_dim']:.3f} ± {test['bits_per_dim_se']:.3f} bits per dimension" in headline(again, test)
    np.savez(tmp_path / "mine.npz", images=images)
    tool(["reconstruct", str(tmp_path / "run"), str(tmp_path / "mine.npz"), "--output", str(tmp_path / "out")])
    rows = (tmp_path / "out" / "reconstruct.csv").read_text().splitlines()
    assert rows[0] == "index,psnr,bits_per_dim"
    each = [float(row.split(",")[2]) for row in rows[1:]]
    assert np.mean(each) == pytest.approx(test["bits_per_dim"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("number", [12, 40])  # of 12, one is to validate on
def test_own_images_of_odd_size_without_labels(number, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (number, 5, 7, 4), dtype=np.uint8)
    np.savez(tmp_path / "mine.npz", images=images)
    flags = ["--dataset", str(tmp_path / "mine.npz"), "--batch-size", "8", "--latent-dim", f"{number + 4}"]
    run = mnist.run(parse(mnist.Config, [*SMALL[2:], *flags, "--epochs", "1", "--run-dir", str(tmp_path / "run")]))
    assert run.summary["dataset"] == "mine"
    assert {p.name for p in (run.path / "figures").iterdir()} == FIGURES
    # One point alone has no principal components.
    one = {"max_points": 1, "interpolations": 0, "grid_size": 3}
    assert all(path.exists() for path in plot_latent.run(plot_latent.Config(run.path, output=tmp_path / "out", **one)))


def test_plot_latent_needs_the_run_directory_alone(vae_run, tmp_path, capsys):
    flags = ["--split", "validation", "--output", str(tmp_path), "--max-points", "50", "--grid-size", "4"]
    main(plot_latent.Config, plot_latent.run, [str(vae_run[0]), *flags])
    names = {f"{name}_validation_50.png" for name in ("latent_means", "traversals", "interpolations")}
    assert {p.name for p in tmp_path.iterdir()} == {*names, "latent_grid.png"}
    assert str(tmp_path / "latent_means_validation_50.png") in capsys.readouterr().out
    one = {"traversals": 0, "interpolations": 2, "interpolation": "spherical", "grid_size": 2}
    paths = plot_latent.run(plot_latent.Config(vae_run[0], output=tmp_path, **one))
    assert [path.name for path in paths] == ["latent_means.png", "latent_grid.png", "interpolations.png"]


def test_an_interrupted_run_names_the_command_that_goes_on_and_keeps_its_frames(
    tmp_path, monkeypatch, capsys, compilations
):
    path, add, compiled = tmp_path / "run", Progress.add, []

    def interrupt(self, params, epoch):
        add(self, params, epoch)
        compiled.append(len(compilations))
        if epoch == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "add", interrupt)
    with pytest.raises(SystemExit) as stop:
        main(mnist.Config, mnist.run, [*SMALL, "--epochs", "4", "--run-dir", str(path)])
    monkeypatch.undo()
    assert stop.value.code == 130
    assert f"--resume --run-dir {path}" in capsys.readouterr().err
    assert compiled[0] > 0
    assert compiled[1:] == [compiled[0]] * 2  # nothing after the first epoch
    assert vae_jax.load_run(path).step > 0
    main(mnist.Config, mnist.run, ["--resume", "--run-dir", str(path)])
    assert list(read_progress_grids(path / "figures" / "training_progress.gif")) == [1, 2, 3, 4]


def test_without_data_and_network_the_digits_are_used_and_the_warning_is_seen(tmp_path, monkeypatch, capsys):
    # A proxy on a closed port: nothing can be downloaded, whatever network there is.
    for name, value in {"TFDS_DATA_DIR": str(tmp_path / "tfds"), "https_proxy": "http://127.0.0.1:9"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("VAE_JAX_DATA_DIR", raising=False)
    show = warnings.showwarning
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        main(mnist.Config, lambda config: load(config), [*SMALL[4:]])
        warnings.showwarning = show
    seen = capsys.readouterr().err
    assert "WARNING" in seen
    assert "--data-dir" in seen
    assert "scikit-learn" in seen
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.skipif("VAE_JAX_DATA_DIR" not in os.environ, reason="needs real MNIST: set VAE_JAX_DATA_DIR")
def test_the_default_run_on_real_mnist_reaches_137_nats(tmp_path):
    flags = ["--latent-dim", "2", "--dataset", "mnist", "--run-dir", str(tmp_path / "r")]
    result = command("experiments.mnist", *flags, XLA_FLAGS="")  # optimised, as for a user
    assert result.returncode == 0, result.stderr
    summary = vae_jax.load_run(tmp_path / "r").summary
    assert summary["test"]["loss"] <= 137
    assert summary["test"]["kl"] > 5
