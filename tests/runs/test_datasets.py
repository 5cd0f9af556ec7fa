"""Where a run's data set is looked for."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from vae_jax.config import Settings
from vae_jax.data.loading import load_dataset
from vae_jax.errors import UsageError
from vae_jax.runs.datasets import find_dataset

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 6, 5), np.uint8)


def test_an_explicit_data_dir_leaves_out_the_recorded_place(tmp_path):
    for folder, images in (("then", IMAGES), ("now", 255 - IMAGES)):
        (tmp_path / folder).mkdir()
        np.savez(tmp_path / folder / "own.npz", images=images)
    path = tmp_path / "then" / "own.npz"
    settings = Settings(dataset=str(path), data_dir=tmp_path / "then")
    record = {"name": "own", "sha256": load_dataset(path).sha256}
    for place in (None, tmp_path / "then"):  # what was recorded, also where it is given again
        np.testing.assert_array_equal(find_dataset(settings, record, place).test.images, load_dataset(path).test.images)
    with pytest.raises(UsageError, match="was not found") as error:
        find_dataset(settings, record, tmp_path / "now")
    assert str(tmp_path / "now" / "own.npz") in str(error.value)
    assert str(path) not in str(error.value)


def test_settings_that_a_source_does_not_take_hide_no_data(tmp_path):
    (tmp_path / "pictures").mkdir()
    for i, image in enumerate(IMAGES):
        Image.fromarray(image).save(tmp_path / "pictures" / f"{i:02}.png")
    np.savez(tmp_path / "own.npz", images=IMAGES)
    settings = Settings(dataset=str(tmp_path / "pictures"), background="black", skip_damaged=True)
    record = {"name": "pictures", "sha256": load_dataset(tmp_path / "pictures").sha256}
    assert find_dataset(settings, record).source == f"images in {tmp_path / 'pictures'}"
    assert find_dataset(settings, record, tmp_path / "own.npz").source == str(tmp_path / "own.npz")
    digits = dataclasses.replace(settings, dataset="digits", data_dir=tmp_path)
    record = {"name": "digits", "sha256": load_dataset("digits").sha256}
    assert find_dataset(digits, record).name == "digits"
