"""The numbers of the study of lossless compression: bytes, seconds, and what the bound says."""

import bz2
import dataclasses
import gzip
import io
import lzma
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from vae_jax.codecs.image_codecs import LONGEST_SIDE, mosaic
from vae_jax.codecs.lossless import container, convert
from vae_jax.codecs.lossless.codec import Codec
from vae_jax.data.dataset import Dataset
from vae_jax.models.likelihoods import Bernoulli
from vae_jax.runs.run import Run

ALONE = 100
"""Images that are also compressed each to a file of its own."""
OURS = "bits back"


@dataclasses.dataclass(frozen=True)
class Measured:
    """Of one run and the images that it codes."""

    number: int
    together: dict[str, float]
    """Bits a value of all images in one file, all bytes counted, by the way of coding."""
    alone: dict[str, float]
    """The same of the first ones, each in a file of its own."""
    numbers: dict[str, float]
    """Of ours: the bound and its parts in bits a value, seconds each way, bytes of one image and of the codec."""


def test_images(run: Run, dataset: Dataset, most: int, seed: int) -> np.ndarray:
    """The first test images, binarised once and for all where the run codes black and white.

    Pixels are drawn with their value as the probability, or set by one half where the run was trained on such.
    """
    images = np.asarray(dataset.test.images[:most])
    if not isinstance(run.model.likelihood, Bernoulli):
        return images
    level = 127.5 if run.config.binarize == "threshold" else 255 * np.random.default_rng(seed).random(images.shape)
    return np.where(images > level, 255, 0).astype(np.uint8)


def measure(run: Run, dataset: Dataset, most: int, seed: int) -> Measured:
    """Code the test images in every way."""
    images = test_images(run, dataset, most, seed)
    labels = None if dataset.test.labels is None or not run.model.classes else dataset.test.labels[:most]
    codec, _ = convert.codec_of(run)

    def ours(part: np.ndarray, known: Any) -> bytes:
        content: bytes = [*container.compress(codec, part, known)][-1]
        return content

    start = time.process_time()
    content = ours(images, labels)
    encoded = time.process_time()
    (*_, found) = container.decompress(codec, content, "the file")
    decoded = time.process_time()
    assert isinstance(found, container.Decoded)
    assert np.array_equal(found.images, images)
    own = None if labels is None else labels[:, None]
    sizes = [len(ours(one[None], None if own is None else own[i])) for i, one in enumerate(images[:ALONE])]
    together = {OURS: float(len(content))} | {name: float(of(images)) for name, of in ways().items()}
    alone = {OURS: float(np.sum(sizes))}
    alone |= {name: float(sum(of(one[None]) for one in images[:ALONE])) for name, of in ways().items()}
    numbers = _bound(run, codec, images, labels) | {
        "encode_seconds": encoded - start,
        "decode_seconds": decoded - encoded,
        "bytes_of_an_image": float(np.mean(sizes)),
        "codec_bytes": float(sum(path.stat().st_size for path in run.path.glob(f"codec-{codec.digest.hex()}.npz"))),
    }
    rate, rate_alone = 8 / images.size, 8 / images[:ALONE].size
    return Measured(
        len(images),
        {name: rate * size for name, size in together.items()},
        {name: rate_alone * size for name, size in alone.items()},
        numbers,
    )


def _bound(run: Run, codec: Codec, images: np.ndarray, labels: Any) -> dict[str, float]:
    # In bits a value. The latents are sent under the prior, and what the posterior's choice of them tells comes back.
    losses = run.evaluate(images, labels)
    bits = 1 / (math.log(2) * images[0].size)
    codes = run.encode(images, labels)
    steps, variances = codec.bits.sum(), np.exp(np.float64(codes.logvars))
    sent = 0.5 * np.sum(np.float64(codes.means) ** 2 + variances + math.log(2 * math.pi), axis=1).mean()
    back = 0.5 * np.sum(np.float64(codes.logvars) + math.log(2 * math.pi * math.e), axis=1).mean()
    grid = float(steps) * math.log(2)
    return {
        "bound": bits * losses["loss"],
        "reconstruction": bits * losses["reconstruction"],
        "kl": bits * losses["kl"],
        "latents_sent": bits * float(sent + grid),
        "latents_back": bits * float(back + grid),
    }


def _plain(images: np.ndarray) -> bytes:
    binary = not np.any((images != 0) & (images != 255))
    return (np.packbits(images > 0) if binary else images).tobytes()


def _picture(image_format: str, **options: Any) -> Callable[[np.ndarray], int]:
    def size(images: np.ndarray) -> int:
        binary = not np.any((images != 0) & (images != 255)) and image_format == "PNG"
        side = max(images.shape[1:3])
        most = max(1, LONGEST_SIDE // side) ** 2
        total = 0
        for start in range(0, len(images), most):
            picture = mosaic(images[start : start + most])
            made = Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)
            file = io.BytesIO()
            (made.convert("1") if binary else made).save(file, image_format, **options)
            total += file.getbuffer().nbytes
        return total

    return size


def ways() -> Mapping[str, Callable[[np.ndarray], int]]:
    """What it is compared with, by name: bytes of images, of black and white ones of their bits."""
    found: dict[str, Callable[[np.ndarray], int]] = {
        "gzip": lambda images: len(gzip.compress(_plain(images), 9)),
        "bz2": lambda images: len(bz2.compress(_plain(images), 9)),
        "xz": lambda images: len(lzma.compress(_plain(images), preset=9 | lzma.PRESET_EXTREME)),
        "PNG": _picture("PNG", optimize=True),
        "WebP lossless": _picture("WEBP", lossless=True, quality=100, method=6),
    }
    if ".jxl" in Image.registered_extensions():
        found["JPEG XL"] = _picture("JXL", lossless=True)
    return found
