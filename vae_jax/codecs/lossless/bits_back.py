"""Bits back with one stack: images to words and back (Townsend et al. 2019; the stack is constriction's).

A latent is popped from the stack by the posterior, which gives back bits; the image is pushed given the latent, and the
latent by the prior. Networks work on blocks of images that grow with what lies on the stack: the first ones find it
empty and take the mean, for nothing.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import constriction
import numpy as np
from jaxtyping import Integer, UInt8, UInt32

from vae_jax.codecs.lossless.codec import Codec
from vae_jax.codecs.lossless.masses import FAMILY, FARTHEST, offsets, symbols_of

ByteImages: TypeAlias = UInt8[np.ndarray, "n height width channels"]
Labels: TypeAlias = Integer[np.ndarray, " n"] | None
Words: TypeAlias = UInt32[np.ndarray, " words"]
MOST_IN_BLOCK = 500
VALUES_AT_ONCE = 2**15
"""Values of images that the likelihood works on; a part of the format, as it decides the order on the stack."""


class NotDecodableError(ValueError):
    """Words that no image was coded to by this codec."""


def blocks(number: int) -> list[slice]:
    """So many images in blocks that grow, so that their latents take no more bits than there are."""
    found, done = [], 0
    while done < number:
        size = min(number - done, max(1, min(MOST_IN_BLOCK, 3 * done // 10)))
        found.append(slice(done, done + size))
        done += size
    return found


def encode(codec: Codec, images: ByteImages, labels: Labels, batch: int) -> Words:
    """The words that images are coded to.

    Args:
        codec: of a run.
        images: that `codec.check_images` lets pass.
        labels: positions among the classes, of a conditional model.
        batch: images that the networks see at a time, which changes nothing.
    """
    coder = constriction.stream.stack.AnsCoder()
    for part in blocks(len(images)):
        known = None if labels is None else labels[part]
        means, spreads = codec.posterior(images[part], known, batch)
        steps = np.zeros_like(means)
        for spread, where in _groups(spreads):
            steps[where] = offsets(coder.decode(codec.latents.posterior(spread), int(where[0].size)).astype(np.int64))
        latents = means + steps
        _push_images(coder, codec, codec.decoded(latents, known, batch), images[part])
        for bits, columns in codec.grids():
            symbols = latents[:, columns] + (FARTHEST << bits)
            coder.encode_reverse(symbols.ravel().astype(np.int32), codec.latents.prior(bits))
        if known is not None:
            coder.encode_reverse(known.astype(np.int32), codec.label_model())
    words: Words = coder.get_compressed()
    return words


def decode(codec: Codec, words: Words, number: int, batch: int) -> tuple[ByteImages, Labels]:
    """So many images, and their labels, from the words that they were coded to.

    Raises:
        NotDecodableError: they were not coded to these words.
    """
    images = np.zeros((number, *codec.image_shape), np.uint8)
    labels = np.zeros(number, np.int64) if codec.classes else None
    try:
        coder = constriction.stream.stack.AnsCoder(words)
        for part in reversed(blocks(number)):
            size, known = part.stop - part.start, None
            if labels is not None:
                known = labels[part] = coder.decode(codec.label_model(), size)
            latents = np.zeros((size, codec.latent_dim), np.int64)
            for bits, columns in reversed(codec.grids()):
                symbols = coder.decode(codec.latents.prior(bits), size * len(columns))
                latents[:, columns] = symbols.reshape(size, -1).astype(np.int64) - (FARTHEST << bits)
            images[part] = _pop_images(coder, codec, codec.decoded(latents, known, batch))
            means, spreads = codec.posterior(images[part], known, batch)
            for spread, where in reversed(_groups(spreads)):
                steps = (latents - means)[where]
                if np.abs(steps).max(initial=0) > codec.latents.farthest(spread):
                    raise NotDecodableError("a latent lies where its posterior has none")
                coder.encode_reverse(symbols_of(steps).astype(np.int32), codec.latents.posterior(spread))
    except (ValueError, AssertionError) as error:
        raise NotDecodableError("the words are not those of images") from error
    if not coder.is_empty():
        raise NotDecodableError("words are left over")
    return images, labels


def _groups(spreads: Integer[np.ndarray, "n latent"]) -> list[tuple[int, tuple[np.ndarray, ...]]]:
    # Latents of the same spread, which one model codes: where they stand.
    order = np.argsort(spreads, axis=None, kind="stable")
    ordered = spreads.ravel()[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))
    parts = np.split(order, starts[1:])
    return [(int(ordered[at]), np.unravel_index(part, spreads.shape)) for at, part in zip(starts, parts, strict=True)]


def _chunks(codec: Codec, number: int) -> Iterator[slice]:
    size = max(1, VALUES_AT_ONCE // int(np.prod(codec.image_shape)))
    return (slice(start, min(start + size, number)) for start in range(0, number, size))


def _push_images(coder: Any, codec: Codec, decoded: np.ndarray, images: ByteImages) -> None:
    for part in reversed([*_chunks(codec, len(images))]):
        asked: list[tuple[np.ndarray, np.ndarray]] = []
        levels = images[part].astype(np.int64)

        def ask(
            rows: np.ndarray, of: Callable[[np.ndarray], np.ndarray], levels: Any = levels, asked: Any = asked
        ) -> np.ndarray:
            asked.append((of(levels).ravel().astype(np.int32), rows))
            return asked[-1][0]

        codec.pixels.walk(decoded[part], ask)
        for symbols, rows in reversed(asked):
            coder.encode_reverse(symbols, FAMILY, rows)


def _pop_images(coder: Any, codec: Codec, decoded: np.ndarray) -> ByteImages:
    def ask(rows: np.ndarray, of: Any) -> np.ndarray:
        symbols: np.ndarray = coder.decode(FAMILY, rows)
        return symbols

    return np.concatenate([codec.pixels.walk(decoded[part], ask) for part in _chunks(codec, len(decoded))])
