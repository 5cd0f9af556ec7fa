import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vae_jax.config import Settings
from vae_jax.errors import UsageError
from vae_jax.models.inputs import Inputs, as_pixels, augment, corrupt, preprocess

X = jnp.asarray(np.random.default_rng(0).uniform(0.2, 0.8, (300, 6, 5, 2)), jnp.float32)
KEYS = jax.random.split(jax.random.key(0), len(X))
KINDS = ["gaussian", "gaussian_clipped", "salt_and_pepper", "masking"]


def within(values, expected, variance):
    """Whether the mean of independent values is what is expected, within 5 standard errors."""
    return abs(np.mean(np.asarray(values, np.float64)) - expected) <= 5 * np.sqrt(variance / np.size(values))


def test_gaussian_noise_is_normal_with_the_level_as_its_deviation():
    noise = np.asarray(corrupt(X, "gaussian", 0.3, KEYS) - X, np.float64) / 0.3
    assert within(noise, 0, 1)
    assert within(noise**2, 1, 2)  # the variance of a squared standard normal
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-4


def test_clipped_noise_is_the_same_noise_clipped():
    noisy = corrupt(X, "gaussian", 0.5, KEYS)
    clipped = corrupt(X, "gaussian_clipped", 0.5, KEYS)
    np.testing.assert_array_equal(clipped, np.clip(noisy, 0, 1))
    assert np.min(noisy) < 0
    assert np.max(noisy) > 1
    # The share at 0 and at 1 is what the normal tails hold.
    for value, tail in ((0, stats.norm.cdf(-X / 0.5)), (1, stats.norm.sf((1 - X) / 0.5))):
        assert within(clipped == value, tail.mean(), np.mean(tail * (1 - tail)))


@pytest.mark.parametrize("level", [0.1, 0.5, 1.0])
@pytest.mark.parametrize(("kind", "values"), [("salt_and_pepper", (0, 1)), ("masking", (0,))])
def test_the_share_of_the_level_is_replaced_and_the_rest_kept(kind, values, level):
    noisy, share = np.asarray(corrupt(X, kind, level, KEYS)), level / len(values)
    for value in values:
        assert within(noisy == value, share, share * (1 - share))
    kept = ~np.isin(noisy, values)
    np.testing.assert_array_equal(noisy[kept], X[kept])


@pytest.mark.parametrize("kind", KINDS)
def test_no_noise_changes_nothing(kind):
    np.testing.assert_array_equal(corrupt(X, kind, 0.0, KEYS), X)
    np.testing.assert_array_equal(corrupt(X, "none", 1.0, KEYS), X)


@pytest.mark.parametrize("kind", KINDS)
def test_an_examples_noise_depends_on_its_key_alone(kind):
    noisy = jax.jit(corrupt, static_argnums=1)(X, kind, jnp.float32(0.4), KEYS)
    np.testing.assert_allclose(corrupt(X[7:9], kind, 0.4, KEYS[7:9]), noisy[7:9], atol=1e-6)
    assert np.any(noisy[0] - X[0] != noisy[1] - X[1])


def test_neighbouring_values_and_examples_are_independent():
    noise = np.asarray(corrupt(X, "gaussian", 1.0, KEYS) - X, np.float64)
    for axis in range(4):
        along = np.moveaxis(noise, axis, 0)
        assert within(along[1:] * along[:-1], 0, 1)


def test_what_is_unknown_is_refused():
    with pytest.raises(UsageError, match="--corruption must be"):
        corrupt(X, "blur", 0.5, KEYS)
    with pytest.raises(UsageError, match="--binarize must be"):
        preprocess(IMAGES, "static", KEYS)


IMAGES = jnp.asarray(np.random.default_rng(1).integers(0, 256, (300, 6, 5, 2), dtype=np.uint8))
KEY = jax.random.key(3)


