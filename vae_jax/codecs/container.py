"""Compressed images as a file, and the codec that a run keeps for them.

The codec (transform, integer tables of each quality) lies in the run directory, in RUN/codec-DIGEST.npz, named after
the parameters it was fitted to, and is written by the first `compress`. In the file itself the tables would cost
hundreds of kilobytes, where an image costs ten bytes; the price is that who decompresses needs the run as it was when
the file was written. A file is

    magic "VAEZ", format version, quality, number of images, height, width, channels, length of the payload,
    16 bytes of the SHA-256 of model and codec, 16 bytes of the SHA-256 of all that comes before and of the payload,
    the payload
"""

import hashlib
import struct
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import UInt8

from vae_jax.archives import UNREADABLE, read_arrays
from vae_jax.codecs.entropy_coding import LARGEST_IN_TABLE, NotDecodableError, Prior, decode_symbols, encode_symbols
from vae_jax.codecs.lossy import (
    QUALITIES,
    ByteImages,
    Codec,
    Transform,
    decode_codes,
    decoder_metric,
    dequantise,
    fit_codec,
    quantise,
    step_of,
)
from vae_jax.data.checks import as_images
from vae_jax.data.dataset import Dataset
from vae_jax.errors import RunError, UsageError
from vae_jax.files import replacing
from vae_jax.models.autoencoders import Parameters
from vae_jax.models.evaluation import encode_images
from vae_jax.runs.run import Run

MAGIC = b"VAEZ"
VERSION = 1
MOST_BYTES = 2**31
"""Of the images in one file, decompressed."""
_FIELDS = struct.Struct("<4sBBIHHBI16s")
_CHECKSUM = 16
HEADER_BYTES = _FIELDS.size + _CHECKSUM


class Header(NamedTuple):
    """What stands before the payload."""

    quality: int
    number: int
    image_shape: tuple[int, int, int]
    model: bytes
    """Checksum of model and codec, 16 bytes."""


def pack(header: Header, payload: bytes) -> bytes:
    """The content of a file."""
    shape, sizes = header.image_shape, (header.number, len(payload))
    fields = _FIELDS.pack(MAGIC, VERSION, header.quality, sizes[0], *shape, sizes[1], header.model)
    return fields + _checksum(fields, payload) + payload


def unpack(content: bytes, name: str = "The file") -> tuple[Header, bytes]:
    """Header and payload of a file's content, every field checked; `name` is the file's in messages.

    Raises:
        UsageError: the content is damaged, or nothing that `pack` gives.
    """
    if content[:4] != MAGIC:
        raise UsageError(f"{name} is not a file of compressed images: it does not begin with VAEZ.")
    if len(content) < HEADER_BYTES:
        raise UsageError(f"{name} is cut off: {len(content)} bytes, where the header alone has {HEADER_BYTES}.")
    fields, checksum, payload = content[: _FIELDS.size], content[_FIELDS.size : HEADER_BYTES], content[HEADER_BYTES:]
    _, version, quality, number, height, width, channels, length, model = _FIELDS.unpack(fields)
    if version != VERSION:
        raise UsageError(f"{name} is damaged or of format version {version}; this program reads version {VERSION}.")
    if len(payload) != length:
        raise UsageError(f"{name} is cut off or too long: {len(payload)} bytes of payload, in its header {length}.")
    if checksum != _checksum(fields, payload):
        raise UsageError(f"{name} is damaged: its checksum is not that of its content.")
    shape = (height, width, channels)
    if quality not in QUALITIES or not 0 < number * height * width * channels <= MOST_BYTES:
        raise UsageError(f"{name} declares {number} images {shape} of quality {quality}, which can't be.")
    return Header(quality, number, shape, model), payload


def compress(run: Run, codec: Codec, images: Any, quality: int) -> bytes:
    """Compress images with a run's model to the content of one file.

    Args:
        run: from `load_run`.
        codec: its codec, from `fit_codec_of` or `read_codec`.
        images: of any kind that `as_images` takes, and of the shape that the model was trained on.
        quality: one of QUALITIES.

    Raises:
        UsageError: there are too many images for one file.
        RunError: the model's latents are not finite.
    """
    images = np.asarray(as_images(images, image_shape=run.model.image_shape))
    if images.size > MOST_BYTES:
        raise UsageError(f"One file holds at most {MOST_BYTES} bytes of images, got {images.size}. Make several files.")
    try:
        symbols = quantise(_codes(run, images), codec.transform, step_of(quality))
    except ValueError as error:
        raise RunError(f"{run.path} can't compress these images: {error}.") from error
    header = Header(quality, len(images), run.model.image_shape, fingerprint(run.params, codec))
    return pack(header, encode_symbols(symbols, codec.prior(quality)))


