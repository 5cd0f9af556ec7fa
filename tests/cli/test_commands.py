"""The commands on a run: what they write is what `Run` gives, and what is there is never overwritten."""

import csv
import json
import shutil
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import vae_jax
from experiments.study import trained_together
from vae_jax import codecs
from vae_jax.__main__ import tool
from vae_jax.cli.command import parse
from vae_jax.cli.defaults import About, decided, in_words
from vae_jax.cli.outputs import check_name
from vae_jax.cli.session import load
from vae_jax.cli.train import TrainConfig
from vae_jax.codecs import container
from vae_jax.combinations import check_settings
from vae_jax.config import Settings
from vae_jax.data.split import Split


@pytest.fixture
def pictures(tmp_path, digits):
    """A folder of pictures in two classes, the images in the order of their names, and their labels."""
    images = digits.test.images[:5]
    for name, image in zip(FILES, images, strict=True):
        (tmp_path / "pics" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(tmp_path / "pics" / name)
    np.savez(tmp_path / "mine.npz", images=images, labels=[3, 1, 4, 1, 5])
    return tmp_path, images


FILES = ["cat/a.png", "cat/b.png", "dog/10.bmp", "dog/10.png", "dog/11.png"]


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused_again(arguments, folder, capsys):
    """A second call refuses, and what the first one wrote stays."""
    before = content(folder)
    with pytest.raises(SystemExit) as stop:
        tool(arguments)
    assert stop.value.code == 2
    assert "nothing is overwritten" in capsys.readouterr().err
    assert content(folder) == before


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_encode_writes_a_table_with_the_names_of_the_files(finished_run, pictures, capsys):
    folder, images = pictures
    arguments = ["encode", str(finished_run), str(folder / "pics")]
    tool(arguments)
    rows, run = table(folder / "pics-codes.csv"), vae_jax.load_run(finished_run)
    assert list(rows[0]) == ["file", "z1", "z2", "label"]
    assert [row["file"] for row in rows] == FILES
    assert [row["label"] for row in rows] == ["cat", "cat", "dog", "dog", "dog"]
    written = np.array([[row["z1"], row["z2"]] for row in rows]).astype(np.float32)
    np.testing.assert_array_equal(written, run.encode(images).means)
    refused_again(arguments, folder, capsys)


def test_encode_writes_arrays(finished_run, pictures, capsys):
    folder, images = pictures
    codes = vae_jax.load_run(finished_run).encode(images)
    for source, named in (("pics", {"files"}), ("mine.npz", set())):
        output = folder / f"{source}-z.npz"
        tool(["encode", str(finished_run), str(folder / source), "--output", str(output)])
        with np.load(output) as file:
            assert set(file.files) == {"means", "logvars", "labels", *named}
            np.testing.assert_array_equal(file["means"], codes.means)
            np.testing.assert_array_equal(file["logvars"], codes.logvars)
            assert file["labels"].tolist() == (["cat", "cat", "dog", "dog", "dog"] if named else [3, 1, 4, 1, 5])
            assert not named or file["files"].tolist() == FILES
    tool(["encode", str(finished_run), str(folder / "mine.npz")])
    assert [row["index"] for row in table(folder / "mine-codes.csv")] == ["0", "1", "2", "3", "4"]


def test_pictures_of_another_size_become_what_the_runs_own_became(tmp_path, capsys):
    for i in range(8):
        image = np.random.default_rng(i).integers(0, 256, (9 + i, 14 - i, 3), np.uint8)
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "photos" / f"{i}.png")
    dataset = vae_jax.load_dataset(tmp_path / "photos", image_size="6x7", fit="pad")
    settings = Settings(dataset=str(tmp_path / "photos"), hidden_sizes=(4,), epochs=1, batch_size=4)
    vae_jax.train_run(tmp_path / "run", vae_jax.build_model(settings, dataset.image_shape), settings, dataset)
    run = vae_jax.load_run(tmp_path / "run")
    images = {f: x for split in dataset.splits.values() for f, x in zip(split.files, split.images, strict=True)}
    codes = run.encode(np.stack([images[f"{i}.png"] for i in range(8)])).means
    for given, expected in (("photos", codes), ("photos/3.png", codes[3:4])):
        tool(["encode", str(run.path), str(tmp_path / given), "--output", str(tmp_path / "z.npz")])
        with np.load(tmp_path / "z.npz") as file:
            np.testing.assert_allclose(file["means"], expected, atol=1e-6)
        (tmp_path / "z.npz").unlink()
    tool(["verify", str(run.path)])  # the data are found again, as the run knows their size
    assert "photos: the same" in capsys.readouterr().out


