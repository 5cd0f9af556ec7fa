"""What the README shows runs as it stands there."""

import dataclasses
import importlib.util
import io
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from experiments import mnist, results
from experiments.results.uses import USES
from vae_jax.cli.command import parse
from vae_jax.cli.defaults import About, decided
from vae_jax.config import Settings
from vae_jax.errors import UsageError

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_library_example_runs_and_prints_a_loss_that_adds_up(capsys):
    (example,) = re.findall(r"```python\n([^`]*?load_dataset.*?)```", README, re.DOTALL)
    assert len([line for line in example.splitlines() if line.strip()]) <= 15
    exec(compile(example, "README.md", "exec"), {})
    loss, reconstruction, kl = map(
        float, re.search(r"([\d.]+) nats = ([\d.]+) \+ ([\d.]+)", capsys.readouterr().out).groups()
    )
    assert loss == pytest.approx(reconstruction + kl, abs=0.11)
    assert loss < 30  # uniform grey costs 64 log 2 = 44.4 nats


def test_every_target_and_module_named_exists():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`?make ([a-z-]+)", README)) - {"sure"}:
        assert f"\n{target}:" in makefile, target
    for module in set(re.findall(r"-m experiments\.(\w+)", README)):
        assert importlib.util.find_spec(f"experiments.{module}")
    for picture in re.findall(r"\]\((docs/.*?)\)", README):
        assert (ROOT / picture).exists(), picture


SUMMARIES = {
    "compare": {
        "measured": {
            name: {
                key: [0.5, 0.01]
                for key in ("reconstruction", "prior_precision", "prior_recall", "gain_median", "knn_accuracy")
            }
            for name in ("ae", "vae")
        }
    },
    "sweep": {"points": {"2": [{"beta": 1.0, "reconstruction": 127.0, "kl": 7.0, "sigma": [0.1, 0.2, 0.3]}]}},
    "reparametrisation": {"samples_for_equal_variance": {"score": 786.0, "baseline": 2.7}},
    "sparse": {"units": 980, "models": {"l1": {"active_share": 0.1, "dead": 3, "reconstruction": 70.0}}},
    "dimensionality": {"rows": [{"method": "PCA", "latent_dim": 2, "knn_5": 0.436}]},
    "denoising": {
        "rows": [{"corruption": "masking", "level": 0.5, "psnr": {"denoising AE": 22.0, "linear MMSE": 18.0}}]
    },
    "anomaly": {"protocols": {"one_class": {"score": "elbo", "mean": {"elbo": {"auroc": 0.971}}}}},
    "compression": {"at_equal_psnr": {"AE": [{"psnr": 20.0, "AE": 0.1, "JPEG": 0.2, "WebP": None}]}},
}
JOB = {"arch": "mlp", "batch_size": 128, "hidden_sizes": [400], "latent_dim": 20}
CONTESTANT = {"images_per_second": 40123.4, "roof_share": 0.63, "wrong": None}
BENCHMARK = {
    "training": [
        {
            "job": JOB,
            "roof_flops": 2e11,
            "rows": [
                {"contestant": "ours", "title": "vae_jax", **CONTESTANT},
                {"contestant": "keras_jax", "title": "Keras", **CONTESTANT, "wrong": "its loss does not fall"},
            ],
        }
    ],
    "inference": [
        {
            "job": {**JOB, "images": 10_000},
            "rows": [{"title": "vae_jax", "encode": 1e5, "decode": 2e5, "evaluate": 3e4, "unavailable": None}],
        }
    ],
    "startup": {"cold": [{"to_first_epoch": 9.04}], "warm": [{"to_first_epoch": 2.0}, {"to_first_epoch": 3.0}]},
}
RUN = {"nll": 84.4, "nll_se": 0.05, "loss": 87.1, "kl": 26.0, "active_units": 39, "latent_dim": 40, "train_nll": 83.0}
RUN |= {
    "seconds": 360.0,
    "epochs": 36,
    "steps": 90,
    "samples": 5000,
    "nll_images": 1000,
    "images": 10_000,
    "device": "cpu",
}
ROW = {"data": "dynamic", "arch": "gated", "model": "flow", "steps": 90, "trained": {"minutes": 6.0, "steps": None}}
PICTURE = io.BytesIO()
Image.new("RGB", (1440, 600), "orange").save(PICTURE, "PNG")
TEST = {"loss": 134.567, "reconstruction": 127.5, "kl": 7.0, "iwae_nll": 91.5}


def record(folder, figures, summary, **files):
    files |= {"summary": summary, "environment": dict.fromkeys(("cores", "device", "python", "jax", "flax"), "2")}
    (folder / "figures").mkdir(parents=True)
    for figure in figures:
        (folder / "figures" / figure).write_bytes(PICTURE.getvalue())
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content, default=str))


@pytest.fixture
def recorded(tmp_path):
    """Recorded runs, studies and a benchmark, a README with the markers of all tables, and the configuration."""
    root = tmp_path / "runs"
    data = {"name": "mnist", "sha256": "0", "image_shape": [28, 28, 1], "train": 55_000}
    for name, _, flags in results.RUNS:
        parsed = decided(parse(mnist.Config, flags.split()), About(*results.MNIST))
        settings = {field.name: getattr(parsed, field.name) for field in dataclasses.fields(Settings)}
        config = {"schema": 4, "settings": settings, "dataset": data}
        summary = {"test": TEST, "images_per_second": 35580.4, "seconds": 58.3}
        record(root / name, results.FIGURES, summary, config=config)
    for use in USES:
        asked = {"flags": use.study.Config().flags(), "dataset": "mnist"}
        record(root / use.name, [use.figure], {**asked, **SUMMARIES[use.name]})
    record(root / "benchmark", ["benchmark.png"], {"flags": {"quick": False}, "dataset": "mnist", **BENCHMARK})
    record(root / "tables", [], {"rows": [ROW | {"seeds": {"0": RUN}}]})
    (root / "tables" / "tables.png").write_bytes(PICTURE.getvalue())
    (root / "tables" / "results.csv").write_text("nll\n84.4\n")
    readme = tmp_path / "README.md"
    markers = "\n".join(f"{begin}\nold\n{end}" for begin, end in results.MARKERS.values())
    readme.write_text(f"before\n{markers}\nafter\n")
    return results.Config(root=root, readme=readme, figures=tmp_path / "figures")


def test_the_tables_are_written_between_their_markers_from_recorded_runs(recorded):
    results.run(recorded)
    text = recorded.readme.read_text()
    assert text.startswith(f"before\n{results.MARKERS['results'][0]}\n| model")
    assert text.endswith(f"{results.MARKERS['likelihoods'][1]}\nafter\n")
    assert "\nold\n" not in text
    assert text.count("| 134.57 (NLL ≤ 91.50) | 127.50 | 7.00 | 35,580 | 58 |") == len(results.RUNS)
    assert (recorded.figures / results.FIGURES[0]).exists()
    for use in USES:
        assert f"| {use.title} | `experiments.{use.name}" in text
        assert f"](docs/figures/{use.name}.png)" in text
        with Image.open(recorded.figures / f"{use.name}.png") as figure:
            assert figure.size == (results.FIGURE_WIDTH, 500)
    assert re.search(r"\| vae_jax +\| +40,123 \|", text)
    assert re.search(r"\| Keras +\| +\|", text)  # it did less work
    assert "63%" in text
    assert re.search(r"\| mlp, vae_jax +\| +100,000 \| +200,000 \| +30,000 \|", text)
    assert "2.5 s with a warm one, 9.0 s with a cold one" in text
    assert "AE 0.50 ± 0.01" in text
    assert "mean AUROC 0.971 by elbo" in text
    assert "JPEG 2.0 times the bits" in text
    assert "WebP" not in text
    assert re.search(r"\| gated: flow prior +\| 84.40 \| 0.05 \| one seed \|", text)
    assert "Trained on cpu." in text.partition(results.MARKERS["likelihoods"][0])[2]
    assert (recorded.figures / "likelihoods.csv").read_text() == "nll\n84.4\n"
    assert (recorded.figures / "likelihoods.png").exists()


