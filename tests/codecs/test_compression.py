"""Compression: the codec against oracles, the coder's size against the entropy, files against every damage."""

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from experiments import compression as study
from vae_jax.__main__ import COMMANDS
from vae_jax.cli.command import main
from vae_jax.codecs import container, entropy_coding, image_codecs
from vae_jax.codecs import lossy as compression
from vae_jax.codecs.entropy_coding import NotDecodableError, decode_symbols, encode_symbols
from vae_jax.codecs.lossy import QUALITIES, dequantise, quantise, step_of
from vae_jax.config import Settings
from vae_jax.errors import UsageError
from vae_jax.models.autoencoders import build_model
from vae_jax.models.quality import psnr
from vae_jax.runs.recording import train_run
from vae_jax.runs.run import load_run

RNG = np.random.default_rng(0)
DIM = 5


@pytest.fixture(scope="module")
def run(tmp_path_factory, digits):
    path = tmp_path_factory.mktemp("compression") / "run"
    config = Settings(model="ae", latent_dim=DIM, hidden_sizes=(16,), epochs=1, dataset="digits")
    train_run(path, build_model(config, digits.image_shape), config, digits)
    return load_run(path)


@pytest.fixture(scope="module")
def codec(run, digits):
    return container.fit_codec_of(run, digits.train.images, digits.validation.images)


def gaussian_codes(number=2000, seed=1):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(2).normal(size=(DIM, DIM))
    return (rng.normal(size=(number, DIM)) @ mixing + 3).astype(np.float32)


def spd(seed=3):
    root = np.random.default_rng(seed).normal(size=(DIM, DIM))
    return root @ root.T / 100


# The transform and the grid


def test_the_transform_whitens_the_metric_and_uncorrelates_the_codes():
    codes, metric = gaussian_codes(), spd()
    transform = compression.fit_transform(codes, metric)
    # |dz|^2 in the metric is |dy|^2 for every dz = dy @ synthesis.
    np.testing.assert_allclose(transform.synthesis @ metric @ transform.synthesis.T, np.eye(DIM), atol=2e-3)
    covariance = np.cov((codes - transform.mean) @ transform.analysis, rowvar=False)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-3 * covariance[0, 0])
    assert np.all(np.diff(np.diag(covariance)) <= 0)


@pytest.mark.parametrize("quality", [1, 5, 8])
def test_quantisation_errs_by_half_a_step_in_the_metric(quality):
    codes, metric, step = gaussian_codes(), spd(), step_of(quality)
    transform = compression.fit_transform(codes, metric)
    symbols = quantise(codes, transform, step)
    error = np.float64(dequantise(symbols, transform, step)) - codes
    y_error = np.linalg.solve(np.float64(transform.synthesis).T, error.T).T
    assert np.abs(y_error).max() <= step / 2 * 1.01 + 1e-4
    assert np.einsum("ni,ij,nj->n", error, metric, error).max() <= DIM * (step / 2) ** 2 * 1.05
    again = quantise(dequantise(symbols, transform, step), transform, step)
    np.testing.assert_array_equal(again, symbols)
    np.testing.assert_array_equal(dequantise(np.zeros((1, DIM), int), transform, step)[0], transform.mean)


def test_latents_that_the_decoder_ignores_cost_nothing():
    metric = np.diag([1.0, 0.5, 0, 0, 0]) / 64
    transform = compression.fit_transform(gaussian_codes(), metric)
    symbols = quantise(gaussian_codes(), transform, step_of(8))
    assert np.any(symbols[:, :2])
    assert not np.any(symbols[:, 2:])
    compression.fit_transform(gaussian_codes(), np.zeros((DIM, DIM)))


def test_codes_that_are_not_finite_are_refused_and_far_ones_clipped():
    transform = compression.fit_transform(gaussian_codes(), spd())
    far = quantise(np.full((1, DIM), 1e30, np.float32), transform, 0.1)
    assert np.abs(far).max() == entropy_coding.LARGEST_SYMBOL
    with pytest.raises(ValueError, match="finite"):
        quantise(np.full((1, DIM), np.nan, np.float32), transform, 0.1)


def test_the_metric_is_the_mean_squared_jacobian(run):
    model, params = run.model, run.params
    codes = RNG.normal(size=(3, DIM)).astype(np.float32)
    step, total = 1e-2, np.zeros((DIM, DIM))
    for z in codes:
        moved = np.concatenate([z + step * np.eye(DIM, dtype=np.float32), z - step * np.eye(DIM, dtype=np.float32)])
        ahead, back = np.split(np.float64(model.decode_mean(params, moved)).reshape(2 * DIM, -1), 2)
        jacobian = (ahead - back) / (2 * step)
        total += jacobian @ jacobian.T / jacobian.shape[1] / len(codes)
    np.testing.assert_allclose(compression.decoder_metric(model, params, codes), total, atol=2e-3 * total.max())