def test_damaged_files_are_left_out_where_that_is_asked_for(finished_run, pictures, capsys):
    folder, _ = pictures
    (folder / "pics" / "cat" / "a.png").write_bytes(b"none")
    arguments = ["encode", str(finished_run), str(folder / "pics")]
    with pytest.raises(SystemExit):
        tool(arguments)
    assert "a.png" in capsys.readouterr().err
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        tool([*arguments, "--skip-damaged"])
    assert "left out, as they can't be read (1): cat/a.png" in capsys.readouterr().err
    assert [row["file"] for row in table(folder / "pics-codes.csv")] == FILES[1:]


def test_reconstruct_writes_each_image_beside_its_reconstruction(finished_run, pictures, capsys):
    folder, images = pictures
    arguments = ["reconstruct", str(finished_run), str(folder / "pics")]
    tool(arguments)
    said = capsys.readouterr().out
    assert "trained on clean images" in said
    output = folder / "pics-reconstructed"
    rebuilt = vae_jax.load_run(finished_run).reconstruct(images)
    rows = table(output / "reconstruct.csv")
    # Two of the files differ in their ending only, so that all names are kept whole.
    assert {str(path.relative_to(output)) for path in output.rglob("*.png")} == {f"{name}.png" for name in FILES}
    for name, image, again, row in zip(FILES, images, rebuilt, rows, strict=True):
        left, right = np.split(pixels(output / f"{name}.png"), 2, axis=1)
        np.testing.assert_array_equal(left, image[..., 0])
        np.testing.assert_array_equal(right, np.rint(255 * again[..., 0]).astype(np.uint8))
        error = np.mean((image.astype(np.float64) / 255 - again) ** 2)
        assert row["file"] == name
        assert float(row["psnr"]) == pytest.approx(-10 * np.log10(error), abs=1e-4)
    assert f"{np.mean([float(row['psnr']) for row in rows]):.2f} dB" in said
    refused_again(arguments, folder, capsys)
    (folder / "empty").mkdir()
    tool(["reconstruct", str(finished_run), str(folder / "pics" / "cat"), "--output", str(folder / "empty")])
    assert {path.name for path in (folder / "empty").iterdir()} == {"a.png", "b.png", "reconstruct.csv"}


def test_nearest_finds_the_training_images_whose_codes_are_nearest(finished_run, pictures, digits, capsys):
    folder, images = pictures
    arguments = ["nearest", str(finished_run), str(folder / "pics"), "--number", "3"]
    tool(arguments)
    assert pixels(folder / "pics-nearest.png").shape[0] > 100
    refused_again(arguments, folder, capsys)
    tool([*arguments, "--output", str(folder / "mine.csv")])
    run = vae_jax.load_run(finished_run)
    ours, theirs = run.encode(images).means, run.encode(digits.train.images).means
    distances = np.sqrt(((ours[:, None] - theirs[None]) ** 2).sum(axis=2))
    for row, file, each in zip(table(folder / "mine.csv"), FILES, distances, strict=True):
        assert row["file"] == file
        assert [int(row[f"nearest_{i}"]) for i in (1, 2, 3)] == np.argsort(each)[:3].tolist()
        assert float(row["distance_3"]) == pytest.approx(np.sort(each)[2], rel=1e-4)
    # An image of the training set is nearest to itself.
    np.savez(folder / "known.npz", images=digits.train.images[7:9])
    tool(["nearest", str(finished_run), str(folder / "known.npz"), "--output", str(folder / "known.csv")])
    assert [row["nearest_1"] for row in table(folder / "known.csv")] == ["7", "8"]