def decompress(run: Run, codec: Codec, content: bytes, name: str = "The file") -> ByteImages:
    """The images in the content of a file; `name` is the file's in messages.

    Raises:
        UsageError: it is damaged, or was written with another model.
    """
    header, payload = unpack(content, name)
    if header.model != fingerprint(run.params, codec) or header.image_shape != run.model.image_shape:
        raise UsageError(
            f"{name} was compressed with another model or codec than that of {run.path}.\n"
            "Give the run directory that it was compressed with."
        )
    try:
        symbols = decode_symbols(payload, header.number, codec.prior(header.quality))
    except NotDecodableError as error:
        raise UsageError(f"{name} is damaged: {error}.") from error
    codes = dequantise(symbols, codec.transform, step_of(header.quality))
    return decode_codes(run.model, run.params, codes)


def fingerprint(params: Parameters, codec: Codec | None = None) -> bytes:
    """The first 16 bytes of the SHA-256 of names, types, shapes and bytes of all parameters, in the order of names."""
    leaves = [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(params)]
    arrays = [*sorted(leaves), *sorted(_arrays(codec).items())] if codec else sorted(leaves)
    digest = hashlib.sha256()
    for name, leaf in arrays:
        array = np.ascontiguousarray(leaf)
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{name} {array.dtype.name} {array.shape};".encode())
        digest.update(little.tobytes())
    return digest.digest()[:_CHECKSUM]


def codec_path(run: Run) -> Path:
    """Where the run keeps the codec for its model."""
    return run.path / f"codec-{fingerprint(run.params).hex()[:16]}.npz"


def codec_of(run: Run, dataset: Dataset) -> Codec:
    """The codec that the run keeps; at first fitted to the data that it was trained on, and written."""
    path = codec_path(run)
    if path.exists():
        return read_codec(path, run.model.latent_dim)
    codec = fit_codec_of(run, dataset.train.images, dataset.validation.images)
    write_codec(path, codec)
    return codec


def fit_codec_of(run: Run, train: ByteImages, validation: UInt8[np.ndarray, "m height width channels"]) -> Codec:
    """Fit a codec for a run's model to the images that it was trained and validated on."""
    codes = _codes(run, train)
    return fit_codec(codes, _codes(run, validation), decoder_metric(run.model, run.params, codes))


def write_codec(path: Path, codec: Codec) -> None:
    """Write a codec as .npz.

    Raises:
        RunError: the disk refuses.
    """
    try:
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, allow_pickle=False, **_arrays(codec))
    except OSError as error:
        raise RunError(f"The codec can't be written to {path}: {error.strerror}. Make room or allow it.") from error


def read_codec(path: Path, latent_dim: int) -> Codec:
    """Read a codec for so many latents; no pickle.

    Raises:
        UsageError: the file is missing, damaged, or another model's.
    """
    try:
        arrays, _ = read_arrays(path)
        transform = Transform(*(arrays[name] for name in Transform._fields))
        priors = tuple(Prior(arrays[f"classes_{q}"], arrays[f"symbols_{q}"]) for q in QUALITIES)
    except FileNotFoundError as error:
        raise UsageError(
            f"{path} is missing, the codec that this run's first compress wrote.\n"
            "Decompress with the run directory that the images were compressed with."
        ) from error
    except (*UNREADABLE, KeyError) as error:
        raise _damaged_codec(path) from error
    shapes = [array.shape for array in transform] == [(latent_dim,), (latent_dim,) * 2, (latent_dim,) * 2]
    finite = all(array.dtype == np.float32 and np.isfinite(array).all() for array in transform)
    if not (shapes and finite and all(_is_sound(prior, latent_dim) for prior in priors)):
        raise _damaged_codec(path)
    return Codec(transform, priors)


def _is_sound(prior: Prior, dim: int) -> bool:
    return (
        (prior.classes.dtype, prior.symbols.dtype, prior.symbols.ndim) == (np.uint16, np.uint16, 3)
        and prior.symbols.shape[:2] == (prior.classes.size, dim)
        and prior.classes.min(initial=1) > 0
        and prior.symbols[:, :, -1:].min(initial=1) > 0
        and prior.symbols.shape[2] in range(2, 2 * LARGEST_IN_TABLE + 3, 2)
    )


def _damaged_codec(path: Path) -> UsageError:
    return UsageError(
        f"{path} is damaged or another model's codec.\n"
        "Restore it; or delete it, and the next compress fits a new one, which can't read the files of the old."
    )


def _codes(run: Run, images: ByteImages) -> np.ndarray:
    return encode_images(run.model, run.params, images, run.evaluation_key, binarize=run.config.binarize)[0]


def _arrays(codec: Codec) -> dict[str, np.ndarray]:
    arrays = codec.transform._asdict()
    for quality in QUALITIES:
        prior = codec.prior(quality)
        arrays |= {f"classes_{quality}": prior.classes, f"symbols_{quality}": prior.symbols}
    return arrays


def _checksum(fields: bytes, payload: bytes) -> bytes:
    return hashlib.sha256(fields + payload).digest()[:_CHECKSUM]
