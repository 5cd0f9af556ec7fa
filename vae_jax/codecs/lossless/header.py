"""The header of a file of images without a loss, which is format version 2 of the container.

    magic "VAEZ", version 2, 4 bytes of the codec's digest, then as numbers of 7 bits a byte
    the number of images, height, width, channels, bytes of the names of their files, those names as deflated JSON;
    of each segment its bytes, doubled, and 1 more where it is raw, and 4 bytes of the CRC-32 of its pixels and labels;
    4 bytes of the CRC-32 of all that comes before; the segments

A segment has 1,000 images, of large ones fewer, and is coded by itself, so that damage stays in it. Raw are its pixels
as they are, or as bits where there are black and white only.
"""

import json
import math
import struct
import zlib
from typing import NamedTuple

from vae_jax.errors import UsageError

MAGIC = b"VAEZ"
VERSION = 2
MOST_BYTES = 2**31
"""Of the images in one file, decompressed."""
MOST_IN_SEGMENT = 1000
MOST_VALUES = 2**22
"""Of a segment's images, so that memory is bounded."""
DIGEST_BYTES = 4
_FIRST = struct.Struct("<4sB4s")
_CHECK = struct.Struct("<I")
_MOST_NAMES = 2**28


class Segment(NamedTuple):
    """What the header says of a segment."""

    length: int
    raw: bool
    check: int
    """CRC-32 of its pixels, and of its labels after them."""


class Header(NamedTuple):
    """What stands before the segments."""

    digest: bytes
    """Of the codec, 4 bytes."""
    number: int
    image_shape: tuple[int, int, int]
    files: list[str] | None
    segments: list[Segment]


def segments_of(number: int, image_shape: tuple[int, int, int]) -> list[slice]:
    """So many images of a shape in segments."""
    size = min(MOST_IN_SEGMENT, max(1, MOST_VALUES // math.prod(image_shape)))
    return [slice(start, min(start + size, number)) for start in range(0, number, size)]


def is_lossless(content: bytes) -> bool:
    """Whether a file's content begins as one of this format."""
    return content[:5] == MAGIC + bytes([VERSION])


def pack(header: Header) -> bytes:
    """The bytes before the segments."""
    names = b"" if header.files is None else zlib.compress(json.dumps(header.files).encode(), 9)
    numbers = [header.number, *header.image_shape, len(names)]
    packed = _FIRST.pack(MAGIC, VERSION, header.digest) + b"".join(map(_number, numbers)) + names
    for segment in header.segments:
        packed += _number(2 * segment.length + segment.raw) + _CHECK.pack(segment.check)
    return packed + _CHECK.pack(zlib.crc32(packed))


def unpack(content: bytes, name: str) -> tuple[Header, int]:
    """The header of a file's content, and where its segments begin; `name` is the file's in messages.

    Raises:
        UsageError: it is damaged, or nothing that `pack` gives; or something follows the last segment.
    """
    try:
        reader = _Reader(content, _FIRST.size)
        magic, version, digest = _FIRST.unpack_from(content)
        number, *shape = (reader.number() for _ in range(4))
        if min(shape) < 1:
            raise ValueError("no pixels")
        if (magic, version) != (MAGIC, VERSION) or number * math.prod(shape) > MOST_BYTES:
            raise ValueError("what can't be")
        names = reader.bytes(reader.number())
        segments = []
        for _ in segments_of(number, (shape[0], shape[1], shape[2])):
            length, check = reader.number(), _CHECK.unpack(reader.bytes(_CHECK.size))[0]
            segments.append(Segment(length // 2, bool(length % 2), check))
        end = reader.at
        if _CHECK.unpack(reader.bytes(_CHECK.size))[0] != zlib.crc32(content[:end]):
            raise ValueError("another checksum")
        files = _names(names, number)
    except (ValueError, RecursionError, struct.error, zlib.error) as error:
        raise UsageError(f"{name} is cut off or damaged: its header is not what compress wrote.") from error
    more = len(content) - reader.at - sum(segment.length for segment in segments)
    if more > 0:
        raise UsageError(f"{name} is damaged: {more} bytes follow its last segment.")
    return Header(digest, number, (shape[0], shape[1], shape[2]), files, segments), reader.at


def _names(stored: bytes, number: int) -> list[str] | None:
    if not stored:
        return None
    text = zlib.decompressobj().decompress(stored, _MOST_NAMES)
    names = json.loads(text)
    if not (isinstance(names, list) and len(names) == number and all(isinstance(each, str) for each in names)):
        raise ValueError("no names")
    return names


class _Reader:
    """Numbers and bytes from a place on."""

    def __init__(self, content: bytes, at: int):
        self.content, self.at = content, at

    def bytes(self, length: int) -> bytes:
        found = self.content[self.at : self.at + length]
        if len(found) != length:
            raise ValueError("the end")
        self.at += length
        return found

    def number(self) -> int:
        value = 0
        for shift in range(0, 42, 7):
            byte = self.bytes(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError("a number without an end")


def _number(value: int) -> bytes:
    found = bytearray()
    while value >= 128:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])
