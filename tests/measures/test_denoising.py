import json

import jax
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from experiments import denoising
from experiments.denoising.measure import ROWS, Corruption
from experiments.denoising.study import _settings
from vae_jax.cli.command import main
from vae_jax.config import Settings
from vae_jax.measures.denoising import (
    LinearMMSE,
    best_width,
    corrupt_images,
    denoise,
    gaussian_filter,
    mean_quality,
    median_filter,
)
from vae_jax.measures.images import ssim
from vae_jax.models.autoencoders import build_model
from vae_jax.models.quality import psnr
from vae_jax.runs.run import load_run

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def pair():
    clean = np.float32(RNG.random((700, 9, 8, 3)))
    return clean, np.float32(np.clip(clean + 0.2 * RNG.normal(size=clean.shape), 0, 1))


def test_psnr_is_scikit_images_of_floats_and_of_bytes(pair):
    for images, peak in ((pair, 1), ([np.uint8(255 * each) for each in pair], 255)):
        expected = [
            peak_signal_noise_ratio(*map(np.float64, two), data_range=peak) for two in zip(*images, strict=True)
        ]
        np.testing.assert_allclose(psnr(*images), expected, rtol=1e-12)
        assert np.isposinf(psnr(images[0], images[0])).all()
    one_grey_level = 10 * np.log10(255**2 * images[0][0].size)
    assert psnr(images[0], images[0], least_error=1.0)[0] == pytest.approx(one_grey_level)


@pytest.mark.parametrize(("shape", "window"), [((9, 8, 3), 7), ((8, 8, 1), 7), ((5, 9, 1), 5), ((4, 3, 1), 3)])
def test_ssim_is_scikit_images_image_by_image(shape, window):
    clean, estimate = np.float32(RNG.random((2, 600, *shape)))  # more than are measured in one call
    chosen = [0, 1, 499, 500, 599]
    expected = [
        structural_similarity(*np.float64([clean[i], estimate[i]]), win_size=window, data_range=1.0, channel_axis=-1)
        for i in chosen
    ]
    np.testing.assert_allclose(ssim(clean, estimate)[chosen], expected, rtol=1e-9)
    np.testing.assert_allclose(ssim(clean, clean), 1)


def test_quality_is_the_mean_over_the_images_and_without_ssim_where_they_are_too_small_for_a_window(pair):
    assert mean_quality(*pair) == pytest.approx({"psnr": np.mean(psnr(*pair)), "ssim": np.mean(ssim(*pair))})
    tiny = np.float32(RNG.random((4, 2, 5, 1)))
    with pytest.raises(ValueError, match="2 x 5"):
        ssim(tiny, tiny)
    assert set(mean_quality(tiny, tiny / 2)) == {"psnr"}


def test_noise_is_of_its_level_and_depends_on_the_key_and_the_position_alone():
    images = RNG.integers(0, 256, (600, 7, 5, 1), dtype=np.uint8)
    noisy = corrupt_images(images, "gaussian", 0.25, jax.random.key(0))
    squares = ((noisy - np.float32(images) / 255) / 0.25) ** 2
    assert abs(squares.mean() - 1) < 5 * np.sqrt(2 / squares.size)
    np.testing.assert_allclose(noisy[:7], corrupt_images(images[:7], "gaussian", 0.25, jax.random.key(0)), atol=1e-6)
    assert (noisy != corrupt_images(images, "gaussian", 0.25, jax.random.key(1))).any()


@pytest.mark.parametrize("kind", ["ae", "vae"])
def test_denoise_decodes_the_latents_whatever_the_batch(kind):
    model = build_model(Settings(model=kind, hidden_sizes=(6,), latent_dim=3), (3, 4, 1))
    params = model.init(jax.random.key(0))
    noisy = np.float32(2 * RNG.normal(size=(503, 3, 4, 1)))  # may leave [0, 1]
    estimate = denoise(model, params, noisy)
    expected = jax.jit(lambda x: model.decode_mean(params, model.latents(params, x)))(noisy)
    np.testing.assert_allclose(estimate, expected, atol=1e-6)
    np.testing.assert_allclose(denoise(model, params, noisy[:2]), estimate[:2], atol=1e-6)


def test_estimates_are_clipped_as_clean_pixels_are():
    model = build_model(Settings(model="ae", likelihood="squared_error", hidden_sizes=(6,), latent_dim=3), (3, 4, 1))
    noisy = np.float32(9 * RNG.normal(size=(20, 3, 4, 1)))
    clean = np.float32(RNG.random(noisy.shape))
    linear = LinearMMSE.fit(clean, noisy)
    for estimate in (
        denoise(model, model.init(jax.random.key(0)), noisy),
        gaussian_filter(noisy, 0.5),
        median_filter(noisy),
        linear(9 * noisy),
    ):
        assert estimate.min() >= 0
        assert estimate.max() <= 1


def test_filters_see_the_neighbours_in_the_image_only():
    impulse = np.zeros((3, 7, 7, 2), np.float32)
    impulse[1, 3, 3, 0] = 1
    blurred = gaussian_filter(impulse, 1.0)
    assert blurred[1, ..., 0].sum() == pytest.approx(1)
    np.testing.assert_allclose(blurred[1, 3, 4, 0] / blurred[1, 3, 3, 0], np.exp(-0.5), rtol=1e-6)
    assert not blurred[[0, 2]].any()
    assert not blurred[..., 1].any()
    assert not median_filter(impulse).any()
    flat = np.float32(RNG.random((1, 6, 5, 1)))
    assert median_filter(flat)[0, 2, 3, 0] == np.median(flat[0, 1:4, 2:5])


