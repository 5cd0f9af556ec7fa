"""The tables of log-likelihoods, on the embedded digits: rows one by one, their numbers, what is written of them."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest

from experiments import tables
from experiments.tables import measure, study
from experiments.tables.report import csv_text, text_of
from experiments.tables.rows import ARCHS, DATA, MODELS, PUBLISHED
from experiments.tables.study import Place, begun_row, settings_of
from vae_jax.cli.command import parse
from vae_jax.combinations import check_settings
from vae_jax.data.split import Split
from vae_jax.errors import UsageError
from vae_jax.models.evaluation import ImageLosses

SMALL = ["--data", "digits", "--seeds", "1", "--samples", "6", "--nll-images", "40", "--learning-rate", "1e-3"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A table of two rows, of which the second was asked for later; what the second call printed is checked here."""
    output = tmp_path_factory.mktemp("tables") / "out"
    flags = [*SMALL, "--steps", "40", "--output", str(output)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "FEW", 3)
        patch.setattr(study, "measure", _stopped)
        with pytest.raises(KeyboardInterrupt):
            tables.run(parse(tables.Config, [*flags, "--models", "vae"]))
        patch.setattr(study, "measure", measure.measure)
        before = (output / "digits" / "gated-vae-seed1" / "summary.json").stat().st_mtime_ns
        summary = tables.run(parse(tables.Config, [*flags, "--models", "vae", "iwae-5"]))
        assert (output / "digits" / "gated-vae-seed1" / "summary.json").stat().st_mtime_ns == before
        yield output, flags, summary


def _stopped(*_):
    raise KeyboardInterrupt


def test_a_table_is_made_row_by_row_and_written_whole(finished, monkeypatch, capsys):
    output, flags, summary = finished
    monkeypatch.setattr(study, "train_run", None)  # nothing is trained again
    again = tables.run(parse(tables.Config, [*flags, "--models", "iwae-5"]))
    assert again == summary
    assert "restored" in capsys.readouterr().out
    lines = list(csv.DictReader((output / "results.csv").read_text().splitlines()))
    assert [(line["model"], line["seed"], line["published"]) for line in lines] == [
        ("vae", "1", ""),
        ("iwae-5", "1", ""),
    ]
    (vae, iwae) = summary["rows"]
    numbers = vae["seeds"]["1"]
    assert float(lines[0]["nll"]) == numbers["nll"]
    assert (numbers["steps"], numbers["nll_images"], numbers["images"], numbers["latent_dim"]) == (40, 40, 359, 40)
    assert numbers["loss"] == pytest.approx(numbers["reconstruction"] + numbers["kl"])
    assert numbers["nll"] < numbers["loss"] < 64 * np.log(2)
    assert iwae["seeds"]["1"]["nll"] != numbers["nll"]
    text = (output / "results.md").read_text()
    assert "one seed" in text
    assert "6 x 40 of 359" in text
    assert (output / "tables.png").exists()
    assert json.loads((output / "summary.json").read_text())["rows"] == summary["rows"]


def test_other_samples_measure_anew_and_other_training_is_refused(finished, monkeypatch):
    output, flags, summary = finished
    monkeypatch.setattr(study, "train_run", None)
    (vae, _) = tables.run(parse(tables.Config, [*flags, "--models", "vae", "--samples", "3"]))["rows"]
    assert vae["seeds"]["1"]["nll"] > summary["rows"][0]["seeds"]["1"]["nll"]
    assert (vae["seeds"]["1"]["nll_se"], vae["seeds"]["1"]["nll_images"]) == (0, 359)  # all got the 3
    for changed, words in (
        (["--learning-rate", "2e-3"], r"--learning-rate is 0.002, but .*gated-vae.json was begun with 0.001"),
        (["--steps", "41"], "--steps is 41, but .* was begun with 40"),
        (
            ["--seeds", "0", "--samples", "4"],
            r"--samples 4 .* differ from --samples 3 .* seeds 1 are not among --seeds 0",
        ),
        (["--minutes", "1"], "both say"),
    ):
        with pytest.raises(UsageError, match=words):
            tables.run(parse(tables.Config, [*flags, "--models", "vae", *changed]))
    with pytest.raises(UsageError, match=r"--steps is not given, but .* was begun with 40"):
        tables.run(parse(tables.Config, [*SMALL, "--output", str(output), "--models", "vae"]))


