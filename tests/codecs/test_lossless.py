"""Lossless files: masses against SciPy, sizes against log_prob, any image back, the same bytes everywhere, damage."""

import contextlib
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import constriction
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special, stats

from experiments import lossless as study
from vae_jax.__main__ import COMMANDS
from vae_jax.cli.command import main
from vae_jax.codecs.lossless import bits_back, codec, container, convert, fixed_point, header, masses
from vae_jax.config import Settings
from vae_jax.errors import RunError, UsageError
from vae_jax.models.autoencoders import build_model
from vae_jax.models.priors import FullGaussian
from vae_jax.runs.recording import train_run
from vae_jax.runs.run import Run, load_run

KEPT = Path(__file__).parent / "kept"
RNG = np.random.default_rng(0)
MODELS = {
    "mlp bernoulli": ((7, 5, 1), {}),
    "mlp beta_binomial": ((8, 8, 1), {"activation": "relu"}),
    "conv logistic_mixture": ((9, 7, 1), {"activation": "silu"}),
    "residual logistic_mixture": ((6, 8, 3), {"latent_dim": 8, "hidden_sizes": (6, 4), "condition": "labels"}),
}
MORE = {
    "mlp discretized_logistic": ((4, 4, 3), {"channel_conditioning": False, "condition": "labels"}),
    "conv discretized_gaussian": ((5, 8, 1), {"activation": "tanh", "dense_size": 0}),
    "residual discretized_logistic": ((6, 5, 3), {"latent": "vector", "condition": "labels"}),
    "residual bernoulli": ((5, 8, 1), {"latent_dim": 8}),
}


def drawn_run(shape, path=Path("drawn"), **fields):
    """A run whose parameters are drawn at random, as far from their beginning as training takes them."""
    config = Settings(**{"latent_dim": 4, "hidden_sizes": (8, 6)} | fields)
    model = build_model(config, shape, (2, 5, 9) if config.condition == "labels" else None)
    rng = np.random.default_rng(1)

    def drawn(leaf):
        return jnp.asarray(rng.standard_normal(leaf.shape) / max(1, np.prod(leaf.shape[:-1])) ** 0.5, jnp.float32)

    params = jax.tree.map(drawn, jax.eval_shape(model.init, jax.random.key(1)))
    params["decoder"] |= jax.tree.map(lambda leaf: leaf + 0.1, model.likelihood.init())
    return Run(path, model, params, config, [], {}, None, 0)


@pytest.fixture(scope="module", params=[*MODELS, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)])
def coded(request):
    """A run, its codec, images and labels of its own kind."""
    arch, likelihood = request.param.split()
    shape, fields = (MODELS | MORE)[request.param]
    run = drawn_run(shape, arch=arch, likelihood=likelihood, **fields)
    convert.check_codable(run)
    images = RNG.integers(0, 256, (40, *shape), dtype=np.uint8)
    if likelihood == "bernoulli":
        images = binary(images)
    labels = RNG.choice(run.model.classes, 40).astype(np.int32) if run.model.classes else None
    return run, convert.make_codec(run), images, labels


@pytest.fixture(scope="module")
def grey():
    return convert.make_codec(drawn_run((4, 4, 1), likelihood="beta_binomial"))


@pytest.fixture(scope="module")
def run(tmp_path_factory, digits):
    """Of binarised digits."""
    path = tmp_path_factory.mktemp("lossless") / "run"
    config = Settings(latent_dim=2, hidden_sizes=(8,), binarize="threshold", epochs=1, batch_size=32, dataset="digits")
    train_run(path, build_model(config, digits.image_shape), config, digits)
    return load_run(path)


@pytest.fixture(scope="module")
def ready(digits):
    """The codec of a trained run and a file of three segments."""
    made = kept_codec()
    images = np.concatenate([digits.train.images, digits.train.images])[:2500]
    return made, images, compress(made, images)


def kept_codec():
    return codec.read_codec(next(KEPT.glob("codec-*.npz")))


def binary(images):
    return np.where(images > 127, 255, 0).astype(np.uint8)


def compress(*arguments, **more):
    return [*container.compress(*arguments, **more)][-1]


def decompress(made, content, **more):
    return [*container.decompress(made, content, "a.vaez", **more)][-1]


# Masses