def test_interpolate_draws_the_way_between_two_pictures(finished_run, pictures, capsys):
    folder, _ = pictures
    arguments = ["interpolate", str(finished_run), *(str(folder / "pics" / FILES[i]) for i in (0, 3))]
    tool(arguments)
    assert pixels(folder / "pics" / "cat" / "a-interpolated.png").shape[1] > 200
    refused_again(arguments, folder, capsys)
    with pytest.raises(SystemExit):
        tool([*arguments[:3], str(folder / "pics" / "dog"), "--output", str(folder / "way.png")])
    assert "dog must be one picture, got 3 images" in capsys.readouterr().err


def test_generate_writes_what_the_run_generates(finished_run, tmp_path, capsys):
    output, sheet = tmp_path / "new", tmp_path / "sheet.png"
    flags = ["generate", str(finished_run), "--number", "5", "--seed", "3", "--output"]
    tool([*flags, str(output)])
    tool([*flags, str(sheet)])
    images = np.rint(255 * vae_jax.load_run(finished_run).generate(5, seed=3)).astype(np.uint8)[..., 0]
    tool([*flags, str(tmp_path / "typical"), "--temperature", "0"])
    (centre,) = np.rint(255 * vae_jax.load_run(finished_run).decode(np.zeros((1, 2)))).astype(np.uint8)[..., 0]
    np.testing.assert_array_equal(pixels(tmp_path / "typical" / "4.png"), centre)
    assert {path.name for path in output.iterdir()} == {f"{i}.png" for i in range(5)}
    for i, image in enumerate(images):
        np.testing.assert_array_equal(pixels(output / f"{i}.png"), image)
    expected = np.full((16, 24), 255, np.uint8)
    for i, image in enumerate(images):
        expected[8 * (i // 3) :, 8 * (i % 3) :][:8, :8] = image
    np.testing.assert_array_equal(pixels(sheet), expected)
    for name in (output, sheet):
        refused_again([*flags, str(name)], tmp_path, capsys)


def test_explore_writes_one_page_and_says_what_is_in_it(finished_run, tmp_path, capsys):
    output = tmp_path / "page.html"
    arguments = ["explore", str(finished_run), "-o", str(output), "--images", "3"]
    tool(arguments)
    said = capsys.readouterr().out
    assert "the codes of 359 test images and 3 of the images themselves" in said
    assert f"{output}: {output.stat().st_size / 1e6:.2f} MB" in said
    assert "<title>run: latent space</title>" in output.read_text("utf-8")
    refused_again(arguments, tmp_path, capsys)


@pytest.mark.parametrize(
    ("channels", "model", "mode", "said"),
    [(2, "vae", "L", "channel 1 of 2"), (3, "ae", "RGB", "new"), (4, "vae", "RGB", "channels 1 to 3 of 4")],
)
def test_images_come_out_in_grey_or_colour_and_no_channel_becomes_transparency(
    channels, model, mode, said, tmp_path, capsys
):
    images = np.random.default_rng(0).integers(0, 256, (40, 4, 6, channels), dtype=np.uint8)
    np.savez(tmp_path / "mine.npz", images=images)
    data = vae_jax.load_dataset(tmp_path / "mine.npz")
    settings = Settings(model=model, dataset=str(tmp_path / "mine.npz"), hidden_sizes=(4,), epochs=1, batch_size=8)
    run = trained_together([tmp_path / "run"], [settings], data)[0]
    tool(["generate", str(run.path), "--number", "2"])
    assert said in capsys.readouterr().out
    seen = slice(0, 3 if mode == "RGB" else 1)
    expected = run.generate(2, codes=run.encode(data.validation.images))[..., seen]
    for i in range(2):
        with Image.open(tmp_path / "run-generated" / f"{i}.png") as image:
            assert image.mode == mode
            found = np.asarray(image).reshape(4, 6, -1)
        np.testing.assert_array_equal(found, np.rint(255 * np.clip(expected[i], 0, 1)))
    tool(["reconstruct", str(run.path), str(tmp_path / "mine.npz")])
    shown = pixels(tmp_path / "mine-reconstructed" / "39.png").reshape(4, 12, -1)
    np.testing.assert_array_equal(shown[:, :6], images[39][..., seen])
    tool(["encode", str(run.path), str(tmp_path / "mine.npz"), "--output", str(tmp_path / "z.npz")])
    with np.load(tmp_path / "z.npz") as file:
        assert file.files == (["means"] if model == "ae" else ["means", "logvars"])


def test_few_images_make_a_smaller_batch_and_a_folder_may_have_a_dot(tmp_path, capsys):
    images = np.random.default_rng(0).integers(0, 256, (60, 4, 6, 1), dtype=np.uint8)
    np.savez(tmp_path / "mine.npz", images=images, labels=np.arange(60) % 3)
    few = TrainConfig(dataset=str(tmp_path / "mine.npz"), run_dir=tmp_path / "photos.me", hidden_sizes=(4,))
    check_name(few.run_dir, "", flag="--run-dir")
    for config, size in ((few, 32), (replace(few, classes=(0,)), 15), (replace(few, batch_size=8), 8)):
        assert load(config)[1].settings.batch_size == size
        assert (f"training images: --batch-size {size}." in capsys.readouterr().out) == (size != 8)


@pytest.mark.parametrize(
    ("flags", "shape", "wanted", "said"),
    [
        ("", (28, 28, 1), ("mlp", "bernoulli", 2, 256, 3e-3), ""),
        (
            "",
            (32, 32, 3),
            ("residual", "discretized_logistic", 1024, 32, 6e-3),
            "For images of 32x32 with 3 channels: --arch residual --likelihood discretized_logistic --latent-dim 1024 "
            "--batch-size 32 --learning-rate 0.006.",
        ),
        ("--latent vector", (64, 48, 1), ("residual", "discretized_logistic", 128, 32, 2e-3), "64x48 in grey"),
        ("--binarize dynamic", (64, 64, 1), ("residual", "bernoulli", 4096, 32, 6e-3), "--latent-dim 4096"),
        ("--arch conv --latent-dim 9", (32, 32, 3), ("conv", "discretized_logistic", 9, 256, 3e-3), "--likelihood"),
        (
            "--arch mlp --likelihood gaussian --batch-size 7 --learning-rate 1 --latent-dim 3",
            (9, 9, 3),
            ("mlp", "gaussian", 3, 7, 1.0),
            "",
        ),
    ],
)
def test_what_the_command_line_leaves_open_is_decided_by_the_images_and_said(flags, shape, wanted, said):
    config = parse(TrainConfig, flags.split())
    found = decided(config, About(shape, 1000))
    assert (found.arch, found.likelihood, found.latent_dim, found.batch_size, found.learning_rate) == wanted
    words = in_words(config, found, About(shape, 1000))
    assert words.startswith(said) if said.startswith("For") else said in words
    assert bool(words) == bool(said)


PLANE = {"hidden_sizes": (256,) * 4, "fourier_features": 64, "learning_rate": 2e-3, "epochs": 20}
NO_PLANE = {"hidden_sizes": None, "fourier_features": 0, "learning_rate": 3e-3, "epochs": None}


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ("", PLANE),
        ("--latent-dim 1", PLANE),
        ("--fourier-features 0 --hidden-sizes 9", PLANE | {"fourier_features": 0, "hidden_sizes": (9,)}),
        ("--epochs 7", PLANE | {"epochs": 7}),
        ("--steps 9", PLANE | {"epochs": None}),
        ("--minutes 1", PLANE | {"epochs": None}),
        *((flags, NO_PLANE) for flags in ("--latent-dim 3", "--arch gated", "--arch conv", "--binarize threshold")),
        *((flags, NO_PLANE) for flags in ("--likelihood beta_binomial", "--model ae", "--condition labels")),
        *((flags, NO_PLANE) for flags in ("--prior flow", "--posterior householder", "--objective iwae")),
    ],
)
def test_a_plane_of_many_images_has_a_recipe_of_its_own_that_is_said(flags, wanted):
    about, config = About((28, 28, 1), 10_000), parse(TrainConfig, flags.split())
    found = decided(config, about)
    assert {name: getattr(found, name) for name in wanted} == wanted
    check_settings(found)
    assert decided(found, about) == found
    said = in_words(config, found, about)
    for name in wanted:
        chosen = getattr(config, name) is None and wanted[name] != getattr(Settings, name)
        assert (f"--{name.replace('_', '-')} " in said) == chosen
    given = {name: getattr(config, name) for name in wanted if getattr(config, name) is not None}
    binary = About((28, 28, 1), 10_000, Split(np.full((9, 28, 28, 1), 255, np.uint8), None))
    for other in (About((28, 28, 1), 9_999), binary):
        found = decided(config, other)
        assert {name: getattr(found, name) for name in wanted} == NO_PLANE | given


