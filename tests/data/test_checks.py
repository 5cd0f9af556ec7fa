"""The one check of images and labels, by type and shape: what is accepted keeps its meaning, the rest is named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_sources import check_message

from vae_jax.data.checks import as_images, as_labels, natural_sorted
from vae_jax.data.dataset import Split
from vae_jax.errors import UsageError

NOISE = np.random.default_rng(0).integers(0, 256, (20, 9, 10), np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (20, 9, 10, 3), np.uint8)
UNIT = NOISE / 255


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (NOISE, NOISE),
        (NOISE[..., None], NOISE),
        (NOISE > 127, np.where(NOISE > 127, 255, 0)),
        (NOISE.astype(np.int64), NOISE),
        (UNIT, NOISE),
        (UNIT.astype(np.float32), NOISE),
        (UNIT.astype(np.longdouble), NOISE),
        (UNIT.tolist(), NOISE),
        (list(NOISE), NOISE),
        (np.asfortranarray(NOISE)[::-1], NOISE[::-1]),
        (jnp.asarray(NOISE), NOISE),
        (jnp.asarray(UNIT, jnp.float32), NOISE),
        (jnp.asarray(NOISE > 127, jnp.bfloat16), np.where(NOISE > 127, 255, 0)),
        (np.zeros((4, 3, 3)), np.zeros((4, 3, 3))),
        (np.zeros((4, 3, 3), np.uint8), np.zeros((4, 3, 3))),
    ],
)
def test_images_become_bytes_by_their_type(given, expected):
    found = as_images(given)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.asarray(expected)[..., None])


def test_bytes_are_given_back_as_they_are():
    assert as_images(COLOUR) is COLOUR
    on_device = jnp.asarray(COLOUR)
    assert as_images(on_device) is on_device
    assert isinstance(as_images(on_device[..., 0]), jax.Array)
    for channels in (1, 2, 4, 6):  # any number of them
        assert as_images(np.resize(COLOUR, (5, 7, 8, channels))).shape == (5, 7, 8, channels)


@pytest.mark.parametrize(
    ("given", "image_shape"),
    [(NOISE[0], (9, 10, 1)), (NOISE[0, ..., None], (9, 10, 1)), (COLOUR[0], (9, 10, 3)), (NOISE[:1], (9, 10, 1))],
)
def test_one_image_alone_is_a_set_of_one(given, image_shape):
    found = as_images(given, image_shape=image_shape)
    np.testing.assert_array_equal(found, given.reshape(1, *image_shape))


class Odd:
    images = NOISE

    def __array__(self, *_, **__):
        raise TypeError("no array here\nat all")


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        (NOISE.astype(complex), ["complex128", "Convert"]),
        (NOISE.astype(str), ["<U3", "Convert"]),
        (NOISE.astype("M8[s]"), ["datetime64", "Convert"]),
        (NOISE.astype([("a", np.uint8)]), ["'a'", "Convert"]),
        (np.array([[None]], object), ["object", "Convert"]),
        (np.ma.masked_greater(NOISE, 200), ["masked", "images.filled(0)"]),
        (None, ["NoneType"]),
        ("photo.png", ["str"]),
        (Split(NOISE), ["Split", ".images"]),
        (Odd(), ["Odd", "no array here"]),
        ([NOISE[0], NOISE[1, :3]], ["list", "one array"]),
        (NOISE.astype(np.int16) - 1, ["int16", "[0, 255]", "from -1 to", "Scale"]),
        (NOISE.astype(np.uint16) + 300, ["[0, 255]", "555"]),
        (NOISE.astype(np.float32), ["float32", "[0, 1]", "from 0.0 to 255.0"]),
        (UNIT - 0.5, ["[0, 1]", "from -0.5"]),
        (np.where(NOISE > 100, np.nan, 0.5), ["nan", "[0, 1]"]),
        (np.where(NOISE > 100, np.inf, 0.5), ["inf", "[0, 1]"]),
        (NOISE % 2, ["0 to 255", "only 0 and 1", "booleans"]),
        (NOISE.astype(int) % 2, ["only 0 and 1"]),
        (NOISE[:0], ["(0, 9, 10)", "No size may be 0"]),
        (NOISE[:, :0], ["(20, 0, 10)", "No size may be 0"]),
        (jnp.asarray(NOISE[:0]), ["(0, 9, 10)"]),
        (NOISE[0, 0], ["(10,)", "Reshape"]),
        (NOISE[..., None, None], ["(20, 9, 10, 1, 1)", "Reshape"]),
        (np.uint8(7), ["()", "Reshape"]),
        (NOISE[0], ["(9, 10)", "images[None]"]),
        (COLOUR[0], ["(9, 10, 3)", "images[None]", "images[..., None]"]),
        (COLOUR.transpose(0, 3, 1, 2), ["(20, 3, 9, 10)", "transpose(0, 2, 3, 1)"]),
        (NOISE[:, None], ["(20, 1, 9, 10)", "transpose(0, 2, 3, 1)"]),
        (COLOUR.transpose(1, 2, 3, 0), ["(9, 10, 3, 20)", "transpose(3, 0, 1, 2)"]),
    ],
)
def test_what_is_no_set_of_images_is_named(given, parts):
    _names(lambda: as_images(given, what="pictures"), "pictures ", *parts)


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        (NOISE[:, :8], ["(20, 8, 10)", "[n, 9, 10, 3]", "Scale"]),
        (NOISE, ["[n, 9, 10, 3]", "(20, 9, 10)", "Scale"]),
        (COLOUR[0, :8], ["(8, 10, 3)", "[n, 9, 10, 3]"]),
        (COLOUR.transpose(0, 3, 1, 2), ["(20, 3, 9, 10)", "[n, 9, 10, 3]", "transpose(0, 2, 3, 1)"]),
    ],
)
def test_another_shape_than_the_models_is_named(given, parts):
    _names(lambda: as_images(given, image_shape=(9, 10, 3)), *parts)


def test_floats_that_use_few_of_the_levels_are_told():
    narrow = 0.5 + 0.001 * np.random.default_rng(0).standard_normal((60, 16, 16))
    with pytest.warns(UserWarning, match=r"of 256 levels they use 4.\nTo keep .* stretch them first") as seen:
        assert len(np.unique(as_images(narrow))) == 4
    assert len(seen) == 1
    # No warning, which would be an error here: nothing is lost.
    as_images((narrow > 0.5).astype(float))
    as_images((narrow - narrow.min()) / (narrow.max() - narrow.min()))


@pytest.mark.parametrize(
    ("given", "labels"),
    [
        ([3, 1, 2], [3, 1, 2]),
        (np.array([[3], [1], [2]], np.uint8), [3, 1, 2]),
        (jnp.asarray([3, 1, 2]), [3, 1, 2]),
        ([True, False, True], [1, 0, 1]),
        (["10", "9", "10"], ["10", "9", "10"]),
        (np.array(["b", "a", "b"], object), ["b", "a", "b"]),
        (np.array([b"dog", b"cat", "Hündin".encode()]), ["dog", "cat", "Hündin"]),
        (None, None),
    ],
)
def test_labels_are_numbers_or_words(given, labels):
    found = as_labels(given, 3)
    assert found is None if labels is None else found.tolist() == labels
    assert found is None or found.dtype == np.int32 or found.dtype.kind == "U"


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ([1, 2], ["[3]", "(2,)", "Number the classes"]),
        (np.eye(3), ["(3, 3)", "argmax(1)"]),
        ([1.0, 2.0, 3.0], ["float64", "integers or words"]),
        ([1, "a", None], ["object"]),
        ([1, 2, 2**40], ["32 bits", str(2**40)]),
    ],
)
def test_what_are_no_labels_is_named(given, parts):
    _names(lambda: as_labels(given, 3, "kinds"), "kinds must", *parts)


def test_numbers_within_names_count_by_their_value():
    names = ["img10b", "img2", "img02", "10", "9", "a", "Z", "", "img10a", "9" * 5000]
    ordered = ["", "9", "10", "9" * 5000, "Z", "a", "img02", "img2", "img10a", "img10b"]
    assert natural_sorted(names) == ordered


@pytest.mark.parametrize(
    ("shapes", "remedy"),
    [
        ([(20, 1, 9, 9), (20, 2, 28, 28), (20, 3, 9, 12), (20, 4, 28, 28), (20, 4, 32, 20)], "transpose(0, 2, 3, 1)"),
        ([(28, 28, 1), (28, 28, 2), (9, 12, 3), (9, 12, 4), (28, 28)], "images[None]"),
    ],
)
def test_channels_that_come_first_and_one_image_are_told_by_their_shape(shapes, remedy):
    for shape in shapes:
        _names(lambda: as_images(np.zeros(shape, np.uint8)), str(shape), remedy)  # noqa: B023


def _names(function, *parts):
    with pytest.raises(UsageError) as error:
        function()
    check_message(error, *parts)
