"""The commands on a conditional run: where they take the class from, and what they say without one."""

import csv
import shutil

import numpy as np
import pytest
from PIL import Image

import vae_jax
from vae_jax.__main__ import tool
from vae_jax.cli import figures
from vae_jax.models.conditions import conditions_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory, digits):
    """Pictures of two classes in `data`, a run on them, and some that lie in no folder of a class."""
    root = tmp_path_factory.mktemp("conditional")
    for name, label in (("cat", 0), ("dog", 1)):
        for number, image in enumerate(digits.train.images[digits.train.labels == label][:24]):
            for file in (root / "data" / name / f"{number}.png", root / "loose" / f"{name}{number}.png"):
                file.parent.mkdir(parents=True, exist_ok=True)
                if file.parent.name != "loose" or number < 2:
                    Image.fromarray(image[..., 0]).save(file)
    dataset = vae_jax.load_dataset(root / "data")
    settings = vae_jax.Settings(
        condition="labels", hidden_sizes=(4,), latent_dim=2, epochs=20, batch_size=16, dataset=str(root / "data")
    )
    model = vae_jax.build_model(settings, dataset.image_shape, conditions_of(settings, dataset))
    vae_jax.train_run(root / "run", model, settings, dataset)
    return root


def means(path):
    with np.load(path) as arrays:
        return arrays["means"]


def test_images_are_encoded_by_the_class_of_their_folder_or_of_the_flag(folder, tmp_path):
    run = vae_jax.load_run(folder / "run")
    assert run.classes == {"cat": 0, "dog": 1}
    shutil.copytree(folder / "data" / "dog", tmp_path / "some" / "dog")  # named otherwise by what is read alone
    tool(["encode", str(folder / "run"), str(tmp_path / "some"), "--output", str(tmp_path / "z.npz")])
    files = sorted((tmp_path / "some" / "dog").iterdir())
    images = np.stack([np.asarray(Image.open(file)) for file in files])[..., None]
    np.testing.assert_allclose(means(tmp_path / "z.npz"), run.encode(images, "dog").means, atol=1e-5)
    assert np.abs(means(tmp_path / "z.npz") - run.encode(images, "cat").means).max() > 1e-3
    for label in ("dog", "1"):
        arguments = ["encode", str(folder / "run"), str(tmp_path / "some" / "dog"), "--label", label]
        tool([*arguments, "--output", str(tmp_path / f"{label}.npz")])
        np.testing.assert_array_equal(means(tmp_path / f"{label}.npz"), means(tmp_path / "z.npz"))


def test_every_command_on_images_takes_the_class(folder, tmp_path, capsys):
    run, loose = str(folder / "run"), str(folder / "loose")
    tool(["reconstruct", run, loose, "--label", "cat", "--output", str(tmp_path / "rebuilt")])
    tool(["nearest", run, loose, "--label", "dog", "--output", str(tmp_path / "nearest.csv")])
    tool(["calibrate", run, "--false-alarm-rate", "0.4"])
    tool(["score", run, loose, "--label", "dog", "--output", str(tmp_path / "scores.csv")])
    with (tmp_path / "scores.csv").open() as file:
        found = [float(row["relative_error"]) for row in csv.DictReader(file)]
    restored, files = vae_jax.load_run(run), ("cat0.png", "cat1.png", "dog0.png", "dog1.png")
    images = np.stack([np.asarray(Image.open(folder / "loose" / file)) for file in files])[..., None]
    rebuilt, pixels = restored.reconstruct(images, "dog"), images / np.float32(255)
    expected = ((rebuilt - pixels) ** 2).sum((1, 2, 3)) / (pixels**2).sum((1, 2, 3))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    ends = [str(folder / "loose" / name) for name in ("cat0.png", "cat1.png")]
    tool(["interpolate", run, *ends, "--label", "cat", "--output", str(tmp_path / "way.png")])
    tool(["plot", run, "--output", str(tmp_path / "plots"), "--grid-size", "3", "--interpolations", "1"])
    assert {file.name for file in (tmp_path / "plots").iterdir()} >= {"traversals.png", "interpolations.png"}


