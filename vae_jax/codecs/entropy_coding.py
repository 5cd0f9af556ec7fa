"""Entropy coding of integer symbols under a fitted prior, by a range coder (constriction).

The prior is a mixture of K classes, each a product of histograms. The encoder sends the class that is shortest for
the image, then one symbol a dimension: a two-part code. A symbol beyond the table is an escape symbol and 32 bits,
so that every image can be coded. Tables are integers and only read when decoding, never computed anew: no rounding of
another machine can change a symbol.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import constriction
import numpy as np
from jaxtyping import Float, Integer, UInt16

Symbols: TypeAlias = Integer[np.ndarray, "n latent"]

LARGEST_SYMBOL = 2**30
"""What can be coded lies in +-this."""
LARGEST_IN_TABLE = 255
"""No table goes beyond; what lies outside is escaped."""
_ESCAPE_BITS = 32
_BACKOFF = 10.0  # weight of the common histogram within a class's, in codes
_FULL = 65_535
_SMALLEST = 2.0**-24  # the probability that the coder gives to a symbol of frequency 0
_CHUNK = 2**21  # probabilities in memory at once


class Prior(NamedTuple):
    """A mixture of products of histograms, as integer frequencies."""

    classes: UInt16[np.ndarray, " classes"]
    """How often each class occurs."""
    symbols: UInt16[np.ndarray, "classes latent entries"]
    """How often the symbols -r..r and, last, the escape symbol occur in each: entries = 2r + 2."""

    @property
    def radius(self) -> int:
        """The largest symbol in the table, r."""
        return self.symbols.shape[-1] // 2 - 1


class NotDecodableError(ValueError):
    """Bytes that were not written under this prior."""


def fit_prior(symbols: Symbols, labels: Integer[np.ndarray, " n"], classes: int) -> Prior:
    """Histograms of each class, drawn towards those of all classes together.

    Args:
        symbols: of training codes, [n, latent].
        labels: their class, [n], from 0 up to classes - 1.
        classes: their number K.
    """
    radius = min(max(int(np.abs(symbols).max(initial=0)), 1), LARGEST_IN_TABLE)
    entries = 2 * radius + 2
    sizes = np.bincount(labels, minlength=classes)
    tables = np.empty((classes, symbols.shape[1], entries), np.uint16)
    for dim, column in enumerate(_table_index(symbols, radius).T):
        counts = np.bincount(labels * entries + column, minlength=classes * entries).reshape(classes, entries)
        mixed = counts + _BACKOFF * _smooth(counts.sum(axis=0))
        tables[:, dim] = np.rint(_FULL * mixed / mixed.sum(axis=1, keepdims=True))
    tables[:, :, -1] = np.maximum(tables[:, :, -1], 1)
    weights = np.maximum(np.rint(_FULL * sizes / len(symbols)), 1)
    return Prior(weights.astype(np.uint16), tables)


def code_lengths(symbols: Symbols, prior: Prior) -> Float[np.ndarray, "n classes"]:
    """Bits of each image by way of each class, the class's own bits included."""
    index, dims = _table_index(symbols, prior.radius), np.arange(prior.symbols.shape[1])
    totals = prior.symbols.sum(axis=-1, dtype=np.float32)
    bits = np.tile(-np.log2(_probabilities(prior.classes)), (len(symbols), 1))
    for part in _chunks(len(symbols), totals.size):
        shares = prior.symbols[:, dims, index[part]] / totals[:, None]
        bits[part] -= np.log2(np.maximum(shares, _SMALLEST)).sum(axis=-1, dtype=np.float64).T
    return bits + _ESCAPE_BITS * np.sum(np.abs(symbols) > prior.radius, axis=1, keepdims=True)