def test_the_steps_of_a_row_are_kept_with_the_minutes_that_they_were_counted_for(tmp_path):
    config = parse(tables.Config, ["--output", str(tmp_path)])
    place = Place("dynamic", "gated", "vae")
    row = begun_row(place, config)
    assert (row["steps"], row["trained"]["minutes"]) == (None, 10.0)
    place.file(tmp_path).parent.mkdir()
    place.file(tmp_path).write_text(json.dumps({**row, "steps": 777}))
    assert begun_row(place, config)["steps"] == 777
    with pytest.raises(UsageError, match=r"--minutes is 20.0, but .* was begun with 10.0"):
        begun_row(place, parse(tables.Config, ["--output", str(tmp_path), "--minutes", "20"]))
    with pytest.raises(UsageError, match=r"--steps is 5, but .* was begun without it"):
        begun_row(place, parse(tables.Config, ["--output", str(tmp_path), "--steps", "5"]))
    for damaged in ({}, {**row, "seeds": {"0": {"nll": 84.0}}}):
        place.file(tmp_path).write_text(json.dumps(damaged))
        with pytest.raises(UsageError, match="is damaged"):
            begun_row(place, config)


def test_every_row_has_settings_that_stand_together_and_no_flag_of_a_row_is_lost():
    config = parse(tables.Config, ["--kl-warmup", "0.5", "--patience", "7"])
    for data, arch, model in ((d, a, m) for d in DATA for a in ARCHS for m in MODELS):
        settings = settings_of(config, Place(data, arch, model), "", "any", 3, 100)
        check_settings(settings)
        assert settings.binarize != "none"
        assert (settings.steps, settings.seed, settings.patience) == (100, 3, 7)
        assert settings.kl_warmup_steps == (0 if model.startswith("iwae") else 50)
        for name, value in {**ARCHS[arch][1], **MODELS[model][1]}.items():
            assert getattr(settings, name) == value
    assert {(d, a, m) for d in DATA for a in ARCHS for m in MODELS} >= PUBLISHED.keys()
    for wrong in ("static=", "mnist", "=x", "static static=x.npz"):
        with pytest.raises(UsageError, match="--data must be different ones of static"):
            parse(tables.Config, ["--data", *wrong.split()])
    assert parse(tables.Config, ["--data", "static=a=b.npz"]).data == ("static=a=b.npz",)


def test_the_bound_of_few_images_with_many_samples_stands_for_that_of_all(monkeypatch):
    rng, number, chosen = np.random.default_rng(0), 40, 10
    few, gain = rng.normal(-90, 20, number), rng.gamma(2.0, 1.0, number)

    def losses(images, *, samples):
        of = images.reshape(-1)
        bound = few[of] + (gain[of] if samples > measure.FEW else 0)
        return ImageLosses(-bound - 3, np.full(len(of), 5.0), bound)

    found = []
    for _ in range(2000):
        split = Split(rng.permutation(number).astype(np.uint8).reshape(-1, 1, 1, 1), None)
        found.append(measure.bounds(SimpleNamespace(losses=losses), split, 5000, chosen, number))
    values = np.array([each["nll"] for each in found])
    error = np.sqrt(np.mean([each["nll_se"] ** 2 for each in found]))
    assert values.mean() == pytest.approx(-(few + gain).mean(), abs=5 * error / np.sqrt(len(values)))
    assert values.std() == pytest.approx(error, rel=0.08)
    assert found[0]["loss"] == pytest.approx(2 - few.mean())
    every = measure.bounds(SimpleNamespace(losses=losses), split, 5000, number, number)
    assert (every["nll"], every["nll_se"]) == (pytest.approx(-(few + gain).mean()), 0)
    part = measure.bounds(SimpleNamespace(losses=losses), split, 5000, number, 15)
    assert (part["images"], part["of_images"]) == (15, 40)


