"""The test of the design: what no one foresaw is added in one place, here, and everything else takes it.

Each addition below is one definition and one line that registers it. It then trains by its flag, is saved, comes back
by `load_run` to the same numbers, is evaluated, encoded, generated from and plotted.
"""

import dataclasses
import json
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vae_jax
from experiments import mnist, plot_latent
from experiments.study import StudyConfig, begin
from vae_jax.cli.command import main
from vae_jax.data.raw import Raw, RawSplit
from vae_jax.data.sources import SOURCES, Source, register_source
from vae_jax.domains import at_least
from vae_jax.errors import UsageError
from vae_jax.models.distributions import DiagonalGaussian
from vae_jax.models.inputs import Inputs
from vae_jax.models.likelihoods import Likelihood, sum_pixels
from vae_jax.models.objectives import ELBO
from vae_jax.models.posteriors import Family
from vae_jax.models.priors import Prior
from vae_jax.registry import ARCHITECTURES, LIKELIHOODS, OBJECTIVES, OPTIMIZERS, POSTERIORS, PRIORS, SAMPLINGS
from vae_jax.runs.records import write_config
from vae_jax.training.recipe import Recipe
from vae_jax.training.sampling import Sampling

# A likelihood with two parameters a value.


class Laplace(Likelihood):
    """Location and log scale of each value."""

    parameters = 2

    def split(self, parameters):
        location, log_scale = jnp.split(parameters, 2, axis=-1)
        return location, jnp.clip(log_scale, -5, 5)

    def log_prob(self, parameters, x):
        location, log_scale = self.split(parameters)
        return -sum_pixels(jnp.abs(x - location) * jnp.exp(-log_scale) + log_scale + jnp.log(2.0))

    def mean(self, parameters):
        return self.split(parameters)[0]

    def sample(self, key, parameters):
        location, log_scale = self.split(parameters)
        return location + jnp.exp(log_scale) * jax.random.laplace(key, location.shape)


# A network with GroupNorm.


class NormalisedEncoder(nn.Module):
    features: int

    @nn.compact
    def __call__(self, x):
        h = nn.Dense(16)(x.reshape(x.shape[0], -1))
        return nn.Dense(self.features)(nn.gelu(nn.GroupNorm(4)(h)))


class NormalisedDecoder(nn.Module):
    shape: tuple

    @nn.compact
    def __call__(self, z):
        h = nn.gelu(nn.GroupNorm(4)(nn.Dense(16)(z)))
        return nn.Dense(int(np.prod(self.shape)))(h).reshape(-1, *self.shape)


def normalised(settings, image_shape, features, parameters):
    height, width, channels = image_shape
    return NormalisedEncoder(features), NormalisedDecoder((height, width, channels * parameters))


# A prior: a fixed mixture of two Gaussians, whose KL divergence has no closed form.


class TwoHills(Prior):
    def log_prob(self, params, z):
        hills = [-0.5 * jnp.sum((z - centre) ** 2 + jnp.log(2 * jnp.pi), axis=-1) for centre in (-2.0, 2.0)]
        return jax.nn.logsumexp(jnp.stack(hills), axis=0) - jnp.log(2.0)

    def sample(self, params, key, shape, temperature=1.0):
        which, where = jax.random.split(key)
        side = jnp.where(jax.random.bernoulli(which, shape=(shape[0], 1)), 2.0, -2.0)
        return side + temperature * jax.random.normal(where, shape)


# A posterior: Gaussians with one variance for all dimensions.


class Spherical(Family):
    def features(self, latent_dim):
        return 2 * latent_dim

    def of(self, features):
        mean, logvar = jnp.split(features, 2, axis=-1)
        return DiagonalGaussian(mean, jnp.broadcast_to(jnp.mean(logvar, axis=-1, keepdims=True), mean.shape))


# An objective: beta along a cosine.


@dataclasses.dataclass(frozen=True)
class CosineELBO(ELBO):
    def weight(self, step):
        return self.beta * 0.5 * (1 - jnp.cos(jnp.pi * jnp.minimum(step / 20, 1.0)))


# A sampling: darker images more often.


class Dark(Sampling):
    weighs = True

    def weights(self, model, params, train, inputs, key):
        return 256.0 - np.asarray(train.images).mean(axis=(1, 2, 3))


# A data source: .pgm files.


def read_pgm(given, reading):
    _, size, _, pixels = Path(given).read_bytes().split(b"\n", 3)
    width = int(size.split()[0])
    return Raw(given, RawSplit(np.frombuffer(pixels, np.uint8).reshape(-1, 8, width)))