# The prior and the coder


def prior_and_symbols(classes=3, scale=2.0):
    rng = np.random.default_rng(4)
    labels = rng.integers(0, classes, 4000)
    symbols = np.rint(scale * rng.normal(size=(4000, DIM)) + 4 * labels[:, None]).astype(np.int64)
    return entropy_coding.fit_prior(symbols, labels, classes), symbols


def entropy_bits(symbols, prior):
    """Bits of the shortest class, summed over images, one image and one class after the other."""
    radius, total = prior.radius, 0.0
    log_class = np.log2(prior.classes / prior.classes.sum(dtype=float))
    for image in symbols:
        each = []
        for k, table in enumerate(prior.symbols):
            bits = -log_class[k]
            for d, s in enumerate(image):
                escaped = abs(s) > radius
                bits += 32 * escaped - np.log2(
                    max(table[d][-1 if escaped else s + radius] / table[d].sum(dtype=float), 2**-24)
                )
            each.append(bits)
        total += min(each)
    return total


@pytest.mark.parametrize(("classes", "scale"), [(1, 0.3), (1, 5.0), (3, 2.0)])
def test_the_payload_has_the_size_of_the_entropy_and_comes_back(classes, scale):
    prior, symbols = prior_and_symbols(classes, scale)
    symbols = symbols[:1000]
    payload, bits = encode_symbols(symbols, prior), entropy_bits(symbols, prior)
    assert 0.99 * bits - 64 <= 8 * len(payload) <= 1.01 * bits + 64
    assert entropy_coding.code_lengths(symbols, prior).min(axis=1).sum() == pytest.approx(bits, rel=1e-5)
    np.testing.assert_array_equal(decode_symbols(payload, len(symbols), prior), symbols)


@pytest.mark.parametrize("value", [0, 1])
def test_a_collapsed_model_whose_symbols_are_all_the_same_is_coded_too(value):
    symbols = np.full((20, 3), value)
    prior = entropy_coding.fit_prior(symbols, np.zeros(20, np.int64), 1)
    unlike = np.array([[0, 5, -7], [value, value, 10**6]])
    for each in (symbols, unlike):
        np.testing.assert_array_equal(decode_symbols(encode_symbols(each, prior), len(each), prior), each)


def test_the_prior_costs_what_the_source_is_worth():
    # A quantised Gaussian of standard deviation 4: its entropy by SciPy, with 1% for 4,000 counts a histogram.
    rng = np.random.default_rng(5)
    train, test = (np.rint(4 * rng.normal(size=(4000, DIM))).astype(np.int64) for _ in range(2))
    prior = entropy_coding.fit_prior(train, np.zeros(4000, np.int64), 1)
    edges = np.arange(-60, 61) / 4
    mass = stats.norm.cdf(edges + 0.125) - stats.norm.cdf(edges - 0.125)
    entropy = -np.sum(mass[mass > 0] * np.log2(mass[mass > 0]))
    assert 8 * len(encode_symbols(test, prior)) / test.size == pytest.approx(entropy, rel=0.01)


SYMBOL = st.one_of(st.integers(-9, 9), st.integers(-(2**30), 2**30))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(SYMBOL, min_size=DIM, max_size=DIM), max_size=6))
def test_any_symbols_come_back(rows):
    prior, _ = prior_and_symbols()
    symbols = np.array(rows, np.int64).reshape(-1, DIM)
    np.testing.assert_array_equal(decode_symbols(encode_symbols(symbols, prior), len(symbols), prior), symbols)


def test_many_images_are_coded_in_chunks_and_a_forged_number_is_refused_before_anything_is_allocated(monkeypatch):
    prior, symbols = prior_and_symbols()
    whole = encode_symbols(symbols[:100], prior)
    with pytest.raises(NotDecodableError, match="not those of"):
        decode_symbols(whole, 2**60, prior)
    monkeypatch.setattr(entropy_coding, "_CHUNK", 300)
    assert encode_symbols(symbols[:100], prior) == whole
    np.testing.assert_array_equal(decode_symbols(whole, 100, prior), symbols[:100])


def test_classes_are_found_where_they_are(digits):
    rng = np.random.default_rng(6)
    centres = 20 * rng.normal(size=(8, DIM))
    codes = (centres[rng.integers(0, 8, 3000)] + rng.normal(size=(3000, DIM))).astype(np.float32)
    fitted = compression.fit_codec(codes[:2500], codes[2500:], np.eye(DIM) / 64)
    assert fitted.prior(5).classes.size >= 8
    assert compression.fit_codec(gaussian_codes(300), codes, np.eye(DIM) / 64).prior(1).classes.size == 1


