"""Probabilities in integers: distribution functions as tables, and the masses of latents and of levels made of them.

A table is worked out in floats once, when a run gets its codec, and stored; all else is integer arithmetic on it.
"""

from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any, TypeAlias

import constriction
import numpy as np
from jaxtyping import Integer, Num
from scipy.special import expit, ndtr

PRECISION = 2**24
"""The coder's: the masses of all symbols add up to it, and each is 1 more than its frequency here."""
FINE = 2**20
"""Units of 1 that arguments of a distribution function are given in."""
_COARSE = 2**6
MIDDLE = 2**12
"""The same for `Distribution.quick`."""
REACH = {"normal": 6, "logistic": 18}
"""Beyond that a tail has less than the coder's least probability."""
EIGHTHS = 8
"""Spreads are powers of 2^(1/8)."""
WIDEST = 4
"""In eighths of an octave, of a posterior: a standard deviation of sqrt(2)."""
NARROWEST = -16
"""The same, in units of the latent's grid: a quarter."""
MOST_MEAN = 8
"""No posterior's mean is further from 0."""
FARTHEST = 16
"""No latent is."""
Integers: TypeAlias = Integer[np.ndarray, "..."]
Frequencies: TypeAlias = Num[np.ndarray, "..."]


def distribution_table(name: str) -> np.ndarray:
    """A standard distribution function at steps of 1/64, in units of 2^-24."""
    t = np.arange(-REACH[name] * _COARSE, REACH[name] * _COARSE + 1) / _COARSE
    return np.rint({"normal": ndtr, "logistic": expit}[name](t) * PRECISION).astype(np.int32)


class Distribution:
    """A distribution function from its table, by straight lines between its points."""

    def __init__(self, table: np.ndarray):
        """Take what `distribution_table` gave."""
        self.table = table.astype(np.int64)
        self.reach = (len(table) - 1) // 2 * (FINE // _COARSE)

    def at(self, t: Integers) -> Integers:
        """Its values, in units of 2^-24, for arguments in units of 2^-20."""
        t = np.clip(t, -self.reach, self.reach - 1) + self.reach
        place, rest = t // (FINE // _COARSE), t % (FINE // _COARSE)
        low = self.table[place]
        return low + (self.table[place + 1] - low) * rest // (FINE // _COARSE)

    @cached_property
    def fine(self) -> np.ndarray:
        """The same at steps of 2^-12, float64."""
        return self.at(np.arange(-self.reach, self.reach + 1, FINE // MIDDLE)).astype(np.float64)

    def quick(self, t: np.ndarray) -> np.ndarray:
        """The values at the largest of those steps below t, which is a float64 in units of 2^-12 that it may change."""
        np.floor(t, out=t)
        t += len(self.fine) // 2
        return self.fine.take(t.astype(np.int64), mode="clip")


def whole(masses: Integers) -> Frequencies:
    """Masses of any sum as the frequencies of one model, which become those of all of the coder's precision."""
    room = PRECISION - len(masses)
    frequencies = masses * room // masses.sum()
    frequencies[np.argsort(-masses, kind="stable")[: room - frequencies.sum()]] += 1
    return frequencies.astype(np.float32)


def categorical(frequencies: Frequencies) -> Any:
    """The coder's model of symbols with these frequencies."""
    return constriction.stream.model.Categorical(frequencies, perfect=False)


FAMILY = constriction.stream.model.Categorical(perfect=False)
"""Of models with a row of frequencies for each symbol."""


def steps_in_octave() -> np.ndarray:
    """2^(-m/8) for m from 0 to 7 in units of 2^-30: the inverse of a spread within its octave."""
    return np.rint(2.0 ** (30 - np.arange(EIGHTHS) / EIGHTHS)).astype(np.int64)


class Latents:
    """Models of a latent on its grid: its prior N(0, 1), and normal posteriors around a point of the grid.

    The symbols of a posterior go from its middle outward, so that an empty stack, of which the coder takes the first
    symbol again and again, gives the means.
    """

    def __init__(self, normal: Distribution, octave: np.ndarray):
        """Take the tables."""
        self.normal, self.octave = normal, octave.astype(np.int64)
        self.prior: Callable[[int], Any] = lru_cache(None)(self._prior)
        self.posterior: Callable[[int], Any] = lru_cache(None)(self._posterior)

    def _prior(self, bits: int) -> Any:
        # Symbol 0 is -FARTHEST; the grid has steps of 2^-bits.
        most = FARTHEST << bits
        edges = (2 * np.arange(-most, most + 2) - 1) * (FINE >> (bits + 1))
        return categorical(whole(np.diff(self.normal.at(edges))))

    def _posterior(self, spread: int) -> Any:
        # Of a standard deviation of 2^(spread/8) steps of the grid.
        octaves, eighths = divmod(spread, EIGHTHS)
        most = self.farthest(spread)
        # (2 k + 1) / 2 steps over the deviation, in units of 2^-20.
        edges = ((2 * np.arange(-most, most + 2) - 1) * self.octave[eighths]) >> (11 + octaves)
        frequencies = np.diff(self.normal.at(edges))
        outward = np.argsort(np.abs(2 * np.arange(-most, most + 1) - 0.5), kind="stable")
        return categorical(whole(frequencies[outward]))

    def farthest(self, spread: int) -> int:
        """Steps of the grid that a latent can lie from its posterior's middle: 5.5 deviations, and the step after."""
        octaves, eighths = divmod(spread, EIGHTHS)
        return max(2, (11 << (30 + octaves)) // (2 * int(self.octave[eighths])) + 1)


def offsets(symbols: Integers) -> Integers:
    """Steps from the middle that symbols of a posterior stand for: 0, 1, -1, 2, -2, ..."""
    return (symbols + 1) // 2 * np.where(symbols % 2, 1, -1)


def symbols_of(steps: Integers) -> Integers:
    """The inverse of `offsets`."""
    return 2 * np.abs(steps) - (steps > 0)
