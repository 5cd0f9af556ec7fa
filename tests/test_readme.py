"""What the README shows runs as it stands there."""

import re
from pathlib import Path

import pytest

from experiments import results
from vae_jax.errors import UsageError

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_library_example_runs_and_prints_a_loss_that_adds_up(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
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
        assert (ROOT / "experiments" / f"{module}.py").exists()
    for picture in re.findall(r"\]\((docs/.*?)\)", README):
        assert (ROOT / picture).exists(), picture


def test_the_results_table_is_written_between_its_markers_from_recorded_runs(tmp_path):
    for name, _, _ in results.RUNS:
        folder = tmp_path / "runs" / name / "figures"
        folder.mkdir(parents=True)
        for figure in results.FIGURES:
            (folder / figure).write_bytes(b"png")
        test = '{"loss": 134.567, "reconstruction": 127.5, "kl": 7.0, "iwae_nll": 91.5}'
        summary = f'{{"test": {test}, "images_per_second": 35580.4, "seconds": 58.3}}'
        (folder.parent / "summary.json").write_text(summary)
        (folder.parent / "environment.json").write_text(
            '{"cores": 2, "device": "cpu", "python": "3", "jax": "0", "flax": "0"}'
        )
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{results.BEGIN}\nold\n{results.END}\nafter\n")
    config = results.Config(root=tmp_path / "runs", readme=readme, figures=tmp_path / "figures")
    results.run(config)
    text = readme.read_text()
    assert text.startswith(f"before\n{results.BEGIN}\n| model")
    assert text.endswith(f"{results.END}\nafter\n")
    assert "old" not in text
    assert text.count("| 134.57 (NLL ≤ 91.50) | 127.50 | 7.00 | 35,580 | 58 |") == len(results.RUNS)
    assert (tmp_path / "figures" / results.FIGURES[0]).exists()
    readme.write_text("no markers")
    with pytest.raises(UsageError, match="once each"):
        results.run(config)
