"""Likelihoods of pixels in integers: from a decoder's output to frequencies that the coder takes.

A value of 256 levels is coded in two symbols of 16 each: which sixteenth it lies in, and where in that.
"""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Num, UInt8
from scipy.special import gammaln

from vae_jax.codecs.lossless.fixed_point import UNIT, Arrays, Values
from vae_jax.codecs.lossless.masses import MIDDLE, PRECISION, Distribution, Frequencies, distribution_table

LEVELS = 256
PART = 16
"""Levels of a sixteenth, and sixteenths."""
ALL = PRECISION - PART
"""What the frequencies of sixteen symbols add up to."""
_STEP = 2**4
"""Units of a raw number between two entries of a table of it."""
_FAR = 64
"""A raw number beyond is taken for it: no bounded one has changed much before."""
_LOG_BITS = 12
"""Logarithms are to the base 2 and in units of 2^-12."""
_SHARES = 2**16
"""What the weights of components add up to."""
_INVERSE_BITS = 24
_FINENESS = 16
"""Alpha and beta are powers of 2^(1/16)."""
_LEAST = -18
"""Log of the least of them: a value is then black, or white, but for the coder's least probability."""
_MOST_PAIRS, _PAIRS_AT_ONCE = 2**15, 2**12
"""Of alpha and beta whose frequencies are kept, and worked out at a time: 36 megabytes and a few."""
Ask: TypeAlias = Callable[[Frequencies, Callable[[np.ndarray], np.ndarray]], np.ndarray]
"""The symbols that have rows of frequencies; when encoding those that a function of the levels gives."""
Levels: TypeAlias = Num[np.ndarray, "n height width channels"]