def numbers(nll, **more):
    common = {"nll": nll, "nll_se": 0.04, "loss": nll + 3, "kl": 26.0, "active_units": 39, "latent_dim": 40}
    common |= {"train_nll": nll - 1, "seconds": 360.0, "epochs": 36, "steps": 90, "samples": 5000}
    return common | {"nll_images": 1000, "images": 10_000, "device": "cpu"} | more


TRAINED = {"minutes": 10.0, "steps": None, "learning_rate": 2e-3, "batch_size": 125, "patience": 50, "kl_warmup": 0.0}


def test_the_text_says_seeds_intervals_stops_and_collapses_and_sets_what_is_published_beside():
    row = {"arch": "gated", "steps": 100, "trained": TRAINED}
    rows = [
        row | {"data": "dynamic", "model": "vae", "seeds": {"0": numbers(85.0), "1": numbers(86.0, steps=100)}},
        row | {"data": "dynamic", "model": "flow", "seeds": {"0": numbers(83.0, kl=0.2)}},
        row | {"data": "omniglot", "model": "vae", "seeds": {"0": numbers(110.0, steps=100)}},
    ]
    text = text_of(rows)
    vae, flow = (next(line for line in text.splitlines() if name in line) for name in ("N(0, I)", "flow prior"))
    assert "| 85.50 ± 6.35 | 0.04 |        2 |" in vae
    assert "| 84.50 [M] / 84.45 [V2] |        +1.00 |" in vae
    assert "6.0 min, 36 epochs, 1 stopped |" in vae
    assert "| one seed |" in flow
    assert "36 epochs, stopped |" in flow
    assert "below 1 nat: gated: flow prior." in text
    assert "- 84.50: Tomczak & Welling 2018 [M]" in text
    of_omniglot = text.partition("Omniglot")[2].partition("NLL:")[0]
    assert "published" not in of_omniglot  # scaled and split otherwise: never beside Burda's
    lines = list(csv.DictReader(csv_text(rows).splitlines()))
    assert [line["published"] for line in lines] == ["84.5", "84.5", "", ""]
    assert lines[0]["flag_minutes"] == "10.0"


def test_every_protocol_is_that_of_the_rows_and_ours_and_its_machines_stand_beside_it():
    row = {"data": "dynamic", "model": "vae", "steps": 100, "trained": TRAINED, "seeds": {"0": numbers(86.0)}}
    gated, mlp = (row | {"arch": arch} for arch in ("gated", "mlp"))
    text = text_of([gated])
    assert "Trained on cpu." in text
    assert "learning rate 5e-4, batch 100, KL warm-up over 100 epochs" in text
    assert "learning rate 0.002, which falls along one cosine, batch 125" in text
    assert "Burda" not in text
    text = text_of([mlp | {"seeds": {"0": numbers(86.0, device="NVIDIA H200")}}])
    assert "2,000 epochs" not in text
    assert "3,280 epochs in eight stages" in text
    assert "V for the protocol: the protocol was read there" in text
    text = text_of(
        [gated, mlp | {"trained": {**TRAINED, "batch_size": 20}, "seeds": {"0": numbers(86.0, device="GPU")}}]
    )
    assert "batch 125 or 20, Adam" in text
    assert (
        "on cpu (dynamic MNIST, gated: VAE, N(0, I)); on GPU (dynamic MNIST, MLP of Burda et al.: VAE, N(0, I))."
        in text
    )