def test_a_benchmark_that_was_not_recorded_leaves_its_table_alone(recorded):
    (recorded.root / "benchmark" / "summary.json").unlink()
    results.run(recorded)
    begin, end = results.MARKERS["speed"]
    assert f"{begin}\nold\n{end}" in recorded.readme.read_text()
    with pytest.raises(UsageError, match="make benchmark"):
        results.run(dataclasses.replace(recorded, tables="speed"))


def test_log_likelihoods_that_were_not_recorded_leave_their_table_alone(recorded):
    content = json.loads((recorded.root / "tables" / "summary.json").read_text())
    (recorded.root / "tables" / "summary.json").write_text(json.dumps(content | {"rows": []}))
    with pytest.raises(UsageError, match="no finished row"):
        results.run(recorded)
    (recorded.root / "tables" / "summary.json").unlink()
    results.run(recorded)
    begin, end = results.MARKERS["likelihoods"]
    assert f"{begin}\nold\n{end}" in recorded.readme.read_text()
    with pytest.raises(UsageError, match=r"experiments\.tables --output"):
        results.run(dataclasses.replace(recorded, tables="likelihoods"))


def test_a_readme_without_markers_is_left_alone(recorded):
    recorded.readme.write_text("no markers")
    with pytest.raises(UsageError, match="once each"):
        results.run(recorded)
    assert recorded.readme.read_text() == "no markers"


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("vae-z2/config.json", {"settings": {"seed": 5}}, "--seed 5, but the table names 0"),
        ("ae-z2/config.json", {"settings": {"hidden_sizes": [4]}}, "--hidden-sizes"),
        ("vae-z20-dynamic/config.json", {"settings": {"iwae_samples": 0}}, "--iwae-samples 0, but the table names 500"),
        ("vae-z20/config.json", {"dataset": {"name": "digits"}}, "--dataset digits"),
        ("sweep/summary.json", {"flags": {"beta": [0, 1]}}, "--beta"),
        ("sparse/summary.json", {"dataset": "digits"}, "--dataset digits"),
        ("anomaly/summary.json", {"flags": None}, "once more with --output"),
        ("benchmark/summary.json", {"flags": {"quick": True}}, "--quick True"),
    ],
)
def test_what_was_recorded_with_other_flags_is_refused_by_name(recorded, file, change, words):
    path = recorded.root / file
    content = json.loads(path.read_text())
    for name, value in change.items():
        content[name] = content[name] | value if isinstance(value, dict) else value
    path.write_text(json.dumps(content))
    before = recorded.readme.read_text()
    with pytest.raises(UsageError, match=words) as refused:
        results.run(recorded)
    assert str(path.parent) in str(refused.value)
    assert recorded.readme.read_text() == before


def test_a_flag_that_came_later_and_places_are_no_difference(recorded):
    path = recorded.root / "vae-z2" / "config.json"
    content = json.loads(path.read_text())
    del content["settings"]["ema_decay"]
    content["settings"] |= {"data_dir": "/elsewhere", "run_dir": "/elsewhere/run", "device_data": "never"}
    path.write_text(json.dumps(content))
    results.run(recorded)