def _raw() -> np.ndarray:
    return np.arange(-_FAR * UNIT // _STEP, _FAR * UNIT // _STEP + 1) * (_STEP / UNIT)


def _bounded(bound: float) -> np.ndarray:
    return bound * np.tanh(_raw() / bound)


def look_up(table: np.ndarray, raw: Values) -> np.ndarray:
    """The entries of a table that the functions here made, for numbers that a network gave."""
    return table.take((raw.astype(np.int64) + _STEP // 2) // _STEP + len(table) // 2, mode="clip")


def powers() -> np.ndarray:
    """2^-t for t from 0 to 1 by steps of 2^-12, in units of 2^-30."""
    return np.rint(2.0 ** (30 - np.arange(2**_LOG_BITS) / 2**_LOG_BITS)).astype(np.int32)


def _power(table: np.ndarray, t: np.ndarray) -> np.ndarray:
    # 2^-t for t >= 0.
    return table[t % 2**_LOG_BITS].astype(np.int64) >> np.minimum(t >> _LOG_BITS, 40)


def _logs(bound: float) -> np.ndarray:
    # What bounds a raw number, as a logarithm of its exponential.
    return np.rint(_bounded(bound) / math.log(2) * 2**_LOG_BITS).astype(np.int32)


class Binary:
    """A Bernoulli likelihood, of images of black and white."""

    def __init__(self, arrays: Arrays):
        """Take the tables."""
        self.distribution = Distribution(arrays["distribution"])

    @staticmethod
    def tables() -> dict[str, np.ndarray]:
        """The probability of a white pixel by its logit."""
        return {"distribution": distribution_table("logistic")}

    def walk(self, parameters: Values, ask: Ask) -> UInt8[np.ndarray, "n height width channels"]:
        """All levels, asked for in the order that both ways have."""
        white = np.minimum(self.distribution.quick(parameters.ravel() * (MIDDLE / UNIT)), PRECISION - 2)
        rows = np.stack([PRECISION - 2 - white, white], axis=-1).astype(np.float32)
        return (255 * ask(rows, lambda levels: levels // 255)).astype(np.uint8).reshape(parameters.shape)


class EightBit:
    """What the likelihoods of 256 levels share; see `walk`."""

    def __init__(self, arrays: Arrays, channels: int, components: int = 1, conditioned: bool = False):
        """Take the tables, and how the decoder's output is laid out."""
        self.arrays, self.channels = arrays, channels
        self.components, self.conditioned = components, conditioned

    def high(self, chosen: Any) -> Frequencies:
        """How often the sixteenths occur, for what `prepare` gave of some values."""
        raise NotImplementedError

    def low(self, chosen: Any, high: np.ndarray) -> Frequencies:
        """How often the levels within these sixteenths occur."""
        raise NotImplementedError

    def prepare(self, parameters: Values, known: np.ndarray, channels: slice) -> Any:
        """What `high` and `low` need of the values of these channels; `known` holds those before."""
        raise NotImplementedError

    def walk(self, parameters: Values, ask: Ask) -> UInt8[np.ndarray, "n height width channels"]:
        """All levels, asked for in the order that both ways have: red, green, blue where one depends on another."""
        levels = np.zeros((*parameters.shape[:3], self.channels), np.int64)
        one_by_one = [slice(i, i + 1) for i in range(self.channels)]
        for channels in one_by_one if self.conditioned else [slice(None)]:
            chosen = self.prepare(parameters, levels, channels)
            coded = self._coded(chosen, ask, channels)
            levels[..., channels] = coded.reshape(levels[..., channels].shape)
        return levels.astype(np.uint8)

    def _coded(self, chosen: Any, ask: Ask, channels: slice) -> np.ndarray:
        high = ask(self.high(chosen), lambda levels: levels[..., channels] // PART).astype(np.int64)
        return PART * high + ask(self.low(chosen, high), lambda levels: levels[..., channels] % PART)


def _frequencies(below: np.ndarray) -> Frequencies:
    # One more for each, so that no row is empty.
    return np.diff(below, axis=-1).astype(np.float32) + np.float32(1)


class Logistic(EightBit):
    """Discretised logistic distributions or mixtures of them; normal ones by another table."""

    @staticmethod
    def tables(name: str, log_scale_bound: float, weight_bound: float | None) -> dict[str, np.ndarray]:
        """The distribution function, the inverse of a scale in levels; of several components the log of a weight."""
        inverse = np.rint(2.0**_INVERSE_BITS * np.exp(-_bounded(log_scale_bound)) / (LEVELS - 1)).astype(np.int32)
        of_weights = {} if weight_bound is None else {"log_weight": _logs(weight_bound), "powers": powers()}
        return {"distribution": distribution_table(name), "inverse": inverse, **of_weights}

    def __init__(self, arrays: Arrays, **layout: Any):
        """As of `EightBit`."""
        super().__init__(arrays, **layout)
        self.distribution = Distribution(arrays["distribution"])

    def prepare(self, parameters: Values, known: np.ndarray, channels: slice) -> Any:
        """Locations in units of 2^-10 levels, inverse scales, and weights of components."""
        number = self.components
        blocks = parameters.reshape(*parameters.shape[:3], -1, self.channels)
        parts = [blocks[..., i : i + number, :] for i in range(0, blocks.shape[-2], number)]
        location = parts[0][..., channels]
        if self.conditioned and channels.start:
            moves = {1: [(0, 0)], 2: [(1, 0), (2, 1)]}[channels.start]  # (coefficient, what it multiplies)
            twice = sum(parts[2][..., c : c + 1] * (2.0 * known[..., None, on : on + 1] - 255) for c, on in moves)
            location = location + np.floor(twice / 2)
        inverse = look_up(self.arrays["inverse"], parts[1][..., channels]).astype(np.float64)
        return (*(_rows(part) for part in (location, inverse)), self._weights(parts, channels))

    def _weights(self, parts: list[np.ndarray], channels: slice) -> np.ndarray | None:
        if self.components == 1:
            return None
        logs = _rows(look_up(self.arrays["log_weight"], parts[-1][..., channels])).astype(np.int64)
        power = _power(self.arrays["powers"], logs.max(axis=1, keepdims=True) - logs)
        shares = power * _SHARES // power.sum(axis=1, keepdims=True)
        shares[:, -1] = _SHARES - shares[:, :-1].sum(axis=1)
        return shares.astype(np.float64)

    def high(self, chosen: Any) -> Frequencies:
        """As of `EightBit`."""
        return _frequencies(self.below(chosen, np.arange(0, LEVELS + 1, PART)[None]))

    def low(self, chosen: Any, high: np.ndarray) -> Frequencies:
        """As of `EightBit`."""
        return _frequencies(self.below(chosen, PART * high[:, None] + np.arange(PART + 1)))

    def below(self, chosen: Any, edges: np.ndarray) -> np.ndarray:
        """Shares of 2^24 below the lower edges of levels; what lies beyond black and white belongs to them."""
        location, inverse, shares = chosen
        places = edges * float(UNIT) - UNIT // 2
        total: Any = 0
        for i in range(self.components):
            t = (places - location[:, i : i + 1]) * (inverse[:, i : i + 1] * 2.0 ** -(_INVERSE_BITS - 2))
            part = self.distribution.quick(t)
            total = total + (part if shares is None else part * shares[:, i : i + 1])
        total = np.minimum(total if shares is None else np.floor(total / _SHARES), ALL)
        return np.where(edges == 0, 0, np.where(edges == LEVELS, ALL, total))


def _rows(part: np.ndarray) -> np.ndarray:
    # [values, components].
    return np.moveaxis(part, -2, -1).reshape(-1, part.shape[-2])


class BetaBinomial(EightBit):
    """The beta-binomial distribution, by the logarithms of rising factorials of alpha and beta."""

    @staticmethod
    def tables(logit_bound: float, concentration_bound: float) -> dict[str, np.ndarray]:
        """Logarithms of a concentration, of a probability, of rising factorials, of binomial coefficients."""
        most = math.ceil(concentration_bound / math.log(2)) * _FINENESS
        z = 2.0 ** (np.arange(_LEAST * _FINENESS, most + 1) / _FINENESS)[:, None]
        k = np.arange(LEVELS)
        success = -np.logaddexp(0, -_bounded(logit_bound)) / math.log(2)
        logs = {"success": success, "rising": (gammaln(z + k) - gammaln(z)) / math.log(2)}
        choices = gammaln(LEVELS) - gammaln(k + 1) - gammaln(LEVELS - k)
        logs["choices"] = choices / math.log(2)
        whole = {name: np.rint(2**_LOG_BITS * log).astype(np.int32) for name, log in logs.items()}
        return {"concentration": _logs(concentration_bound), "powers": powers(), **whole}

    def __init__(self, arrays: Arrays, **layout: Any):
        """As of `EightBit`."""
        super().__init__(arrays, **layout)
        self.number = len(arrays["rising"])
        self._forget()

    def _forget(self) -> None:
        # Where the pair of each value's alpha and beta stands among those that have come up, and their frequencies.
        self._places = np.full(self.number**2, -1, np.int32)
        self._high, self._low = np.zeros((0, PART), np.float32), np.zeros((0, PART), np.float32)

    def prepare(self, parameters: Values, known: np.ndarray, channels: slice) -> np.ndarray:
        """Which pair of alpha and beta each value has."""
        blocks = parameters.reshape(*parameters.shape[:3], 2, self.channels)
        logit, raw = (blocks[..., i, channels].ravel() for i in (0, 1))
        concentration, unit = look_up(self.arrays["concentration"], raw), 2**_LOG_BITS // _FINENESS
        alpha, beta = (
            np.clip(
                (look_up(self.arrays["success"], each) + concentration + unit // 2) // unit - _LEAST * _FINENESS,
                *(0, self.number - 1),
            )
            for each in (logit, -logit)
        )
        pairs = alpha.astype(np.int64) * self.number + beta
        if len(self._high) > _MOST_PAIRS:
            self._forget()
        new = np.unique(pairs[self._places[pairs] < 0])
        for start in range(0, len(new), _PAIRS_AT_ONCE):
            self._learn(new[start : start + _PAIRS_AT_ONCE])
        return self._places[pairs].astype(np.int64)

    def _learn(self, pairs: np.ndarray) -> None:
        rising = self.arrays["rising"]
        logs = rising[pairs // self.number] + rising[pairs % self.number, ::-1] + self.arrays["choices"]
        masses = _power(self.arrays["powers"], logs.max(axis=1, keepdims=True) - logs)
        below = np.zeros((len(pairs), LEVELS + 1), np.int64)
        np.cumsum(masses, axis=1, out=below[:, 1:])
        below = below * ALL // below[:, -1:]  # less than 2^62, as a mass is one of 256 of at most 2^30
        self._places[pairs] = len(self._high) + np.arange(len(pairs))
        each = np.diff(below, axis=1).reshape(-1, PART).astype(np.float32) + np.float32(1)
        self._low = np.concatenate([self._low, each])
        self._high = np.concatenate([self._high, _frequencies(below[:, ::PART])])

    def high(self, chosen: np.ndarray) -> Frequencies:
        """As of `EightBit`."""
        return self._high.take(chosen, axis=0)

    def low(self, chosen: np.ndarray, high: np.ndarray) -> Frequencies:
        """As of `EightBit`."""
        return self._low.take(PART * chosen + high, axis=0)


def deviations(logvar_bound: float) -> np.ndarray:
    """The logarithm of a standard deviation in eighths of an octave, by the raw log variance."""
    return np.rint(8 * 0.5 * _bounded(logvar_bound) / math.log(2)).astype(np.int16)