def test_the_best_width_is_the_one_of_the_largest_psnr():
    clean = np.zeros((50, 8, 8, 1), np.float32) + 0.5
    noisy = np.float32(clean + 0.2 * RNG.normal(size=clean.shape))
    assert best_width(clean, noisy, (0.3, 1.0, 3.0)) == 3.0  # flat images: the wider the better
    assert best_width(noisy, noisy + 1e-3, (0.3, 1.0, 3.0)) == 0.3


def test_linear_mmse_is_the_wiener_filter_of_a_gaussian_model():
    # x ~ N(mean, C), y = x + sigma noise: E[x | y] = mean + C (C + sigma^2 I)^-1 (y - mean), which is linear.
    pixels, sigma, number = 6, 0.3, 200_000
    factor = 0.1 * RNG.normal(size=(pixels, pixels))
    covariance, mean = factor @ factor.T, np.full(pixels, 0.5)
    x = mean + RNG.normal(size=(number, pixels)) @ factor.T
    y = x + sigma * RNG.normal(size=x.shape)
    estimator = LinearMMSE.fit(x.reshape(-1, 2, 3, 1), y.reshape(-1, 2, 3, 1))
    inverse = np.linalg.inv(covariance + sigma**2 * np.eye(pixels))
    expected = covariance @ inverse
    # Least squares: the error of row i of the weight has the variance Var(x_i | y) inverse_jj / n in column j.
    left = np.diag(covariance - expected @ covariance)
    error = np.sqrt(np.outer(left, np.diag(inverse)) / number)
    assert (np.abs(estimator.weight - expected) < 5 * error).all()
    best = np.clip(mean + (y[:9] - mean) @ expected.T, 0, 1)
    np.testing.assert_allclose(estimator(y[:9].reshape(-1, 2, 3, 1)).reshape(9, -1), best, atol=0.01)


def test_linear_mmse_is_least_squares_and_copes_with_constant_pixels():
    clean = np.float32(RNG.random((12_000, 2, 2, 1)))
    noisy = np.float32(clean + 0.1 * RNG.normal(size=clean.shape))
    clean[:, 0, 0], noisy[:, 0, 0] = 0.25, 0.0
    estimate = LinearMMSE.fit(clean, noisy)(noisy).reshape(len(noisy), -1)
    design = np.c_[np.ones(len(noisy)), noisy.reshape(len(noisy), -1)[:, 1:]].astype(np.float64)
    solution = np.linalg.lstsq(design, clean.reshape(len(clean), -1).astype(np.float64))[0]
    np.testing.assert_allclose(estimate, np.clip(design @ solution, 0, 1), atol=1e-6)


SMALL = [
    *("--dataset", "digits", "--no-compilation-cache", "--epochs", "1", "--plain-epochs", "1"),
    *("--arch", "mlp", "--hidden-sizes", "4", "--batch-size", "256", "--corruptions", "masking:0.5"),
]


def command(*arguments):
    main(denoising.Config, denoising.run, list(map(str, arguments)))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    path = tmp_path_factory.mktemp("denoising") / "study"
    command(*SMALL, "--output", path)
    return path


@pytest.mark.slow
def test_the_study_leaves_tables_numbers_and_figures(study, digits):
    (row,) = json.loads((study / "summary.json").read_text())["rows"]
    assert (row["corruption"], row["level"]) == ("masking", 0.5)
    assert tuple(row["psnr"]) == tuple(row["ssim"]) == ROWS
    assert {path.name for path in (study / "figures").iterdir()} == {"denoising.png", "psnr.png"}
    report = (study / "report.md").read_text()
    for word in (*ROWS, "masking, 50%", "scikit-learn digits", f"{row['psnr']['linear MMSE']:.2f}"):
        assert word in report
    run = load_run(study / "runs" / "masking-0.5")
    assert (run.config.corruption, run.config.corruption_level, run.config.arch) == ("masking", 0.5, "mlp")
    key = jax.random.split(jax.random.key(0), 3)[2]
    noisy = corrupt_images(digits.test.images, "masking", 0.5, key)
    clean = np.float32(digits.test.images) / 255
    assert row["psnr"]["noisy"] == pytest.approx(np.mean(psnr(clean, noisy)))
    estimate = denoise(run.model, run.params, noisy)
    assert row["psnr"]["denoising AE"] == pytest.approx(np.mean(psnr(clean, estimate)), abs=1e-4)


def test_by_default_the_denoiser_has_a_code_for_each_patch(digits):
    settings = _settings(denoising.Config(), Corruption("gaussian", 0.25), digits)
    assert (settings.arch, settings.latent_dim, settings.hidden_sizes) == ("patch", 2 * 2 * 64, (64, 64, 64))
    build_model(settings, digits.image_shape)


@pytest.mark.slow
def test_a_finished_run_is_measured_on_every_corruption_without_training(study, capsys):
    run = study / "runs" / "masking-0.5"
    command(*SMALL[:-2], "--output", study, "--run", run, "--corruptions", "masking:0.5", "gaussian:0.5")
    assert "epoch" not in capsys.readouterr().out
    rows = json.loads((study / "summary.json").read_text())["rows"]
    assert [row["corruption"] for row in rows] == ["masking", "gaussian"]