@pytest.mark.parametrize(("name", "function"), [("normal", special.ndtr), ("logistic", special.expit)])
def test_a_distribution_function_is_scipys(name, function):
    distribution = masses.Distribution(masses.distribution_table(name))
    t = np.linspace(-25, 25, 10_001)
    for found in (distribution.at(np.int64(t * masses.FINE)), distribution.quick(t * masses.MIDDLE)):
        assert np.all(np.diff(found) >= 0)
        np.testing.assert_allclose(found / masses.PRECISION, function(t), atol=2e-4)
    np.testing.assert_allclose(distribution.at(np.int64(t * masses.FINE)) / masses.PRECISION, function(t), atol=2e-5)


def bits_of(model, symbols):
    coder = constriction.stream.stack.AnsCoder(np.arange(1, 5, dtype=np.uint32))  # on an empty one a middle is free
    before = coder.num_bits()
    coder.encode_reverse(np.tile(np.int32(symbols), 4000), model)
    return (coder.num_bits() - before) / 4000


@pytest.mark.parametrize(("bits", "value"), [(2, 0), (4, 20), (10, -1500)])
def test_the_prior_has_the_normal_distributions_masses(bits, value):
    latents = masses.Latents(masses.Distribution(masses.distribution_table("normal")), masses.steps_in_octave())
    z = value / 2**bits
    mass = stats.norm.cdf(z + 0.5 / 2**bits) - stats.norm.cdf(z - 0.5 / 2**bits)
    found = bits_of(latents.prior(bits), [value + (masses.FARTHEST << bits)])
    assert found == pytest.approx(-np.log2(mass), abs=0.02)


@pytest.mark.parametrize(("spread", "steps"), [(-16, 0), (0, 1), (13, -4), (50, 100), (84, 0)])
def test_a_posterior_has_the_normal_distributions_masses(spread, steps):
    latents = masses.Latents(masses.Distribution(masses.distribution_table("normal")), masses.steps_in_octave())
    sigma = 2 ** (spread / 8)
    mass = stats.norm.cdf((steps + 0.5) / sigma) - stats.norm.cdf((steps - 0.5) / sigma)
    found = bits_of(latents.posterior(spread), masses.symbols_of(np.array([steps])))
    assert found == pytest.approx(-np.log2(mass), abs=0.02)
    assert latents.farthest(spread) >= 5.5 * sigma


def test_symbols_of_a_posterior_go_from_its_middle_outward():
    np.testing.assert_array_equal(masses.offsets(np.arange(7)), [0, 1, -1, 2, -2, 3, -3])
    np.testing.assert_array_equal(masses.symbols_of(masses.offsets(np.arange(99))), np.arange(99))


