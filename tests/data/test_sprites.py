import numpy as np
import pytest

from vae_jax.data import sprites
from vae_jax.data.loading import load_dataset
from vae_jax.data.split import Split
from vae_jax.errors import UsageError

PLACES = np.arange(sprites.NUMBER).reshape(*sprites.FACTORS.values())


def drawn(places):
    return sprites.draw(sprites.factors_of(np.ravel(places))).reshape(*np.shape(places), sprites.SIDE, sprites.SIDE)


MIDDLE = drawn(PLACES[..., 16, 16])


def test_every_shape_has_the_area_of_its_scale_and_stays_within_the_image():
    assert set(np.unique(MIDDLE)) == {0, 255}
    areas = (MIDDLE > 0).sum(axis=(-2, -1))
    wanted = 400 * np.linspace(0.5, 1, 6) ** 2
    np.testing.assert_allclose(areas.mean(axis=2), np.tile(wanted, (3, 1)), rtol=0.04)
    np.testing.assert_allclose(areas[:, -1], 400, rtol=0.12)  # a square on the pixels has whole rows more
    corners = drawn(PLACES[..., [0, -1], :][..., [0, -1]])
    np.testing.assert_array_equal(
        (corners > 0).sum(axis=(-2, -1)), np.broadcast_to(areas[..., None, None], (3, 6, 40, 2, 2))
    )


def test_a_position_moves_the_shape_by_pixels_and_the_centroid_lies_there():
    for x, y in ((0, 0), (31, 5), (7, 31)):
        moved = drawn(PLACES[..., x, y])
        np.testing.assert_array_equal(moved, np.roll(MIDDLE, (y - 16, x - 16), axis=(-2, -1)))
    weights = MIDDLE / MIDDLE.sum(axis=(-2, -1), keepdims=True)
    for axis in (-2, -1):
        along = weights.sum(axis=axis) @ np.arange(sprites.SIDE)
        np.testing.assert_allclose(along, 32, atol=0.25)
        assert abs(along.mean() - 32) < 0.01


def test_shapes_are_symmetric_as_they_should_be_and_turn_counter_clockwise():
    square, ellipse, heart = MIDDLE
    for shape, turns in ((square, 4), (ellipse, 2)):
        np.testing.assert_array_equal(shape, np.roll(shape, 40 // turns, axis=1))
        different = {image.tobytes() for image in shape[-1]}
        assert len(different) == 40 // turns
    assert len({image.tobytes() for image in heart[-1]}) == 40
    window = np.s_[:, :, 16:49, 16:49]
    for shape in (square, ellipse, heart):
        quarter = np.rot90(shape[window], axes=(-2, -1))
        assert np.mean(quarter != np.roll(shape[window], -10, axis=1)) < 2e-3  # points on a border fall either way
    for shape in (ellipse, heart):
        np.testing.assert_array_equal(shape[window][:, 0], shape[window][:, 0, :, ::-1])
    # Upright: the heart has its two bows above and its corner below, the ellipse lies.
    top, bottom = heart[-1, 0, :32].any(axis=-1), heart[-1, 0, 33:].any(axis=-1)
    assert bottom.sum() > top.sum()
    assert ellipse[-1, 0].any(axis=0).sum() > 1.8 * ellipse[-1, 0].any(axis=1).sum()


def test_the_images_come_by_their_number_with_factors_that_go_where_they_go():
    data = load_dataset("dsprites-500")
    sizes = {name: len(split) for name, split in data.splits.items()}
    assert sizes == {"train": 360, "validation": 40, "test": 100}
    assert data.class_names == sprites.SHAPES
    assert data.factor_names == tuple(sprites.FACTORS)
    for split in data.splits.values():
        np.testing.assert_array_equal(split.images[..., 0], sprites.draw(split.factors))
        np.testing.assert_array_equal(split.labels, split.factors[:, 0])
    some = data.train.rows(slice(3, 9)).of_classes((0, 1))
    np.testing.assert_array_equal(some.images[..., 0], sprites.draw(some.factors))
    every = np.concatenate([split.factors for split in data.splits.values()])
    assert len(np.unique(every, axis=0)) == 500
    assert load_dataset("dsprites-500").sha256 == data.sha256
    fewer = np.concatenate([split.factors for split in load_dataset("dsprites-50").splits.values()])
    assert {tuple(row) for row in fewer.tolist()} < {tuple(row) for row in every.tolist()}
    means = every / (np.array([*sprites.FACTORS.values()]) - 1)
    np.testing.assert_allclose(means.mean(axis=0), 0.5, atol=5 * 0.42 / np.sqrt(500))


def test_a_number_that_is_none_is_refused_and_a_name_that_is_like_it_is_none():
    assert sprites.asked_for("dsprites") == 73_728
    assert sprites.asked_for("dsprites-x") is None
    for given in ("dsprites-9", "dsprites-737281"):
        with pytest.raises(UsageError, match=r"must have an N from 10 to 737280, got 'dsprites"):
            load_dataset(given)
    with pytest.raises(UsageError, match=r"factors must be \[2, factors\], a row an image, got \(3, 1\)"):
        Split(np.zeros((2, 4, 4), np.uint8), factors=np.zeros((3, 1), int))