def encode_symbols(symbols: Symbols, prior: Prior) -> bytes:
    """Code symbols: the classes, then image after image, then what was escaped; whole words of 4 bytes.

    Args:
        symbols: in +-LARGEST_SYMBOL, [n, latent].
        prior: that `decode_symbols` will be given too.
    """
    classes = code_lengths(symbols, prior).argmin(axis=1)
    index = _table_index(symbols, prior.radius).astype(np.int32)
    coder = constriction.stream.queue.RangeEncoder()
    coder.encode(classes.astype(np.int32), _class_model(prior))
    for part in _chunks(len(symbols), prior.symbols[0].size):
        coder.encode(index[part].ravel(), _SYMBOL_MODELS, _rows(prior, classes[part]))
    escaped = symbols[np.abs(symbols) > prior.radius] + 2**31
    halves = np.stack([escaped >> 16, escaped & 0xFFFF], axis=1).ravel()
    coder.encode(halves.astype(np.int32), _HALF_WORD)
    return coder.get_compressed().astype("<u4").tobytes()


def decode_symbols(payload: bytes, number: int, prior: Prior) -> Symbols:
    """The symbols of `number` images, int64 [number, latent]: the inverse of `encode_symbols`.

    Raises:
        NotDecodableError: the payload was not written under this prior.
    """
    if len(payload) % 4 or number * _fewest_bits(prior) > 8 * len(payload) + 64:
        raise NotDecodableError(f"{len(payload)} bytes of payload are not those of {number} images")
    try:
        coder = constriction.stream.queue.RangeDecoder(np.frombuffer(payload, "<u4").astype(np.uint32))
        classes = coder.decode(_class_model(prior), number)
        if classes.max(initial=0) >= len(prior.classes):  # the one that never occurs
            raise ValueError("no such class")
        parts = [
            coder.decode(_SYMBOL_MODELS, _rows(prior, classes[part])) for part in _chunks(number, prior.symbols[0].size)
        ]
        index = np.concatenate([np.zeros(0, np.int32), *parts]).reshape(number, prior.symbols.shape[1])
        symbols = index.astype(np.int64) - prior.radius
        escaped = symbols > prior.radius
        halves = coder.decode(_HALF_WORD, 2 * int(escaped.sum())).astype(np.int64)
    except (AssertionError, ValueError) as error:
        raise NotDecodableError("the payload was not written under this prior") from error
    symbols[escaped] = (halves[::2] << 16) + halves[1::2] - 2**31
    if not coder.maybe_exhausted() or np.abs(symbols).max(initial=0) > LARGEST_SYMBOL:
        raise NotDecodableError("the payload was not written under this prior")
    return symbols


_SYMBOL_MODELS = constriction.stream.model.Categorical(perfect=False)
_HALF_WORD = constriction.stream.model.Uniform(2**16)


def _smooth(counts: np.ndarray) -> np.ndarray:
    # Probabilities from the counts of -r..r and the escape; neighbours lend to what was never seen.
    spread = np.convolve(counts[:-1], [0.05, 0.9, 0.05], "same")
    frequencies = np.append(spread, counts[-1] + 0.5)
    return frequencies / frequencies.sum()


def _table_index(symbols: np.ndarray, radius: int) -> np.ndarray:
    return np.where(np.abs(symbols) > radius, 2 * radius + 1, symbols + radius)


def _probabilities(frequencies: np.ndarray) -> np.ndarray:
    shares = frequencies / frequencies.sum(axis=-1, keepdims=True, dtype=np.float64)
    return np.maximum(shares, _SMALLEST)


def _fewest_bits(prior: Prior) -> float:
    # No image is coded in less: what bounds the number of images that a payload can hold.
    dims = -np.log2(_probabilities(prior.symbols).max(axis=-1)).sum(axis=1)
    return 0.999 * float(np.min(dims - np.log2(_probabilities(prior.classes))))


def _class_model(prior: Prior) -> Any:
    # The model wants at least two symbols: one that never occurs stands beside a single class.
    return constriction.stream.model.Categorical(np.append(prior.classes, 0).astype(np.float32), perfect=False)


def _rows(prior: Prior, classes: np.ndarray) -> np.ndarray:
    # Small integers are exact in float32, and so is what the coder makes of them, on every machine.
    return prior.symbols[classes].reshape(-1, prior.symbols.shape[-1]).astype(np.float32)


def _chunks(number: int, width: int) -> Iterator[slice]:
    size = max(1, _CHUNK // width)
    return (slice(start, start + size) for start in range(0, number, size))