def test_blocks_cover_all_images_and_grow():
    for number in (0, 1, 2, 7, 1000, 4321):
        found = bits_back.blocks(number)
        assert [i for part in found for i in range(number)[part]] == list(range(number))
        assert all(part.stop - part.start <= max(1, min(500, 3 * part.start // 10)) for part in found)


# Networks and likelihoods


def test_the_integer_networks_are_the_models(coded):
    run, made, images, labels = coded
    known = None if labels is None else np.searchsorted(run.model.classes, labels)
    codes = run.encode(images, labels)
    steps, spreads = made.posterior(images, known, 7)
    np.testing.assert_allclose(steps * 2.0**-made.bits, codes.means, atol=0.14)  # half of the coarsest grid, 1/4
    wide = np.minimum(0.5 * np.float64(codes.logvars) / np.log(2), 0.5)
    np.testing.assert_allclose(spreads / 8 - made.bits, wide, atol=0.08)

    @jax.jit
    def drawn(z):
        parameters = run.model.decode(run.params, z, labels)
        pixels = run.model.likelihood.sample(jax.random.key(0), parameters)
        return pixels, run.model.likelihood.log_prob(parameters, pixels)

    # Of images that the model draws: of others the coder's least probability makes the rarest levels shorter.
    pixels, expected = drawn(jnp.asarray(steps * 2.0**-made.bits, jnp.float32))
    likely = np.rint(255 * np.asarray(pixels)).astype(np.uint8)
    bits = code_length(made, made.decoded(steps, known, 7), likely)
    assert bits == pytest.approx(-float(np.sum(expected)) / np.log(2), rel=0.005)


def code_length(made, decoded, images):
    bits = 0.0

    def ask(rows, of):
        nonlocal bits
        symbols = np.asarray(of(images.astype(np.int64))).ravel()
        shares = rows[np.arange(len(symbols)), symbols] / rows.sum(axis=1, dtype=np.float64)
        bits -= np.log2(np.maximum(shares, 2.0**-24)).sum()
        return symbols

    np.testing.assert_array_equal(made.pixels.walk(decoded, ask), images)
    return bits


def test_images_come_back_from_words_that_do_not_depend_on_the_batch(coded):
    run, made, images, labels = coded
    known = None if labels is None else np.searchsorted(run.model.classes, labels)
    words = bits_back.encode(made, images, known, 500)
    for batch in (1, 7):
        np.testing.assert_array_equal(bits_back.encode(made, images, known, batch), words)
        again, own = bits_back.decode(made, words, len(images), batch)
        np.testing.assert_array_equal(again, images)
        assert known is None or np.array_equal(own, known)


def test_a_sum_that_could_leave_what_is_exact_is_refused():
    with pytest.raises(OverflowError, match="exact"):
        fixed_point.check_sums(np.full((600, 2), 2**20), np.zeros(2))
    run = drawn_run((4, 4, 1))
    dense = run.params["decoder"]["Dense_0"]
    for value, words in ((1e9, "a sum can reach"), (np.inf, "not finite"), (1e30, "too large")):
        dense["kernel"] = dense["kernel"].at[0, 0].set(value)
        with pytest.raises(RunError, match=words):
            convert.make_codec(run)


def test_a_table_comes_back_from_its_steps():
    for name in ("gelu", "silu", "relu", "tanh"):
        table = fixed_point.activation_table(name)
        np.testing.assert_array_equal(fixed_point.read_steps(fixed_point.store_steps(table)), table)


# Files

ANY = st.one_of(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=1, min_side=0, max_side=6).map(lambda n: (*n, 4, 4, 1))),
    st.sampled_from([0, 1, 127, 255]).map(lambda value: np.full((5, 4, 4, 1), value, np.uint8)),
)


@settings(deadline=None, max_examples=20)
@given(ANY)
def test_any_images_come_back(grey, images):
    found = decompress(grey, compress(grey, images))
    np.testing.assert_array_equal(found.images, images)
    assert found.damaged == []


def test_the_coded_form_of_strange_images_comes_back_too(ready):
    # As words, where a file would have them raw.
    strange = [
        RNG.integers(0, 256, (9, 8, 8, 1), dtype=np.uint8),
        *(np.full((9, 8, 8, 1), v, np.uint8) for v in (0, 255)),
    ]
    for images in strange:
        words = bits_back.encode(ready[0], images, None, 500)
        np.testing.assert_array_equal(bits_back.decode(ready[0], words, 9, 500)[0], images)


def test_a_file_is_as_long_as_the_bound_says(run, digits):
    images = binary(digits.train.images[:1000])
    content = compress(convert.make_codec(run), images)
    bound = run.evaluate(images, samples=8)["loss"] * 1000 / np.log(2) / 8
    assert 0.99 * bound < len(content) < 1.02 * bound


def test_three_segments_come_back(ready):
    made, images, content = ready
    assert len(content) < 0.7 * images.size
    np.testing.assert_array_equal(decompress(made, content).images, images)


@pytest.fixture(scope="module")
def labelled():
    made = convert.make_codec(drawn_run((7, 5, 1), condition="labels"))
    return made, binary(RNG.integers(0, 256, (4, 7, 5, 1), dtype=np.uint8)), np.array([9, 2, 5, 5], np.int32)


def test_labels_and_names_come_back(labelled):
    made, images, labels = labelled
    names = ["a.png", "ü/b\n.png", "c\udcff", ""]
    found = decompress(made, compress(made, images, labels, names))
    np.testing.assert_array_equal(found.images, images)
    np.testing.assert_array_equal(found.labels, labels)
    assert found.files == names


def test_one_image_is_a_small_file(ready):
    made, images, _ = ready
    assert len(compress(made, images[:1])) < 24 + 0.9 * images[0].size
    assert len(compress(made, images[:0])) < 24


def damaged(content, rng):
    """Content with a flipped bit, a run of noise, or its end cut off."""
    at, broken = int(rng.integers(len(content))), bytearray(content)
    kind = rng.integers(3)
    if kind == 0:
        broken[at] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        broken[at : at + 20] = rng.bytes(len(broken[at : at + 20]))
    else:
        del broken[at:]
    return bytes(broken)


def check_damage(ready, number):
    made, images, content = ready
    rng, starts = np.random.default_rng(number), 1000 * np.arange(4)
    for _ in range(number):
        broken = damaged(content, rng)
        if broken == content:
            continue
        try:
            found = decompress(made, broken)
        except UsageError:
            continue
        lost = [i for i in range(3) if i + 1 in found.damaged]
        assert lost
        cut = len(broken) < len(content)
        assert len(lost) <= 2 or cut  # noise over the end of one segment
        kept = np.setdiff1d(np.arange(2500), np.concatenate([np.arange(starts[i], starts[i + 1]) for i in lost]))
        np.testing.assert_array_equal(found.index, kept)
        np.testing.assert_array_equal(found.images, images[kept])


def test_damage_is_noticed_and_stays_in_its_segment(ready):
    check_damage(ready, 20)


@pytest.mark.slow
def test_every_one_of_many_damages_is_noticed(ready):
    check_damage(ready, 200)


def test_every_byte_of_the_header_counts(ready):
    made, _, content = ready
    _, at = header.unpack(content, "it")
    for i in range(at):
        with pytest.raises(UsageError):
            decompress(made, content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :])
    for broken in (content[:at], content[: at - 1], b"", content + b"\0"):
        with pytest.raises(UsageError):
            decompress(made, broken)