def test_equal_codes_are_no_reason_to_warn():
    codes = np.tile(gaussian_codes(3), (200, 1))
    fitted = compression.fit_codec(codes, codes, np.eye(DIM) / 64)
    symbols = quantise(codes, fitted.transform, step_of(4))
    np.testing.assert_array_equal(
        decode_symbols(encode_symbols(symbols, fitted.prior(4)), 600, fitted.prior(4)), symbols
    )


# Files


@pytest.mark.parametrize("quality", [1, 8])
def test_decompressed_is_the_quantised_reconstruction_bit_for_bit(run, codec, digits, quality):
    unlike = [RNG.integers(0, 256, (20, 8, 8, 1), dtype=np.uint8), np.full((1, 8, 8, 1), 255, np.uint8)]
    images = np.concatenate([digits.test.images, *unlike])
    content = container.compress(run, codec, images, quality)
    codes = np.asarray(container._codes(run, images))
    codes = dequantise(quantise(codes, codec.transform, step_of(quality)), codec.transform, step_of(quality))
    again = container.decompress(run, codec, content)
    np.testing.assert_array_equal(again, compression.decode_codes(run.model, run.params, codes))
    alone = container.decompress(run, codec, container.compress(run, codec, images[7:8], quality))
    np.testing.assert_array_equal(alone[0], again[7])
    assert len(content) < len(images) * DIM + container.HEADER_BYTES


def test_every_flipped_byte_cut_and_addition_is_refused(run, codec, digits):
    content = container.compress(run, codec, digits.test.images[:3], 4)
    damaged = [content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :] for i in range(len(content))]
    damaged += [content[:i] for i in range(len(content))] + [content + b"\0"]
    for broken in damaged:
        with pytest.raises(UsageError, match=r"^x\.bin "):
            container.decompress(run, codec, broken, "x.bin")


def test_another_model_or_codec_is_refused(run, codec, digits):
    content = container.compress(run, codec, digits.test.images[:3], 4)
    other = run._replace(params={**run.params, "encoder": run.params["decoder"]})
    moved = codec._replace(transform=codec.transform._replace(mean=codec.transform.mean + 1))
    for wrong in ((other, codec), (run, moved)):
        with pytest.raises(UsageError, match="another model or codec"):
            container.decompress(*wrong, content)


@settings(deadline=None, max_examples=60)
@given(
    quality=st.integers(0, 255),
    number=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.sampled_from([8, 0, 65535]), st.sampled_from([8, 9]), st.sampled_from([1, 3])),
    payload=st.binary(max_size=40),
    ours=st.booleans(),
)
def test_a_forged_file_is_refused_or_decoded_but_never_fails_otherwise(
    run, codec, quality, number, shape, payload, ours
):
    # With right checksums, as no accident makes them.
    header = container.Header(quality % 10 if ours else quality, number % 5 if ours else number, shape, b"")
    content = container.pack(header._replace(model=container.fingerprint(run.params, codec)), payload)
    with contextlib.suppress(UsageError):
        images = container.decompress(run, codec, content)
        assert images.shape == (header.number, *run.model.image_shape)


@settings(deadline=None)
@given(st.binary(max_size=120), st.booleans())
def test_any_bytes_are_refused(content, begin):
    with pytest.raises(UsageError):
        container.unpack(container.MAGIC + content if begin else content)


def test_the_fingerprint_depends_on_every_name_shape_type_and_byte():
    params = {"a": np.arange(4, dtype=np.float32), "b": np.zeros(2, np.float32)}
    others = [
        {"b": params["b"], "c": params["a"]},
        {**params, "a": params["a"].reshape(2, 2)},
        {**params, "a": params["a"].view(np.int32)},
        {**params, "b": np.array([0, -0.0], np.float32)},
    ]
    prints = {container.fingerprint(each) for each in [params, *others]}
    assert len(prints) == 5
    assert container.fingerprint(dict(reversed(params.items()))) == container.fingerprint(params)