PGM = Source("pgm", "a .pgm file of images, one below the other", lambda given: given.endswith(".pgm"), read_pgm)


@pytest.fixture(autouse=True, scope="module")
def registered():
    LIKELIHOODS.register("laplace", lambda settings, image_shape: Laplace())
    ARCHITECTURES.register("normalised", normalised)
    PRIORS.register("two_hills", lambda settings: TwoHills())
    POSTERIORS.register("spherical", lambda settings: Spherical())
    OBJECTIVES.register("cosine", lambda settings: CosineELBO(settings.beta), uses=("beta",))
    OPTIMIZERS.register("lion", optax.lion)
    SAMPLINGS.register("dark", lambda settings: Dark())
    register_source(PGM)
    yield
    for registry, name in (
        *((LIKELIHOODS, "laplace"), (ARCHITECTURES, "normalised"), (PRIORS, "two_hills")),
        *((POSTERIORS, "spherical"), (OBJECTIVES, "cosine"), (OPTIMIZERS, "lion")),
        (SAMPLINGS, "dark"),
    ):
        registry.unregister(name)
    SOURCES.remove(PGM)


@pytest.fixture(scope="module")
def pgm(tmp_path_factory, digits):
    path = tmp_path_factory.mktemp("data") / "digits.pgm"
    images = digits.train.images[:200, ..., 0]
    path.write_bytes(b"P5\n8 %d\n255\n" % (8 * len(images)) + images.tobytes())
    return path


SMALL = ["--epochs", "2", "--hidden-sizes", "16", "--batch-size", "64", "--grid-size", "3", "--no-compilation-cache"]
ADDED = [
    *(
        "--likelihood",
        "laplace",
        "--arch",
        "normalised",
        "--prior",
        "two_hills",
        "--posterior",
        "spherical",
        "--objective",
        "cosine",
        "--beta",
        "2",
    ),
    *("--sampling", "dark"),
    *("--optimizer", "lion", "--learning-rate", "1e-3"),
]


def test_what_is_added_in_one_place_is_a_flag_value_and_does_all_that_the_others_do(pgm, tmp_path, capsys):
    path = tmp_path / "run"
    main(mnist.Config, mnist.run, ["--dataset", str(pgm), *SMALL, *ADDED, "--run-dir", str(path)])
    run, data = vae_jax.load_run(path), vae_jax.load_dataset(pgm)
    again = run.evaluate(data.test.images)
    assert again["loss"] == pytest.approx(run.summary["test"]["loss"], abs=1e-4)
    assert again["loss"] == pytest.approx(again["reconstruction"] + again["kl"], abs=1e-4)
    assert run.summary["test"]["kl"] > 0
    first, last = run.metrics
    assert last["validation"]["loss"] < first["validation"]["loss"] + 1
    # The objective's weight is 0 at first: the KL term costs nothing yet.
    assert first["train"]["objective"] < first["train"]["loss"]
    for leaf in jax.tree.leaves(run.params):
        assert np.isfinite(leaf).all()
    codes = run.encode(data.test.images[:5])
    assert codes.means.shape == (5, 2)
    np.testing.assert_array_equal(codes.logvars[:, 0], codes.logvars[:, 1])
    assert run.reconstruct(data.test.images[:5]).shape == (5, 8, 8, 1)
    assert run.generate(7, seed=1).shape == (7, 8, 8, 1)
    assert {file.name for file in (path / "figures").iterdir()} >= {"latent_means.png", "samples.png"}
    drawn = plot_latent.run(plot_latent.Config(path, output=tmp_path / "out", grid_size=3))
    assert "latent_prior.png" in [file.name for file in drawn]
    assert len(drawn) == 5
    assert isinstance(run.model.likelihood, Laplace)
    assert run.params["decoder"]["Dense_1"]["kernel"].shape == (16, 128)
    assert "GroupNorm_0" in run.params["encoder"]
    draws = run.model.prior.sample({}, jax.random.key(0), (4000, 2))
    assert abs(float(jnp.abs(draws[:, 0]).mean()) - 2) < 0.1
    main(mnist.Config, mnist.run, ["--run-dir", str(path), "--resume", "--epochs", "3"])
    assert [row["epoch"] for row in vae_jax.load_run(path).metrics] == [1, 2, 3]
    capsys.readouterr()