@pytest.mark.parametrize("shape", [(2**35, 2**35, 1), (2**32, 2**32, 2**31), (2**21, 2**21, 2**21)])
def test_a_header_of_more_pixels_than_there_can_be_is_refused(shape):
    with pytest.raises(UsageError, match="is cut off or damaged"):
        header.unpack(header.pack(header.Header(b"abcd", 5, shape, None, [])), "it")


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=80), st.integers(0, 2**40), st.tuples(*[st.integers(0, 2**20)] * 3))
def test_a_forged_header_is_refused_or_read(rest, number, shape):
    forged = header.pack(header.Header(b"abcd", number, shape, None, []))
    for content in (forged + rest, forged[:9] + rest):
        with pytest.raises(UsageError) if number or 0 in shape or rest else pytest.raises((UsageError, StopIteration)):
            header.unpack(content, "it")
            raise StopIteration


def test_a_codec_comes_back_and_is_refused_when_damaged(ready, tmp_path):
    made, *_ = ready
    path = codec.write_codec(tmp_path, made)
    assert codec.read_codec(path).digest == made.digest
    assert codec.find_codec(tmp_path, b"another") is None
    assert codec.find_codec(tmp_path, made.arrays["model"].tobytes()).digest == made.digest
    whole = path.read_bytes()
    for i in range(200, len(whole), len(whole) // 10):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 255]) + whole[i + 1 :])
        with contextlib.suppress(UsageError):  # not every byte of a zip archive means something
            assert codec.read_codec(path).digest == made.digest


def test_a_kept_file_decodes_for_ever():
    content = (KEPT / "digits.vaez").read_bytes()
    read, _ = header.unpack(content, "digits.vaez")
    made = container.codec_in(KEPT, read, "digits.vaez")
    images = decompress(made, content).images
    assert hashlib.sha256(images.tobytes()).hexdigest() == (KEPT / "digits.sha256").read_text().strip()
    assert compress(made, images) == content


# The same bytes from every process


def digest_elsewhere(made, images, tmp_path, batch=500, python=sys.executable, **environment):
    path = codec.write_codec(tmp_path, made)
    np.save(tmp_path / "images.npy", images)
    command = [
        str(python),
        str(Path(__file__).with_name("coding.py")),
        str(path),
        str(tmp_path / "images.npy"),
        str(batch),
    ]
    root = str(Path(__file__).parents[2])
    clean = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(command, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    digest, same = done.stdout.split()
    assert same == "True"
    return digest


def test_another_process_with_another_kernel_writes_the_same_file(ready, tmp_path):
    made, images, _ = ready
    here = hashlib.sha256(compress(made, images[:60])).hexdigest()
    assert (
        digest_elsewhere(made, images[:60], tmp_path, 7, OPENBLAS_CORETYPE="Nehalem", OPENBLAS_NUM_THREADS="2") == here
    )


@pytest.mark.slow
def test_all_kernels_threads_batches_and_pythons_write_the_same_file(ready, tmp_path):
    made, images, content = ready
    here = {hashlib.sha256(content).hexdigest()}
    for kernel in ("Nehalem", "Sandybridge", "Haswell"):
        for threads, batch in (("1", 500), ("2", 7), ("2", 1)):
            more = {"OPENBLAS_CORETYPE": kernel, "OPENBLAS_NUM_THREADS": threads}
            here.add(digest_elsewhere(made, images, tmp_path, batch, **more))
    other = os.environ.get("VAE_JAX_OTHER_PYTHON")  # with NumPy, SciPy and constriction, such as of a 3.12
    if other:
        here.add(digest_elsewhere(made, images, tmp_path, python=other))
    assert len(here) == 1


# What is refused


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": "ae"}, "an AE.*\n.*--model vae"),
        ({"likelihood": "learned_gaussian"}, "learned_gaussian.*\n.*beta_binomial"),
        ({"fourier_features": 2}, "Fourier.*\n.*--fourier-features 0"),
        ({"posterior": "householder"}, "posterior Householder.*\n.*--posterior diagonal"),
    ],
)
def test_a_model_without_a_codec_is_refused_with_the_remedy(fields, words):
    with pytest.raises(UsageError, match=words):
        convert.check_codable(drawn_run((4, 4, 1), **fields))


