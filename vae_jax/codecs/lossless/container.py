"""A file of images without a loss: segment after segment, each decoded again before it is written."""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from vae_jax.codecs.lossless import bits_back
from vae_jax.codecs.lossless.bits_back import ByteImages, Labels, NotDecodableError
from vae_jax.codecs.lossless.codec import Codec, check_binary, read_codec
from vae_jax.codecs.lossless.header import DIGEST_BYTES, MOST_BYTES, Header, Segment, pack, segments_of, unpack
from vae_jax.errors import UsageError


class Decoded(NamedTuple):
    """What a file gives back."""

    images: ByteImages
    labels: Int[np.ndarray, " n"] | None
    """Of a conditional run, as it knows them."""
    files: list[str] | None
    index: Int[np.ndarray, " n"]
    """Positions of the images among all that were compressed."""
    damaged: list[int]
    """Numbers of the segments that are lost, from 1."""
    header: Header


def compress(
    codec: Codec, images: ByteImages, labels: Any = None, files: Any = None, *, batch: int | None = None
) -> Iterator[bytes]:
    """Segment after segment of images, each decoded again before it is given; last the whole file.

    Args:
        codec: of the run.
        images: of the shape that the model was trained on, any number.
        labels: of a conditional run, as it knows them.
        files: the images' names.
        batch: images that the networks see at a time; the file does not depend on it.

    Raises:
        UsageError: the likelihood has no masses for these images, or they are of another shape or too many.
    """
    if images.shape[1:] != codec.image_shape:
        raise UsageError(f"images must be [n, {', '.join(map(str, codec.image_shape))}], got {images.shape}.")
    if images.size > MOST_BYTES:
        raise UsageError(f"One file holds at most {MOST_BYTES} bytes of images, got {images.size}. Make several files.")
    if codec.binary:
        check_binary(images, "images")
    known = None if labels is None else np.searchsorted(codec.classes, labels)
    found, payloads = [], []
    for part in segments_of(len(images), codec.image_shape):
        own = None if known is None else known[part]
        raw, payload = _segment(codec, images[part], own, batch or codec.batch)
        found.append(Segment(len(payload), raw, _check(images[part], own)))
        payloads.append(payload)
        yield payload
    header = Header(codec.digest[:DIGEST_BYTES], len(images), codec.image_shape, files, found)
    yield pack(header) + b"".join(payloads)


def _segment(codec: Codec, images: ByteImages, labels: Labels, batch: int) -> tuple[bool, bytes]:
    # What the decoder would not give back is raw, and so is what coding makes longer.
    payload = bits_back.encode(codec, images, labels, batch).astype("<u4").tobytes().rstrip(b"\0")
    raw = _raw(codec, images, labels)
    if len(payload) >= len(raw):
        return True, raw
    try:
        again, own = _decoded(codec, payload, len(images), batch)
    except NotDecodableError:
        return True, raw
    return (False, payload) if _check(again, own) == _check(images, labels) else (True, raw)


def _decoded(codec: Codec, payload: bytes, number: int, batch: int) -> tuple[ByteImages, Labels]:
    padded = payload + bytes(-len(payload) % 4)
    return bits_back.decode(codec, np.frombuffer(padded, "<u4").astype(np.uint32), number, batch)


def _raw(codec: Codec, images: ByteImages, labels: Labels) -> bytes:
    pixels = np.packbits(images > 0) if codec.binary else images
    return (b"" if labels is None else labels.astype("<u2").tobytes()) + pixels.tobytes()


def _from_raw(codec: Codec, payload: bytes, number: int) -> tuple[ByteImages, Labels]:
    shape = (number, *codec.image_shape)
    values, of_labels = int(np.prod(shape)), 2 * number if codec.classes else 0
    wanted = of_labels + (-(-values // 8) if codec.binary else values)
    if len(payload) != wanted:
        raise NotDecodableError(f"{len(payload)} raw bytes, where {wanted} are needed")
    pixels = np.frombuffer(payload[of_labels:], np.uint8)
    if codec.binary:
        pixels = 255 * np.unpackbits(pixels, count=values)
    labels = np.frombuffer(payload[:of_labels], "<u2").astype(np.int64) if codec.classes else None
    return pixels.reshape(shape), labels


def _check(images: ByteImages, labels: Labels) -> int:
    check = zlib.crc32(np.ascontiguousarray(images).tobytes())
    return check if labels is None else zlib.crc32(labels.astype("<u2").tobytes(), check)


def decompress(codec: Codec, content: bytes, name: str, *, batch: int | None = None) -> Iterator[Decoded | int]:
    """The number of each segment as it is done, from 1; last what the file gives back, without damaged segments.

    Args:
        codec: that the file was written by.
        content: the file's.
        name: the file's, in messages.
        batch: as of `compress`.

    Raises:
        UsageError: its header is damaged, or it was written by another codec, or nothing of it can be decoded.
    """
    header, at = unpack(content, name)
    if header.digest != codec.digest[:DIGEST_BYTES] or header.image_shape != codec.image_shape:
        raise UsageError(f"{name} was compressed by another codec. Give the run that it was compressed with.")
    parts = segments_of(header.number, header.image_shape)
    images = np.zeros((header.number, *header.image_shape), np.uint8)
    labels, whole, damaged = np.zeros(header.number, np.int64), np.ones(header.number, bool), []
    for number, (part, segment) in enumerate(zip(parts, header.segments, strict=True), 1):
        payload, at = content[at : at + segment.length], at + segment.length
        try:
            if len(payload) != segment.length:
                raise NotDecodableError("the file ends before")
            size = part.stop - part.start
            if segment.raw:
                images[part], own = _from_raw(codec, payload, size)
            else:
                images[part], own = _decoded(codec, payload, size, batch or codec.batch)
            if _check(images[part], own) != segment.check:
                raise NotDecodableError("the pixels are others")
            if own is not None:
                labels[part] = own
        except NotDecodableError:
            whole[part] = False
            damaged.append(number)
        yield number
    if damaged and not whole.any():
        raise UsageError(f"{name} is damaged: none of its {len(parts)} segments can be decoded.\nGive another copy.")
    kept = np.flatnonzero(whole)
    files = None if header.files is None else [header.files[i] for i in kept]
    classes = np.asarray(codec.classes)[labels[kept]] if codec.classes else None
    yield Decoded(images if not damaged else images[kept], classes, files, kept, damaged, header)


def codec_in(folder: Path, header: Header, name: str) -> Codec:
    """The codec that a file was written by, of those that a run keeps.

    Raises:
        UsageError: there is none, or it is damaged.
    """
    for path in sorted(folder.glob(f"codec-{header.digest.hex()}*.npz")):
        return read_codec(path)
    raise UsageError(
        f"{name} was compressed with another model than that of {folder}, or its codec is missing: there is no "
        f"codec-{header.digest.hex()}*.npz.\nGive the run directory that it was compressed with."
    )