def test_a_batch_holds_what_the_loss_compares_with_and_what_the_encoder_sees():
    indices, labels = jnp.arange(300)[::-1], jnp.arange(300) % 3
    settings = Settings(binarize="threshold", corruption="masking", corruption_level=0.5)
    batch = Inputs.from_settings(settings).batch(IMAGES, indices, KEY, labels=labels)
    np.testing.assert_array_equal(batch.x, np.asarray(IMAGES) >= 128)
    seen = np.asarray(batch.inputs)
    np.testing.assert_array_equal(seen[seen != 0], batch.x[seen != 0])
    assert 0.4 < np.sum(seen) / np.sum(batch.x) < 0.6
    np.testing.assert_array_equal(batch.indices, indices)
    np.testing.assert_array_equal(batch.labels, labels)
    np.testing.assert_array_equal(batch.weights, np.ones(300))
    plain = Inputs().batch(IMAGES, indices, KEY, jnp.zeros(300))
    np.testing.assert_allclose(plain.inputs, np.float32(IMAGES) / 255, rtol=1e-6)
    np.testing.assert_array_equal(plain.weights, np.zeros(300))
    assert plain.labels is None


def test_an_examples_noise_depends_on_the_key_and_its_index_alone():
    inputs, indices = Inputs("dynamic", "gaussian", 0.3), jnp.arange(300)
    whole = inputs.batch(IMAGES, indices, KEY)
    part = inputs.batch(IMAGES[jnp.array([9, 7])], jnp.array([9, 7]), KEY)
    for name in ("x", "inputs"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[jnp.array([9, 7])])
    assert (jax.random.key_data(part.keys) == jax.random.key_data(whole.keys[jnp.array([9, 7])])).all()
    other = inputs.batch(IMAGES, indices, jax.random.key(4))
    assert (np.asarray(other.x) != whole.x).any()
    pixels = np.float32(IMAGES) / 255
    assert within(whole.x - pixels, 0, np.mean(pixels * (1 - pixels)))
    # The noise, the binarisation and the latent have keys of their own.
    noise = np.asarray(whole.inputs - whole.x, np.float64) / 0.3
    assert within(noise * (np.asarray(whole.x) - pixels), 0, np.mean(pixels * (1 - pixels)))
    latents = [jax.vmap(lambda key, i=i: jax.random.normal(jax.random.fold_in(key, i), X.shape[1:])) for i in range(3)]
    for latent in latents:
        assert within(noise * np.asarray(latent(whole.keys)), 0, 1)


def shifted(image, down, across):
    rows, columns = (
        np.clip(np.arange(side) + by, 0, side - 1) for side, by in zip(image.shape, (down, across), strict=False)
    )
    return image[rows][:, columns]


def test_augmentation_mirrors_half_of_the_images_and_shifts_each_by_every_number_of_pixels_alike():
    image = np.arange(16 * 5 * 2, dtype=np.uint8).reshape(16, 5, 2)
    images, keys = jnp.asarray(np.tile(image, (1000, 1, 1, 1))), jax.random.split(jax.random.key(5), 1000)
    flips, crops, both = (np.asarray(augment(images, k, keys)) for k in (("flip",), ("crop",), ("crop", "flip")))
    mirrored = (flips == image[:, ::-1]).all(axis=(1, 2, 3))
    np.testing.assert_array_equal(flips[~mirrored], images[~mirrored])
    assert within(mirrored, 0.5, 0.25)
    # Up to 16 / 8 rows, and one column.
    shifts = np.array([(down, across) for down in range(-2, 3) for across in (-1, 0, 1)])
    same = np.array([(crops == shifted(image, *by)).all(axis=(1, 2, 3)) for by in shifts])
    np.testing.assert_array_equal(same.sum(axis=0), np.ones(1000))
    assert stats.chisquare(same.sum(axis=1)).pvalue > 1e-4
    assert stats.chi2_contingency([same[:, mirrored].sum(axis=1), same[:, ~mirrored].sum(axis=1)]).pvalue > 1e-4
    for number, by in enumerate(shifts[same.argmax(axis=0)]):  # the same together as each alone
        np.testing.assert_array_equal(both[number], shifted(flips[number], *by))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 784, 1), (7, 2, 3)])