def test_another_prior_is_refused():
    run = drawn_run((4, 4, 1))
    other = run.with_prior(FullGaussian(), FullGaussian.fit(RNG.standard_normal((9, 4))))
    with pytest.raises(UsageError, match="FullGaussian"):
        convert.check_codable(other)


def command(*arguments):
    word, *rest = map(str, arguments)
    main(study.Config, None, [word, *rest, "--no-compilation-cache"], COMMANDS)


def refused(capsys, *arguments, code=2):
    with pytest.raises(SystemExit) as stop:
        command(*arguments)
    errors = capsys.readouterr().err
    assert stop.value.code == code, errors
    assert len(errors.strip().splitlines()) <= 2
    return errors


def test_the_commands_as_a_user_has_them(run, digits, tmp_path, capsys):
    before = {file.name for file in run.path.iterdir()}
    grey = np.concatenate([digits.train.images, digits.test.images])
    images = binary(grey)
    source, packed, back = (tmp_path / name for name in ("images.npz", "out.vaez", "back.npz"))
    np.savez(source, images=images)
    np.savez(tmp_path / "grey.npz", images=grey)
    np.savez(tmp_path / "other.npz", images=images[:, :7])
    (tmp_path / "other").mkdir()
    new = tmp_path / "x.vaez"
    errors = refused(capsys, "compress", run.path, tmp_path / "grey.npz", new, "--lossless")
    assert "black and white" in errors
    assert "Binarise" in errors
    assert {file.name for file in run.path.iterdir()} == before
    command("compress", run.path, source, packed, "--lossless")
    assert "bits per pixel" in capsys.readouterr().out
    command("decompress", run.path, packed, back)
    with np.load(back) as file:
        assert file.files == ["images"]
        np.testing.assert_array_equal(file["images"], images)
    content = bytearray(packed.read_bytes())
    content[-9] ^= 4
    (tmp_path / "bad.vaez").write_bytes(content)
    errors = refused(capsys, "decompress", run.path, tmp_path / "bad.vaez", tmp_path / "part.npz", code=1)
    assert "segments these are lost: 2." in errors
    assert "1,000 images" in errors
    with np.load(tmp_path / "part.npz") as file:
        np.testing.assert_array_equal(file["index"], np.arange(1000))
        np.testing.assert_array_equal(file["images"], images[:1000])
    for arguments, words in [
        (("compress", run.path, source, packed, "--lossless"), "exists"),
        (("compress", run.path, source, new, "--lossless", "--quality", 3), "--quality 3 has no effect"),
        (("compress", run.path, source, new, "--lossless", "--data-dir", tmp_path), "--data-dir"),
        (("compress", run.path, tmp_path / "other.npz", new, "--lossless"), "7"),
        (("decompress", tmp_path / "other", packed, tmp_path / "x.npz"), "another model"),
    ]:
        assert words in refused(capsys, *arguments)
    assert not list(tmp_path.glob("x.*"))
    assert len(list(run.path.glob("codec-*.npz"))) == 1


@pytest.mark.slow
def test_the_study_on_digits(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.lossless.measure.ALONE", 3)
    config = study.Config(
        dataset="digits", output=tmp_path / "study", latent_dim=2, epochs=1, images=60, compilation_cache=False
    )
    models = study.run(config)["models"]
    assert {p.name for p in (tmp_path / "study" / "figures").iterdir()} == {"binarised.png", "grey.png"}
    for each in models.values():
        parts = each["numbers"]
        assert each["together"]["bits back"] > parts["bound"]
        assert parts["latents_sent"] - parts["latents_back"] == pytest.approx(parts["kl"], rel=1e-3)
        assert parts["bound"] == pytest.approx(parts["reconstruction"] + parts["kl"])
    assert "Bit-Swap" not in (tmp_path / "study" / "report.md").read_text()
