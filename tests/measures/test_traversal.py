import numpy as np
import pytest

from vae_jax.measures import traversal
from vae_jax.measures.traversal import choose_pairs, linear_interpolation, spherical_interpolation, traverse

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(2, 6, 5)).astype(np.float32)


def angle(u, v):
    u, v = np.float64(u), np.float64(v)
    cosine = np.sum(u * v, -1) / np.linalg.norm(u, axis=-1) / np.linalg.norm(v, axis=-1)
    return np.arccos(np.clip(cosine, -1, 1))


def slerp(a, b, t):
    """White's formula (2016) in float64, for a and b of the same norm."""
    omega = angle(a, b)
    return (np.sin((1 - t) * omega) * np.float64(a) + np.sin(t * omega) * np.float64(b)) / np.sin(omega)


def test_a_traversal_moves_one_dimension_a_row():
    base, quantiles, dims = A[0], RNG.normal(size=(7, 5)).astype(np.float32), np.array([2, 0, 4])
    z = traverse(base, dims, quantiles)
    assert z.shape == (3, 7, 5)
    for row, moved in zip(z, dims, strict=True):
        for dim in range(5):
            np.testing.assert_array_equal(row[:, dim], quantiles[:, dim] if dim == moved else base[dim])


@pytest.mark.parametrize("function", [linear_interpolation, spherical_interpolation])
@pytest.mark.parametrize("dim", [1, 2, 20])
def test_paths_have_exact_ends_and_run_backwards_the_same(function, dim):
    a, b = RNG.normal(size=(2, 3, dim)).astype(np.float32)
    path = function(a, b, 6)
    assert path.shape == (3, 6, dim)
    assert path.dtype == np.float32
    np.testing.assert_array_equal(path[:, 0], a)
    np.testing.assert_array_equal(path[:, -1], b)
    np.testing.assert_allclose(path[:, ::-1], function(b, a, 6), atol=1e-6)
    with pytest.raises(ValueError, match="steps"):
        function(a, b, 1)


def test_straight_steps_are_equal():
    wanted = [[a + t * (b - a) for t in (0, 0.25, 0.5, 0.75, 1)] for a, b in zip(A, B, strict=True)]
    np.testing.assert_allclose(linear_interpolation(A, B, 5), wanted, atol=1e-6)


def test_slerp_is_whites_formula_where_the_norms_are_equal():
    b = B * (np.linalg.norm(A, axis=-1) / np.linalg.norm(B, axis=-1))[:, None]
    wanted = [[slerp(u, v, t) for t in np.linspace(0, 1, 7)] for u, v in zip(A, b, strict=True)]
    np.testing.assert_allclose(spherical_interpolation(A, b, 7), wanted, atol=2e-6)


def test_slerp_goes_by_equal_angles_with_a_linear_norm_in_the_plane_of_its_ends():
    path = spherical_interpolation(A, 3 * B, 9)
    angles = angle(path[:, :-1], path[:, 1:])
    np.testing.assert_allclose(angles, np.tile(angle(A, B)[:, None] / 8, 8), atol=1e-5)
    wanted = np.linspace(np.linalg.norm(A, axis=-1), 3 * np.linalg.norm(B, axis=-1), 9, axis=1)
    np.testing.assert_allclose(np.linalg.norm(path, axis=-1), wanted, rtol=1e-5)
    for one in path:
        assert np.linalg.matrix_rank(one, tol=1e-4) == 2


def test_slerp_is_straight_where_no_great_circle_is_determined():
    a = A[:1]
    for b in (2 * a, a, -a, -3 * a, 0 * a, a * np.float32(1 + 1e-6)):
        for start, end in ((a, b), (b, a)):
            np.testing.assert_allclose(
                spherical_interpolation(start, end, 5), linear_interpolation(start, end, 5), atol=1e-6
            )
    assert np.all(spherical_interpolation(0 * a, 0 * a, 3) == 0)


@pytest.mark.parametrize("tilt", [1e-5, 1e-3, np.pi - 1e-3])
def test_slerp_keeps_its_angles_close_to_where_it_is_not_determined(tilt):
    a, b = np.array([[1.0, 0.0]]), np.array([[np.cos(tilt), np.sin(tilt)]])
    path = spherical_interpolation(a, b, 5)
    np.testing.assert_allclose(np.arctan2(path[0, :, 1], path[0, :, 0]), np.linspace(0, tilt, 5), rtol=1e-9)


def test_pairs_are_of_different_classes_and_every_class_has_its_turn():
    labels = np.arange(40) % 7
    pairs = choose_pairs(labels, 40, 7)
    assert np.all(labels[pairs[:, 0]] != labels[pairs[:, 1]])
    assert np.all(np.bincount(labels[pairs].ravel()) == 2)
    np.testing.assert_array_equal(pairs, choose_pairs(labels, 40, 7))
    assert not np.array_equal(pairs, choose_pairs(labels, 40, 7, seed=1))


@pytest.mark.parametrize("labels", [None, np.zeros(3, int)], ids=["no labels", "one class"])
def test_pairs_without_classes_are_of_different_images(labels):
    pairs = choose_pairs(labels, 3, 5)
    assert len({tuple(pair) for pair in pairs}) == len(pairs) == 3  # none twice, of the five asked for
    assert np.all(pairs[:, 0] != pairs[:, 1])
    assert set(pairs.ravel()) == {0, 1, 2}


def test_one_image_makes_no_pair():
    with pytest.raises(ValueError, match="at least 2"):
        choose_pairs(None, 1, 1)


@pytest.mark.parametrize("latent", [3, 80])
def test_codes_move_along_their_principal_components_and_stay_in_all_other_directions(latent):
    rng = np.random.default_rng(0)
    mixing = np.diag(0.5 ** np.minimum(np.arange(latent), 5.0)) @ np.linalg.qr(rng.normal(size=(latent, latent)))[0]
    codes = (rng.normal(size=(4000, latent)) @ mixing + 1).astype(np.float32)
    found = traversal.principal_components(codes, 2)
    values, vectors = np.linalg.eigh(np.cov(codes.T.astype(np.float64)))
    np.testing.assert_allclose(np.abs(found.vectors @ vectors[:, [-1, -2]]), np.eye(2), atol=2e-2)
    np.testing.assert_allclose(found.shares, values[[-1, -2]] / values.sum(), rtol=1e-2)
    np.testing.assert_allclose(found.centre, codes.mean(axis=0), atol=1e-5)
    places = traversal.quantiles_along(codes, found.vectors, (0.1, 0.5, 0.9))
    base = codes[7]
    z = traversal.moved(base, found.vectors, places)
    assert z.shape == (2, 3, latent)
    np.testing.assert_allclose(np.einsum("rsl,rl->sr", z, found.vectors), places, atol=1e-4)
    left = z - base - np.einsum("rsl,rl->rs", z - base, found.vectors)[..., None] * found.vectors[:, None]
    np.testing.assert_allclose(left, 0, atol=1e-4)


@pytest.mark.parametrize(("number", "some"), [(1, False), (2, False), (3, True), (40, True)])
def test_few_codes_and_codes_that_are_all_the_same_have_components_or_say_that_they_have_none(number, some):
    assert traversal.has_components(np.zeros((number, 80), np.float32)) == some
    assert not traversal.has_components(np.zeros((number, 64), np.float32))
    same = traversal.principal_components(np.ones((number, 80), np.float32), 2)
    assert len(same.vectors) == min(2, number)
    assert np.isfinite(same.vectors).all()
    assert (same.shares == 0).all()