def test_images_of_any_size_are_augmented(shape):
    images = jnp.asarray(np.random.default_rng(2).integers(0, 256, (40, *shape), dtype=np.uint8))
    found = augment(images, ("flip", "crop"), jax.random.split(KEY, 40))
    assert (found.shape, found.dtype) == (images.shape, jnp.uint8)
    for one, of in zip(np.asarray(found), images, strict=True):
        assert set(one.ravel()) <= set(np.ravel(of))
    assert np.array_equal(found, images) == (shape == (1, 1, 1))


def test_training_images_are_augmented_before_all_else_by_the_key_and_the_index_alone():
    inputs, indices = Inputs("threshold", "masking", 0.5, ("flip", "crop")), jnp.arange(300)
    found = inputs.augmented(IMAGES, indices, KEY)
    changed = (np.asarray(found) != IMAGES).any(axis=(1, 2, 3))
    assert changed.sum() > 200
    chosen = jnp.array([9, 7])
    np.testing.assert_array_equal(inputs.augmented(IMAGES[chosen], chosen, KEY), found[chosen])
    assert (np.asarray(inputs.augmented(IMAGES, indices, jax.random.key(4))) != found).any()
    assert Inputs().augmented(IMAGES, indices, KEY) is IMAGES
    # What evaluation sees does not know of it, nor do the keys of the rest.
    for given in (IMAGES, found):
        ours, plain = (one.batch(given, indices, KEY) for one in (inputs, inputs._replace(augment=())))
        for a, b in zip(ours[:2], plain[:2], strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(inputs.batch(found, indices, KEY).x, np.asarray(found) >= 128)


def test_the_same_images_mean_the_same_whatever_their_type():
    shape = (6, 5, 2)
    pixels = np.float32(IMAGES) / 255
    data = np.asarray(IMAGES)
    for same in (IMAGES, data, data.tolist(), data.astype(np.int32), pixels, jnp.asarray(pixels), np.float64(pixels)):
        np.testing.assert_allclose(as_pixels(same, shape), pixels, rtol=1e-6)
    np.testing.assert_array_equal(as_pixels(data > 99, shape), np.float32(data > 99))
    # Noise may leave [0, 1], bits may be bytes, and nothing is looked at within a program.
    for noisy in (3 * pixels - 1, np.uint8(data > 99)):
        np.testing.assert_array_equal(
            as_pixels(noisy, shape), np.float32(noisy) / (255 if noisy.dtype == np.uint8 else 1)
        )
    np.testing.assert_array_equal(jax.jit(lambda x: as_pixels(x, shape))(255 * pixels), 255 * pixels)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.float32(IMAGES), r"of type float32 must lie in \[0, 1\], got values from 0 to 255.\nGive bytes"),
        (16 * X / X.max(), "to 16.\nGive bytes"),
        (np.full((1, 6, 5, 2), np.nan), "got values from nan to nan"),
        (np.int32(IMAGES) % 2, "got only 0 and 1"),
        ([[1], [1, 2]], "must be one array"),
        (np.ma.masked_greater(np.asarray(IMAGES), 99), "masked ones"),
        (None, "must be uint8, integers, floats or booleans, got NoneType"),
        (IMAGES[..., :1], r"images must be \[batch, 6, 5, 2\], got \(300, 6, 5, 1\)"),
        (IMAGES[0], r"got \(6, 5, 2\)"),
        (IMAGES[:0], r"got \(0, 6, 5, 2\)"),
        (np.zeros((2, 60), np.uint8), r"got \(2, 60\)"),
        (np.zeros((2, 6, 5, 2), str), "must be uint8, integers, floats or booleans, got <U1"),
    ],
)
def test_images_of_another_shape_or_type_are_refused(images, words):
    with pytest.raises(UsageError, match=words) as error:
        as_pixels(images, (6, 5, 2))
    assert len(str(error.value).splitlines()) <= 2


def test_traced_integers_are_refused_by_their_type():
    with pytest.raises(UsageError, match=r"bytes, or floats in .0, 1., got int32"):
        jax.jit(lambda x: as_pixels(x, (6, 5, 2)))(jnp.int32(IMAGES))