def test_images_are_generated_of_a_class_or_of_all_in_turn_and_named(folder, tmp_path, capsys):
    run = vae_jax.load_run(folder / "run")

    def generate(name, *flags):
        tool(["generate", str(run.path), "--output", str(tmp_path / name), "--seed", "5", *flags])
        return capsys.readouterr().out

    assert "3 new images of dog: " in generate("dogs", "--number", "3", "--label", "dog")
    assert "3 new images, 2 classes in turn: " in generate("all", "--number", "3")
    for name, files, label in (
        ("dogs", ["0-dog", "1-dog", "2-dog"], "dog"),
        ("all", ["0-cat", "1-dog", "2-cat"], None),
    ):
        assert sorted(file.stem for file in (tmp_path / name).iterdir()) == files
        images = run.generate(3, label=label, seed=5)
        for file, image in zip(files, images, strict=True):
            with Image.open(tmp_path / name / f"{file}.png") as written:
                assert np.abs(np.asarray(written) - 255 * image[..., 0]).max() < 0.51
    generate("sheet.png", "--number", "7")
    generate("dogs.png", "--number", "4", "--label", "1")
    with Image.open(tmp_path / "dogs.png") as sheet:
        assert sheet.size == (16, 16)


def test_the_figures_of_a_run_show_the_classes(folder, tmp_path):
    run, dataset = vae_jax.load_run(folder / "run"), vae_jax.load_dataset(folder / "data")
    run = run._replace(path=tmp_path, config=vae_jax.Settings(condition="labels", grid_size=2))
    figures.draw_run(run, run.encode(dataset.test.images, dataset.test.labels), dataset, run.summary["test"])
    assert (tmp_path / "figures" / "conditions.png").exists()
    assert figures.headline(run, None) == "data · conditional VAE, 2 latent dimensions"


@pytest.mark.slow
def test_a_run_that_infers_classes_needs_none_of_the_images(folder, tmp_path, capsys):
    flags = ["--condition", "inferred", "--labels", "8", "--hidden-sizes", "4", "--epochs", "20", "--grid-size", "2"]
    run, loose = str(tmp_path / "run"), str(folder / "loose")
    tool(["train", str(folder / "data"), *flags, "--run-dir", run, "--no-compilation-cache"])
    assert "error of the classifier" in capsys.readouterr().out
    tool(["encode", run, loose, "--output", str(tmp_path / "z.csv")])
    tool(["calibrate", run, "--false-alarm-rate", "0.4"])
    tool(["score", run, loose, "--output", str(tmp_path / "scores.csv")])
    tool(["reconstruct", run, loose, "--output", str(tmp_path / "rebuilt")])
    tool(["generate", run, "--label", "cat", "--number", "2", "--output", str(tmp_path / "cats")])
    with (tmp_path / "z.csv").open() as file:
        rows = [*csv.DictReader(file)]
    restored = vae_jax.load_run(run)
    images = np.stack([np.asarray(Image.open(folder / "loose" / row["file"])) for row in rows])[..., None]
    assert [row["class"] for row in rows] == [["cat", "dog"][i] for i in restored.classify(images).argmax(axis=1)]
    found = [[float(row["z1"]), float(row["z2"])] for row in rows]
    np.testing.assert_allclose(found, restored.encode(images).means, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["encode", "RUN", "LOOSE"], ["loose must say the class of each image", "Give --label, one of cat, dog, or"]),
        (["encode", "RUN", "LOOSE", "--label", "cow"], ["--label must be a class that", "got 'cow'", "cat, dog"]),
        (["generate", "RUN", "--label", "2"], ["--label must be a class that", "got '2'"]),
        (["interpolate", "RUN", "PICTURE", "PICTURE"], ["must say the class", "--label"]),
        (["compress", "RUN", "LOOSE", "OUT"], ["compress needs a run that sees no class", "--condition none"]),
        (["encode", "PLAIN", "LOOSE", "--label", "3"], ["--label 3 has no effect", "Leave --label out"]),
        (["generate", "PLAIN", "--label", "3"], ["--label 3 has no effect", "without --condition"]),
    ],
    ids=lambda value: " ".join(value) if value[0].islower() else "",
)
def test_a_class_that_is_missing_unknown_or_without_effect_is_refused(
    arguments, words, folder, finished_run, tmp_path, capsys
):
    places = {"RUN": folder / "run", "PLAIN": finished_run, "LOOSE": folder / "loose", "OUT": tmp_path / "out"}
    places["PICTURE"] = folder / "loose" / "cat0.png"
    with pytest.raises(SystemExit) as stop:
        tool([str(places.get(argument, argument)) for argument in arguments])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert len(error.strip().splitlines()) <= 2
    for word in words:
        assert word in error
