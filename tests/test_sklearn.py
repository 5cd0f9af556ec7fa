"""The estimators: scikit-learn's own checks, the density against SciPy's, the threshold, and what they are used in."""

import pickle
import warnings

import jax
import numpy as np
import oracles
import pytest
from sklearn.base import clone
from sklearn.datasets import load_wine
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

import vae_jax
from vae_jax.errors import UsageError
from vae_jax.measures.threshold import calibrate
from vae_jax.models.inputs import Inputs
from vae_jax.sklearn import AE, VAE

SMALL = {"hidden_sizes": (8,), "epochs": 5}
# Two checks want outliers among the rows of `fit`, of which the default rate need not find one.
CHECKED = SMALL | {"false_alarm_rate": 0.2}
ROWS = load_wine().data  # 178 rows of 13 features, from 0.1 to 1,680
QUICK = {
    *("check_fit2d_1sample", "check_estimators_unfitted"),
    *("check_no_attributes_set_in_init", "check_parameters_default_constructible", "check_estimator_sparse_tag"),
}
CHECKS = [(each, check) for kind in (VAE, AE) for each, check in estimator_checks_generator(kind(**CHECKED))]


def name_of(check):
    return getattr(check, "func", check).__name__


@pytest.mark.filterwarnings("ignore:With .* validation rows")
@pytest.mark.parametrize(
    ("estimator", "check"),
    [
        pytest.param(each, check, marks=() if name_of(check) in QUICK and type(each) is VAE else pytest.mark.slow)
        for each, check in CHECKS
    ],
    ids=[f"{type(each).__name__}-{name_of(check)}" for each, check in CHECKS],
)
def test_scikit_learns_own(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def fitted():
    return VAE(latent_dim=3, random_state=0, validation_fraction=0.3, **SMALL | {"epochs": 40}).fit(ROWS)


def test_the_density_is_that_of_the_rows_as_they_were_given():
    linear = VAE(hidden_sizes=(), epochs=30, learning_rate=0.03, samples=500, random_state=1).fit(ROWS)
    decoder, scale = linear.params_["decoder"], linear.scaler_.scale_
    sigma = np.exp(6 * np.tanh(decoder["log_sigma"] / 6))
    weight, bias = np.float64(decoder["Dense_0"]["kernel"].T), np.float64(decoder["Dense_0"]["bias"])
    standardised = (ROWS - linear.scaler_.mean_) / scale
    exact = oracles.linear_gaussian_log_evidence(standardised, weight, bias, sigma) - np.log(scale).sum()
    scores = linear.score_samples(ROWS)
    assert scores.mean() == pytest.approx(exact.mean(), abs=0.05)
    assert np.corrcoef(scores, exact)[0, 1] > 0.999
    assert linear.score(ROWS) == pytest.approx(scores.mean())
    drawn = linear.sample(4000, random_state=0)
    np.testing.assert_allclose(drawn.mean(0), scale * bias + linear.scaler_.mean_, atol=0.1 * scale.max(), rtol=0.2)
    spread = scale * np.sqrt(np.diag(weight @ weight.T) + sigma**2)
    np.testing.assert_allclose(drawn.std(0), spread, rtol=5 / np.sqrt(2 * 4000))
    assert linear.sample(2, 0).dtype == np.float32


def test_floats_are_neither_rounded_nor_clipped(fitted):
    rows = np.float32([[0.1234567, -5.25, 1e6]])[:, None, :, None]
    batch = Inputs(floats=True).batch(jax.numpy.asarray(rows), jax.numpy.arange(1), jax.random.key(0))
    np.testing.assert_array_equal(batch.x, rows)
    np.testing.assert_array_equal(vae_jax.Split.of_floats(rows).images, rows)
    # Far rows keep their order and are never NaN.
    far = ROWS[:1] + np.array([[0.0], [1e3], [1e6], [1e200]])
    scores = fitted.score_samples(far)
    assert (np.diff(scores) < 0).all()
    assert scores[-1] == -np.inf
    assert fitted.predict(far)[-1] == -1


@pytest.mark.slow
def test_a_streamed_table_is_learned_as_one_that_lies_on_the_device():
    rows = np.random.default_rng(0).normal(size=(70, 1, 5, 1)).astype(np.float32)
    split, learned = vae_jax.Split.of_floats(rows), []
    for where in ("never", "always"):
        settings = vae_jax.Settings(
            likelihood="learned_gaussian", hidden_sizes=(4,), epochs=2, batch_size=32, device_data=where
        )
        model = vae_jax.build_model(settings, (1, 5, 1))
        learned.append(vae_jax.fit(model, split, split, settings, inputs=Inputs(floats=True)).params)
    for a, b in zip(*map(jax.tree.leaves, learned), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)


def test_floats_are_taken_where_that_is_said_alone():
    rows = np.random.default_rng(0).normal(size=(70, 1, 5, 1)).astype(np.float32)
    settings, split = vae_jax.Settings(hidden_sizes=(4,), epochs=1, batch_size=32), vae_jax.Split.of_floats(rows)
    model = vae_jax.build_model(settings, (1, 5, 1))
    with pytest.raises(UsageError, match=r"floats=False\) must be given bytes, got float32.*\n.*Split.of_floats"):
        vae_jax.fit(model, split, split, settings)
    for bad, words in ((rows[0], r"\[n, height, width, channels\]"), (np.full((1, 1, 2, 1), 1e40), "beyond it")):
        with pytest.raises(UsageError, match=words):
            vae_jax.Split.of_floats(bad)


def test_the_threshold_is_conformal_and_too_few_rows_are_said(fitted):
    order = np.random.default_rng(0).permutation(len(ROWS))
    held = ROWS[order[: fitted.validation_rows_]]
    assert fitted.offset_ == pytest.approx(-calibrate(-fitted.score_samples(held), 0.05), rel=1e-6)
    assert set(fitted.predict(ROWS)) == {-1, 1}
    np.testing.assert_array_equal(fitted.predict(ROWS) < 0, fitted.score_samples(ROWS) < fitted.offset_)
    few = clone(fitted).set_params(epochs=40, false_alarm_rate=0.01).fit(ROWS)  # the same programs
    assert few.false_alarm_rate_ == pytest.approx(1 / (few.validation_rows_ + 1))
    with pytest.warns(UserWarning, match=r"at most 0.019, where 0.01 was wanted"):
        assert (few.predict(held) == 1).all()  # at the least rate, the least usual row is the threshold


def test_an_estimator_is_what_scikit_learn_uses(fitted):
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.transform(ROWS[:40]), fitted.transform(ROWS[:40]))
    codes = fitted.transform(ROWS)
    assert (codes.shape, codes.dtype) == ((178, 3), np.float32)
    assert fitted.get_feature_names_out().tolist() == ["vae0", "vae1", "vae2"]
    rebuilt = fitted.inverse_transform(codes)
    assert rebuilt.shape == ROWS.shape
    assert np.mean((rebuilt - ROWS) ** 2 / ROWS.var(axis=0)) < 1  # nearer than the mean
    with pytest.raises(NotFittedError):
        VAE().transform(ROWS)