def test_a_codec_comes_back_from_its_file_and_a_damaged_one_is_refused(run, codec, tmp_path):
    path = tmp_path / "codec.npz"
    container.write_codec(path, codec)
    again = container.read_codec(path, DIM)
    assert container.fingerprint(run.params, again) == container.fingerprint(run.params, codec)
    with pytest.raises(UsageError, match="another model's"):
        container.read_codec(path, DIM + 1)
    with pytest.raises(UsageError, match="missing"):
        container.read_codec(tmp_path / "none.npz", DIM)
    content = path.read_bytes()
    np.save(tmp_path / "single.npy", np.zeros(3))
    for broken in (b"", content[:-30], b"PK\3\4" + content[9:], (tmp_path / "single.npy").read_bytes()):
        path.write_bytes(broken)
        with pytest.raises(UsageError, match="damaged"):
            container.read_codec(path, DIM)
    for i in range(0, len(content), len(content) // 100):
        path.write_bytes(content[:i] + bytes([content[i] ^ 255]) + content[i + 1 :])
        # What is read at all is right: not every byte of a zip archive means something.
        with contextlib.suppress(UsageError):
            again = container.read_codec(path, DIM)
            assert container.fingerprint(run.params, again) == container.fingerprint(run.params, codec)


# What it is compared with


@pytest.mark.parametrize(("number", "channels"), [(7, 1), (9, 3), (1, 1)])
def test_a_mosaic_is_cut_into_what_it_was_made_of(number, channels):
    images = RNG.integers(0, 256, (number, 4, 6, channels), dtype=np.uint8)
    picture = image_codecs.mosaic(images)
    np.testing.assert_array_equal(picture[:4, :6], images[0])
    np.testing.assert_array_equal(image_codecs.cut_mosaic(picture, number, (4, 6, channels)), images)
    for image_format in ("PNG", "WEBP"):
        size, decoded = image_codecs.through_pillow(picture, image_format, None)
        assert size > 0
        np.testing.assert_array_equal(decoded, picture)


def test_pca_with_all_components_and_small_steps_is_nearly_lossless(digits):
    linear = image_codecs.LinearModel.fit(digits.train.images, digits.validation.images, 60)
    images = digits.test.images
    decoded = linear.decode(linear.encode(images, 8), 8, digits.image_shape)
    # At most uniform errors of variance step^2 / 12 in each of 60 dimensions; clipping to [0, 1] takes some away.
    bound = -10 * np.log10(60 * step_of(8) ** 2 / 12)
    assert bound <= psnr(images, decoded).mean() <= bound + 3


def test_rates_are_interpolated_in_the_logarithm_and_not_beyond_the_ends():
    rates, psnrs = np.array([4.0, 1.0]), np.array([30.0, 20.0])
    assert image_codecs.rate_at(25.0, rates, psnrs) == pytest.approx(2)
    assert image_codecs.rate_at(31.0, rates, psnrs) is None


# The commands


def command(*arguments):
    word, *rest = map(str, arguments)
    main(study.Config, study.run, [word, *rest, "--no-compilation-cache"], COMMANDS)


def test_compress_and_decompress_as_a_user_does(run, digits, tmp_path, capsys):
    images = digits.test.images[:50]
    source, packed, back = (tmp_path / name for name in ("images.npz", "out.bin", "back.npz"))
    np.savez(source, images=images)
    command("compress", run.path, source, packed, "--quality", 8)
    assert "bits per pixel" in capsys.readouterr().out
    command("decompress", run.path, packed, back)
    codec = container.read_codec(container.codec_path(run), DIM)
    with np.load(back) as file:
        np.testing.assert_array_equal(file["images"], container.decompress(run, codec, packed.read_bytes()))
        assert file["images"].dtype == np.uint8
    before = packed.read_bytes()
    (tmp_path / "bad.bin").write_bytes(before[:-1])
    bad = [
        (["compress", run.path, source, packed], "exists"),
        (["decompress", run.path, packed, back], "exists"),
        (["compress", run.path, source, tmp_path / "no" / "x.bin"], "folder"),
        (["compress", run.path, source, tmp_path / "x.bin", "--quality", 9], "--quality"),
        (["compress", tmp_path, source, tmp_path / "x.bin"], "run directory"),
        (["decompress", run.path, tmp_path / "bad.bin", tmp_path / "x.npz"], "bad.bin is cut off"),
        (["decompress", run.path, source, tmp_path / "x.npz"], "images.npz is not"),
        (["decompress", run.path, tmp_path / "none.bin", tmp_path / "x.npz"], "none.bin"),
    ]
    for arguments, message in bad:
        with pytest.raises(SystemExit) as stop:
            command(*arguments)
        errors = capsys.readouterr().err
        assert stop.value.code == 2, errors
        assert message in errors
        assert len(errors.strip().splitlines()) <= 2
    assert packed.read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {"images.npz", "out.bin", "back.npz", "bad.bin"}


def test_the_study_on_digits(run, tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.compression.measure.ALONE", 3)
    monkeypatch.setattr("experiments.compression.measure.FORMATS", {"JPEG": (5, 90), "WebP": (0, 90)})
    config = study.Config(run=run.path, output=tmp_path / "study", compilation_cache=False)
    summary = study.run(config)
    assert {p.name for p in (tmp_path / "study" / "figures").iterdir()} == {"rate_distortion.png", "compressed.png"}
    curve = summary["curves"]["AE"]
    assert len(curve["bits_per_pixel"]) == len(QUALITIES)
    assert all(np.diff(curve["bits_per_pixel"]) > 0)
    assert "JPEG" in (tmp_path / "study" / "report.md").read_text()
