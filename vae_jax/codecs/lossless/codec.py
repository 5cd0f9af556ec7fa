"""The codec that a run keeps: its networks in integers and all tables, read back without JAX.

It lies in RUN/codec-DIGEST.npz, named after its own content, so that a file finds the codec that it was written by and
damage is noticed; `model` in it is the fingerprint of the parameters that it was made of.
"""

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import constriction
import numpy as np
from jaxtyping import Integer, UInt8

from vae_jax.archives import UNREADABLE, read_arrays
from vae_jax.codecs.lossless import fixed_point
from vae_jax.codecs.lossless.fixed_point import UNIT, VALUE_BITS
from vae_jax.codecs.lossless.masses import EIGHTHS, MOST_MEAN, NARROWEST, WIDEST, Distribution, Latents
from vae_jax.codecs.lossless.pixels import BetaBinomial, Binary, EightBit, Logistic, look_up
from vae_jax.errors import RunError, UsageError
from vae_jax.files import replacing

FORMAT = 1
DIGEST_BYTES = 8
PIXELS = {"binary": Binary, "logistic": Logistic, "beta_binomial": BetaBinomial}
_BROKEN = (*UNREADABLE, KeyError, TypeError, IndexError, OverflowError, AttributeError)


class Codec:
    """All that both ways need of a model, in integers."""

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        """From the arrays of its file, of which `spec` says in JSON what they are.

        Raises:
            OverflowError: a sum of its networks can leave what is exact.
            KeyError, ValueError and the like: they are no codec.
        """
        self.arrays = dict(arrays)
        spec = json.loads(arrays["spec"].tobytes())
        if spec["format"] != FORMAT:
            raise ValueError(f"the codec has format {spec['format']}")
        self.image_shape: tuple[int, int, int] = tuple(spec["image_shape"])
        self.classes: list[int] = spec["classes"]
        self.bits = arrays["bits"].astype(np.int64)
        self.latent_dim = len(self.bits)
        self._layers = {name: spec[name] for name in ("encoder", "decoder")}
        self._networks = fixed_point.prepared(
            {name: array for name, array in arrays.items() if name.startswith(("encoder.", "decoder.", "activation."))}
        )
        self.latents = Latents(Distribution(arrays["normal"]), arrays["octave"])
        self._limits = _limits(self.bits)
        tables = {name.removeprefix("pixels."): a for name, a in arrays.items() if name.startswith("pixels.")}
        self.pixels: Binary | EightBit = PIXELS[spec["pixels"]](tables, **spec["layout"])
        self.binary = isinstance(self.pixels, Binary)
        maps = {"conv", "transposed"} & {layer[0] for layers in self._layers.values() for layer in layers}
        self.batch = 16 if maps else 500  # what the networks' intermediate maps fit in a few hundred megabytes for

    @functools.cached_property
    def digest(self) -> bytes:
        """The first bytes of the SHA-256 of names, types, shapes and bytes of all arrays."""
        return digest_of(self.arrays)

    def posterior(
        self, images: UInt8[np.ndarray, "n height width channels"], labels: Any, batch: int
    ) -> tuple[Integer[np.ndarray, "n latent"], Integer[np.ndarray, "n latent"]]:
        """Where the posteriors lie on the grids, and their spreads in eighths of an octave of a step."""
        x = ((images.astype(np.int64) * (2 * UNIT) + 255) // 510).astype(np.float64)
        if labels is not None:
            x = np.concatenate([x, self.arrays["pictures"][labels].astype(np.float64)[..., None]], axis=-1)
        features = fixed_point.apply(self._layers["encoder"], self._networks, x, batch)
        mean, raw = np.split(features, 2, axis=1)
        most, _, widest = self._limits
        means = np.floor((mean * 2.0**self.bits + UNIT // 2) / UNIT).astype(np.int64)
        spreads = look_up(self.arrays["spread"], raw).astype(np.int64) + EIGHTHS * self.bits
        return np.clip(means, -most, most), np.clip(spreads, NARROWEST, widest)

    def decoded(self, latents: Integer[np.ndarray, "n latent"], labels: Any, batch: int) -> np.ndarray:
        """What the decoder says of the pixels, for latents on their grids."""
        z = (latents << (VALUE_BITS - self.bits)).astype(np.float64)
        if labels is not None:
            z = np.concatenate([z, self.arrays["numbers"][labels].astype(np.float64)], axis=1)
        return fixed_point.apply(self._layers["decoder"], self._networks, z, batch)

    def grids(self) -> list[tuple[int, np.ndarray]]:
        """The different grids, and the dimensions of the latent that have each."""
        return [(int(bits), np.flatnonzero(self.bits == bits)) for bits in np.unique(self.bits)]

    def label_model(self) -> Any:
        """Of a class, all alike."""
        return constriction.stream.model.Uniform(len(self.classes))


def check_binary(images: np.ndarray, name: str) -> None:
    """Refuse images with other levels than 0 and 255, by a UsageError; `name` is theirs."""
    if (grey := images[(images != 0) & (images != 255)]).size:
        raise UsageError(
            f"{name} must hold black and white alone, 0 and 255, as the run's likelihood is bernoulli, got {grey[0]}.\n"
            "Binarise the images first, or compress with a run of --likelihood beta_binomial or discretized_logistic."
        )


def _limits(bits: np.ndarray) -> tuple[np.ndarray, int, np.ndarray]:
    return MOST_MEAN << bits, NARROWEST, WIDEST + EIGHTHS * bits


def digest_of(arrays: Mapping[str, np.ndarray]) -> bytes:
    """As of `Codec.digest`."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        digest.update(f"{name} {array.dtype.name} {array.shape};".encode())
        digest.update(little.tobytes())
    return digest.digest()[:DIGEST_BYTES]


def path_of(folder: Path, digest: bytes) -> Path:
    """Where a run keeps the codec of that digest."""
    return folder / f"codec-{digest.hex()}.npz"


def find_codec(folder: Path, model: bytes) -> Codec | None:
    """The codec that a run keeps for the parameters of that fingerprint; None where there is none yet."""
    for path in sorted(folder.glob("codec-*.npz")):
        try:
            found, _ = read_arrays(path, ("model",))
        except UNREADABLE:  # what is damaged is of no use, and another is made
            continue
        if "model" in found and found["model"].tobytes() == model:
            return read_codec(path)
    return None


def write_codec(folder: Path, codec: Codec) -> Path:
    """Write a codec into its run's folder.

    Raises:
        RunError: the disk refuses.
    """
    path = path_of(folder, codec.digest)
    try:
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, allow_pickle=False, **codec.arrays)
    except OSError as error:
        raise RunError(f"The codec can't be written to {path}: {error.strerror}. Make room or allow it.") from error
    return path


def read_codec(path: Path) -> Codec:
    """Read a codec back; no pickle.

    Raises:
        UsageError: it is damaged.
    """
    try:
        codec = Codec(read_arrays(path)[0])
        whole = codec.digest.hex() == path.stem.removeprefix("codec-")
    except _BROKEN as error:
        raise _damaged(path) from error
    if not whole:
        raise _damaged(path)
    return codec


def _damaged(path: Path) -> UsageError:
    return UsageError(
        f"{path} is damaged: its content is not that of its name.\n"
        "Restore it; or delete it, and the next compress --lossless makes another, which may not read the old files."
    )
