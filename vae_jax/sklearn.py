"""Estimators of scikit-learn for tables of floats: `from vae_jax.sklearn import VAE, AE`.

A row is what an image is elsewhere: nothing is rounded to bytes, and each feature is standardised inside. `fit` trains
by `vae_jax.fit`; what an estimator keeps are settings and arrays of NumPy, so that it pickles.
"""

import warnings
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from numbers import Integral, Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, OutlierMixin, TransformerMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from vae_jax.config import Settings, few_images_batch
from vae_jax.data.split import Split
from vae_jax.errors import UsageError
from vae_jax.measures.threshold import calibrate
from vae_jax.models.autoencoders import AnyModel, Parameters, build_model
from vae_jax.models.chunks import ROWS, in_chunks
from vae_jax.models.evaluation import batch_losses
from vae_jax.models.inputs import Inputs
from vae_jax.training.fit import fit

_LEAST_ROWS = 32
"""Rows that a program is compiled for: as many, doubled until they are enough, so that few sizes mean few programs."""
_FLOATS = Inputs(floats=True)


@dataclass(kw_only=True, eq=False, repr=False)
class _Estimator(ClassNamePrefixFeaturesOutMixin, TransformerMixin, OutlierMixin, BaseEstimator):
    """What both share. Each field is a parameter of scikit-learn's and is left as it was given."""

    latent_dim: int = 2
    """Numbers that a row becomes."""
    hidden_sizes: tuple[int, ...] = (128, 64)
    """Widths of the encoder's hidden layers; the decoder mirrors them."""
    activation: str = "gelu"
    """Nonlinearity between the layers: gelu, relu, silu or tanh."""
    epochs: int | None = None
    """Passes over the rows. Default: 36, and 100 for fewer than 10,000 rows."""
    batch_size: int | None = None
    """Rows a step. Default: 256, and 32 for fewer rows than that."""
    learning_rate: float = 3e-3
    """Peak of the learning rate, which falls to 1% of it along a cosine."""
    patience: int = 0
    """Stop after so many epochs without a lower validation loss; 0: never."""
    standardize: bool = True
    """Whether the networks see each feature less its mean and over its deviation in the training rows."""
    validation_fraction: float = 0.1
    """Share of the rows that is not trained on: for the validation loss, and for the threshold of `predict`."""
    false_alarm_rate: float = 0.05
    """Chance, at most, that `predict` calls a row an outlier which is like those it was fitted to."""
    random_state: Any = None
    """Seed of the rows held out, the initial parameters, the order and the noise; or a RandomState that draws it."""

    def fit(self, X: Any, y: Any = None) -> Any:
        """Train on rows [n, features]; `y` is ignored.

        Raises:
            UsageError: a parameter outside its domain.
        """
        rows = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        for name in ("validation_fraction", "false_alarm_rate"):
            value = getattr(self, name)
            if not (isinstance(value, Real) and 0 < float(value) < 1):
                raise UsageError(f"{name} must be a number between 0 and 1, got {value!r}.")
        given = self.random_state
        seed = int(given) if isinstance(given, int | np.integer) else check_random_state(given).randint(2**31 - 1)
        held = min(len(rows) - 1, max(1, round(self.validation_fraction * len(rows))))
        order = np.random.default_rng(seed).permutation(len(rows))
        train, validation = rows[order[held:]], rows[order[:held]]
        self.scaler_ = StandardScaler(with_mean=bool(self.standardize), with_std=bool(self.standardize)).fit(train)
        self.settings_ = self._settings(seed, len(train))
        model = self._model()
        if not model.likelihood.of_reals:
            raise UsageError(f"likelihood must be one of all real numbers, got {self.settings_.likelihood!r}.")
        split, held_out = (Split.of_floats(self._standardized(part)) for part in (train, validation))
        result = fit(model, split, held_out, self.settings_, inputs=_FLOATS)
        self.params_ = jax.device_get(result.params)
        self.history_ = result.history
        self._calibrate(self._scores(self._standardized(validation)))
        return self

    def transform(self, X: Any) -> Float[np.ndarray, "n latent"]:
        """Posterior means, or codes, of rows [n, features]; float32."""
        return self._padded(_means, self._seen(X))

    def inverse_transform(self, X: Any) -> Float[np.ndarray, "n features"]:
        """Expected rows of latents [n, latent_dim]; float32."""
        check_is_fitted(self)
        latents = check_array(X, dtype=np.float32)
        if latents.shape[1] != self.settings_.latent_dim:
            raise UsageError(f"latents must be [n, {self.settings_.latent_dim}], got {latents.shape}.")
        return self._rows(self._padded(_decoded, latents))

    def score_samples(self, X: Any) -> Float[np.ndarray, " n"]:
        """How usual each row is, the higher the more, as the class says; -inf where float32 does not reach."""
        return self._scores(self._seen(X))

    def score(self, X: Any, y: Any = None) -> float:
        """Mean of `score_samples`, as model selection maximises it."""
        return float(np.mean(self.score_samples(X), dtype=np.float64))

    def decision_function(self, X: Any) -> Float[np.ndarray, " n"]:
        """`score_samples` less the threshold: negative for outliers."""
        scores = self.score_samples(X) - self.offset_
        if self.false_alarm_rate_ > self.false_alarm_rate:
            warnings.warn(
                f"With {self.validation_rows_} validation rows the rate of false alarms is at most "
                f"{self.false_alarm_rate_:.2g}, where {self.false_alarm_rate:.2g} was wanted.\n"
                "Give more rows, a larger validation_fraction or a larger false_alarm_rate.",
                stacklevel=2,
            )
        return scores

    def predict(self, X: Any) -> np.ndarray:
        """+1 for rows like those of `fit`, -1 for outliers, [n]."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def __sklearn_tags__(self) -> Any:
        """Results are float32, whatever is given."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    @property
    def _n_features_out(self) -> int:
        return int(self.settings_.latent_dim)

    def _more(self) -> dict[str, Any]:
        # The settings that one of the two alone has.
        raise NotImplementedError

    def _settings(self, seed: int, rows: int) -> Settings:
        default = Settings.batch_size if rows >= Settings.batch_size else few_images_batch(rows)
        names = ("latent_dim", "hidden_sizes", "activation", "epochs", "learning_rate", "patience")
        same = {name: getattr(self, name) for name in names}
        size = default if self.batch_size is None else self.batch_size
        return Settings(**same, **self._more(), batch_size=size, seed=seed)

    def _model(self) -> Any:
        return build_model(self.settings_, (1, self.n_features_in_, 1))

    def _calibrate(self, scores: np.ndarray) -> None:
        # As far as so few rows allow: `decision_function` says where that is not what was wanted.
        unlike, wanted = -np.maximum(scores, np.finfo(np.float32).min), self.false_alarm_rate
        self.validation_rows_, least = len(scores), 1 / (len(scores) + 1)
        enough = Fraction(str(wanted)) * (len(scores) + 1) >= 1
        self.false_alarm_rate_ = wanted if enough else least
        self.offset_ = -(calibrate(unlike, wanted) if enough else float(unlike.max()))

    def _scores(self, values: np.ndarray) -> np.ndarray:
        model, key = self._model(), jax.random.key(self.settings_.seed)
        samples = self.settings_.test_samples if model.stochastic else 1
        scores = self._padded(partial(_bounds, samples, key), values).astype(np.float64)
        if model.likelihood.kind == "density" and self.scaler_.scale_ is not None:
            scores -= np.log(self.scaler_.scale_).sum()  # of the rows as they were given
        return np.nan_to_num(scores, nan=-np.inf)

    def _seen(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return self._standardized(validate_data(self, X, dtype=[np.float64, np.float32], reset=False))

    def _standardized(self, rows: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            return self.scaler_.transform(rows)[:, None, :, None].astype(np.float32)

    def _rows(self, images: np.ndarray) -> np.ndarray:
        return self.scaler_.inverse_transform(images[:, 0, :, 0]).astype(np.float32)

    def _padded(self, function: Any, values: np.ndarray) -> np.ndarray:
        # With the last row, which no other one depends on.
        size = _LEAST_ROWS
        while size < len(values):
            size *= 2
        padded = np.concatenate([values, np.repeat(values[-1:], size - len(values), axis=0)])
        return np.asarray(function(self._model(), self.params_, padded))[: len(values)]


@dataclass(kw_only=True, eq=False, repr=False)
class VAE(_Estimator):
    """Variational autoencoder of a table: a transformer, a density and an outlier detector.

    `score_samples` is a lower bound of log p(x) in nats (Burda et al. 2015), of the rows as they were given, with the
    same latent noise for every row. `predict` compares it with the scores of the rows that were held out: split
    conformal prediction, as `vae_jax.measures.threshold.calibrate` has it.
    """

    likelihood: str = "learned_gaussian"
    """Distribution of a standardised feature given the latent: one that is registered, of all real numbers."""
    sigma: float = 0.1
    """Standard deviation of the likelihood gaussian."""
    beta: float = 1.0
    """Weight of the KL term; 1 is the evidence lower bound."""
    samples: int = 16
    """Latent samples a row for its score."""

    def sample(self, n_samples: int = 1, random_state: Any = None) -> Float[np.ndarray, "n features"]:
        """Draw rows [n_samples, features]: latents of the prior, then features of the likelihood; float32."""
        check_is_fitted(self)
        if not isinstance(n_samples, Integral) or n_samples < 1:
            raise UsageError(f"n_samples must be an integer of at least 1, got {n_samples!r}.")
        key = jax.random.key(check_random_state(random_state).randint(2**31 - 1))
        return self._rows(np.asarray(_drawn(self._model(), n_samples, self.params_, key)))

    def _more(self) -> dict[str, Any]:
        names = ("likelihood", "sigma", "beta")
        return {"model": "vae", "test_samples": self.samples, **{name: getattr(self, name) for name in names}}


@dataclass(kw_only=True, eq=False, repr=False)
class AE(_Estimator):
    """Autoencoder of a table: a transformer and an outlier detector.

    `score_samples` is the negative squared error of a row's reconstruction, summed over its standardised features.
    """

    def _more(self) -> dict[str, Any]:
        return {"model": "ae", "likelihood": "squared_error"}


@partial(jax.jit, static_argnums=0)
def _means(model: AnyModel, params: Parameters, x: Array) -> Array:
    return in_chunks(partial(model.latents, params), ROWS, x)


@partial(jax.jit, static_argnums=0)
def _decoded(model: AnyModel, params: Parameters, z: Array) -> Array:
    return in_chunks(partial(model.decode_mean, params), ROWS, z)


@partial(jax.jit, static_argnums=(0, 2))
def _bounds(samples: int, key: Array, model: AnyModel, params: Parameters, x: Array) -> Array:
    def of_chunk(x: Array) -> Array:
        # One index for all rows: what a row scores does not depend on where it stands.
        batch = _FLOATS.batch(x, jnp.zeros(len(x), jnp.int32), key)
        return batch_losses(model, params, batch, samples)[2]

    return in_chunks(of_chunk, ROWS, x)


@partial(jax.jit, static_argnums=(0, 1))
def _drawn(model: Any, number: int, params: Parameters, key: Array) -> Array:
    latent, noise = jax.random.split(key)
    z = model.draw(params, latent, number)
    return model.likelihood.sample(noise, model.decode(params, z))