@pytest.mark.slow
def test_model_selection_works():
    # Another beta is no new program, and the folds have as many rows.
    pipe = make_pipeline(MinMaxScaler(), VAE(random_state=0, standardize=False, **SMALL))
    search = GridSearchCV(pipe, {"vae__beta": [0.5, 2.0]}, cv=2, refit=False).fit(ROWS)
    first, second = search.cv_results_["mean_test_score"]
    assert np.isfinite([first, second]).all()
    assert first != second
    found = cross_val_score(pipe.set_params(vae__beta=search.best_params_["vae__beta"]), ROWS, cv=2)
    assert found.mean() == pytest.approx(max(first, second))


def test_an_autoencoder_scores_by_its_squared_error():
    ae = AE(random_state=np.random.RandomState(3), **SMALL).fit(ROWS)
    error = (ae.inverse_transform(ae.transform(ROWS)) - ROWS) / ae.scaler_.scale_  # as the networks see it
    np.testing.assert_allclose(ae.score_samples(ROWS), -np.sum(error**2, axis=1), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"latent_dim": 0}, "--latent-dim must be an integer of at least 1"),
        ({"likelihood": "bernoulli"}, "likelihood must be one of all real numbers, got 'bernoulli'"),
        ({"likelihood": "squared_error"}, "needs --model ae"),
        ({"batch_size": 500}, "--batch-size must be at most the 160 training images"),
        ({"validation_fraction": 1.0}, "validation_fraction must be a number between 0 and 1, got 1.0"),
        ({"false_alarm_rate": 0.0}, "false_alarm_rate must be a number between 0 and 1, got 0.0"),
        ({"sigma": 2.0}, "--sigma 2.0 has no effect"),
    ],
)
def test_what_is_wrong_is_refused_by_its_name(given, words):
    with warnings.catch_warnings(), pytest.raises(UsageError, match=words):
        VAE(**SMALL | {"epochs": 1} | given).fit(ROWS)


def test_latents_of_another_length_are_refused(fitted):
    with pytest.raises(UsageError, match=r"latents must be \[n, 3\], got \(2, 4\)"):
        fitted.inverse_transform(np.zeros((2, 4)))