def test_an_optimiser_is_used_by_its_name_and_as_an_object(digits):
    settings = vae_jax.Settings(hidden_sizes=(8,), epochs=1, batch_size=64, optimizer="lion", learning_rate=1e-3)
    model = vae_jax.build_model(settings, digits.image_shape)
    lion, weight = Recipe(model, settings, 200).optimizer, jnp.zeros(2)
    state = lion.init(weight)
    for gradient in ([3.0, -0.1], [0.1, -5.0]):
        update, state = lion.update(jnp.float32(gradient), state, weight)
    assert update[0] == -update[1] < 0  # by the sign alone
    result = vae_jax.fit(model, digits.train, digits.validation, settings, optimizer=optax.sgd(0.0))
    start = model.init(jax.random.split(jax.random.key(0), 4)[0])
    for a, b in zip(jax.tree.leaves(result.params), jax.tree.leaves(start), strict=True):
        np.testing.assert_array_equal(a, b)  # at rate 0 nothing moves


def test_a_study_is_one_file(tmp_path, monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class Config(StudyConfig):
        """Two seeds."""

        seeds: int = at_least(1, 2)
        """How many."""

    def run(config):
        dataset = vae_jax.load_dataset(config.dataset, config.data_dir)
        members = [config.settings(dataset, epochs=1, hidden_sizes=(8,), seed=s) for s in range(config.seeds)]
        study = begin(config, "seeds", dataset, members)
        runs = study.train({f"seed{member.seed}": member for member in members}, together=True)
        losses = [one.summary["test"]["loss"] for one in runs.values()]
        return study.finish(f"# Seeds\n\n{losses}", losses=losses)

    monkeypatch.chdir(tmp_path)
    main(Config, run, ["--dataset", "digits", "--seeds", "2", "--output", "out", "--no-compilation-cache"])
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert len(summary["losses"]) == 2
    assert vae_jax.load_run(tmp_path / "out" / "seed1").summary["test"]["loss"] == summary["losses"][1]


class OwnDecoder(nn.Module):
    @nn.compact
    def __call__(self, z):
        return nn.Dense(64)(jnp.sin(z)).reshape(-1, 8, 8, 1)


def test_a_model_and_inputs_that_were_given_come_back_by_load_run_with_them_or_not_at_all(tmp_path, digits):
    settings = vae_jax.Settings(hidden_sizes=(8,), epochs=1, batch_size=64)
    built = vae_jax.build_model(settings, digits.image_shape)
    with pytest.raises(UsageError, match=r"decoder must give \(8, 8, 2\)"):
        vae_jax.train_run(
            tmp_path / "run", dataclasses.replace(built, decoder=OwnDecoder(), likelihood=Laplace()), settings, digits
        )
    assert not (tmp_path / "run").exists()
    model, inputs = dataclasses.replace(built, decoder=OwnDecoder()), Inputs(binarize="threshold")
    result = vae_jax.train_run(tmp_path / "run", model, settings, digits, inputs=inputs)
    for given, lacking in (({"inputs": inputs}, "model"), ({"model": model}, "inputs")):
        with pytest.raises(UsageError, match=rf"with {lacking} of its own.*\n.*load_run\(path, {lacking}=...\)"):
            vae_jax.load_run(tmp_path / "run", **given)
    run = vae_jax.load_run(tmp_path / "run", "latest", model=model, inputs=inputs)
    for a, b in zip(jax.tree.leaves(run.params), jax.tree.leaves(result.params), strict=True):
        np.testing.assert_array_equal(a, b)
    arguments = (model, run.params, digits.test.images, run.evaluation_key)
    binarised = vae_jax.evaluate(*arguments, binarize="threshold")["loss"]
    assert run.summary["test"]["loss"] == pytest.approx(binarised, abs=1e-4)
    assert run.evaluate(digits.test.images)["loss"] == pytest.approx(binarised, abs=1e-4)
    assert abs(binarised - vae_jax.evaluate(*arguments)["loss"]) > 0.01


def test_a_run_whose_likelihood_is_not_registered_here_is_refused_by_name(tmp_path, digits):
    LIKELIHOODS.register("gone", lambda settings, image_shape: Laplace())
    write_config(tmp_path, vae_jax.Settings(likelihood="gone"), digits)
    LIKELIHOODS.unregister("gone")
    with pytest.raises(UsageError, match=r"likelihood 'gone', which is not registered.*\n.*Register it first"):
        vae_jax.load_run(tmp_path)