def test_images_of_two_values_are_known():
    grey = np.zeros((3, 4, 5, 1), np.uint8)
    about = About.of(Split(grey, None))
    assert (about.image_shape, about.images, about.binary) == ((4, 5, 1), 3, True)
    grey[2, 3, 4] = 254
    assert not About.of(Split(grey, None)).binary


def test_scores_name_the_files(finished_run, pictures, tmp_path, capsys):
    folder, _ = pictures
    known = {"score": "relative_error", "threshold": 0.5, "false_alarm_rate": 0.1, "validation_images": 9, "samples": 1}
    run = tmp_path / "run"
    run.symlink_to(finished_run)
    step = vae_jax.load_run(run).step
    (run / "anomaly.json").write_text(json.dumps(known | {"neighbours": 5, "step": step}))
    try:
        tool(["score", str(run), str(folder / "pics")])
    finally:
        (run / "anomaly.json").unlink()
    rows = table(folder / "pics-scores.csv")
    assert list(rows[0]) == ["file", "relative_error", "threshold", "anomaly", "label"]
    assert [row["file"] for row in rows] == FILES
    for row in rows:
        assert int(row["anomaly"]) == (float(row["relative_error"]) > float(row["threshold"]) == 0.5)


def test_a_threshold_that_is_replaced_is_said(finished_run, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    said = []
    for score in ("kl", "kl", "relative_error"):
        tool(["calibrate", str(run), "--score", score, "--samples", "1"])
        said.append(capsys.readouterr().out)
    old = json.loads((run / "anomaly.json").read_text())
    assert [len(text.splitlines()) for text in said] == [2, 2, 3]
    assert said[2].startswith('In place of the threshold that was there: { "score": "kl", "threshold": ')
    (run / "anomaly.json").write_text("none")
    tool(["calibrate", str(run), "--samples", "1"])
    assert capsys.readouterr().out.startswith("In place of the threshold that was there: none\n")
    assert json.loads((run / "anomaly.json").read_text()) == old


def test_home_is_expanded_and_one_image_is_one_image(finished_run, digits, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run").symlink_to(finished_run)
    Image.fromarray(digits.test.images[0, ..., 0]).save(tmp_path / "one.png")
    tool(["encode", "~/run", "~/one.png", "--output", "~/Z.CSV"])  # its ending says the same in capital letters
    tool(["reconstruct", "~/run", "~/one.png", "--output=~/again"])
    tool(["generate", "~/run", "--number", "1"])
    said = capsys.readouterr().out
    assert f"1 image, 2 numbers each: {tmp_path / 'Z.CSV'}" in said
    assert f"1 image, mean PSNR {float(table(tmp_path / 'again' / 'reconstruct.csv')[0]['psnr']):.2f} dB" in said
    assert f"1 new image: {tmp_path / 'run-generated'}" in said
    assert [row["file"] for row in table(tmp_path / "Z.CSV")] == ["one.png"]
    config = parse(TrainConfig, ["~/one.png", "--run-dir", "~/new", "--data-dir=~"])
    assert (config.run_dir, config.data_dir) == (tmp_path / "new", tmp_path)
    assert not (tmp_path / "~").exists()


def test_verify_tells_good_from_damaged(finished_run, tmp_path, capsys):
    tool(["verify", str(finished_run)])
    assert "DAMAGED" not in capsys.readouterr().out
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(SystemExit) as stop:
        tool(["verify", str(tmp_path)])
    assert stop.value.code == 1
    assert "config.json" in capsys.readouterr().err


def test_images_are_compressed_to_a_file_and_back(finished_run, pictures, capsys, monkeypatch):
    folder, images = pictures
    run, packed, back = folder / "run", str(folder / "out"), str(folder / "back.npz")
    shutil.copytree(finished_run, run)  # the codec is kept there
    for arguments in (["compress", str(run), str(folder / "pics"), packed], ["decompress", str(run), packed, back]):
        tool(arguments)
        refused_again(arguments, folder, capsys)
    run = vae_jax.load_run(run)
    codec = container.read_codec(container.codec_path(run), 2)
    assert (folder / "out").read_bytes() == container.compress(run, codec, images, 6)
    with np.load(back) as file:
        np.testing.assert_array_equal(file["images"], container.decompress(run, codec, (folder / "out").read_bytes()))
    monkeypatch.delattr(codecs, "container")
    monkeypatch.setitem(sys.modules, "vae_jax.codecs.container", None)
    with pytest.raises(SystemExit) as stop:
        tool(["decompress", str(folder / "run"), packed, str(folder / "again.npz")])
    assert stop.value.code == 2
    assert "is not installed. Install it by pip install 'vae_jax[compress]'" in capsys.readouterr().err


def test_a_folder_of_some_classes_keeps_their_names(finished_run, pictures):
    folder, _ = pictures
    shutil.copytree(folder / "pics" / "dog", folder / "some" / "dog")
    tool(["encode", str(finished_run), str(folder / "some"), "--output", str(folder / "some.csv")])
    assert {row["label"] for row in table(folder / "some.csv")} == {"dog"}
    tool(["encode", str(finished_run), str(folder / "some"), "--output", str(folder / "some.npz")])
    with np.load(folder / "some.npz") as arrays:
        assert arrays["labels"].tolist() == ["dog"] * 3


def test_classes_called_by_numbers_are_chosen_by_their_names(tmp_path):
    for name in ("1", "2", "3"):
        for i in range(12):
            file = tmp_path / "numbered" / name / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((4, 4), 10 * int(name), np.uint8)).save(file)
    config = TrainConfig(dataset=str(tmp_path / "numbered"), classes=(2,), batch_size=4, hidden_sizes=(4,))
    dataset, recipe = load(config)
    assert recipe.settings.classes == (1,)
    assert set(np.asarray(dataset.train.images).ravel()) == {20}


def test_data_that_was_given_as_arrays_is_found_in_a_file(digits, tmp_path):
    dataset = vae_jax.Dataset("mine", digits.train, digits.validation, digits.test)
    settings = Settings(hidden_sizes=(4,), epochs=1)
    vae_jax.train_run(tmp_path / "run", vae_jax.build_model(settings, dataset.image_shape), settings, dataset)
    arrays = {"images": digits.train.images, "labels": digits.train.labels}
    for part, split in (("validation", digits.validation), ("test", digits.test)):
        arrays |= {f"{part}_images": split.images, f"{part}_labels": split.labels}
    np.savez(tmp_path / "mine.npz", **{name: np.asarray(array) for name, array in arrays.items()})
    assert tool(["verify", str(tmp_path / "run"), "--data-dir", str(tmp_path / "mine.npz")]) in (None, 0)
