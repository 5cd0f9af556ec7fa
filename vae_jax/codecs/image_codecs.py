"""What compression is compared with: the image formats of Pillow, and PCA; and bits at equal PSNR."""

import io
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from vae_jax.codecs.entropy_coding import Symbols
from vae_jax.codecs.lossy import ByteImages, Codec, dequantise, fit_codec, quantise, step_of
from vae_jax.measures.dimensionality import PrincipalComponents
from vae_jax.measures.images import as_rows

LONGEST_SIDE = 16_383
"""Of a mosaic in pixels: WebP's limit."""


class LinearModel(NamedTuple):
    """Principal components as an encoder and a decoder, with a codec for their coefficients."""

    pca: PrincipalComponents
    codec: Codec

    @classmethod
    def fit(
        cls, train: ByteImages, validation: UInt8[np.ndarray, "m height width channels"], dimensions: int
    ) -> "LinearModel":
        """Fit PCA to training images; the codec as an autoencoder's."""
        pca = PrincipalComponents.fit(as_rows(train), dimensions)
        codes = [pca.encode(as_rows(images)) for images in (train, validation)]
        # The decoder is orthonormal: a step in a coefficient is the same step in the image.
        metric = np.eye(dimensions) / train[0].size
        return cls(pca, fit_codec(codes[0], codes[1], metric))

    def encode(self, images: ByteImages, quality: int) -> Symbols:
        """Quantised coefficients."""
        return quantise(self.pca.encode(as_rows(images)), self.codec.transform, step_of(quality))

    def decode(self, symbols: Symbols, quality: int, image_shape: tuple[int, int, int]) -> ByteImages:
        """Images from quantised coefficients."""
        codes = dequantise(symbols, self.codec.transform, step_of(quality))
        pixels = np.clip(self.pca.decode(codes), 0, 1)
        return np.rint(pixels * 255).astype(np.uint8).reshape(-1, *image_shape)


def most_in_mosaic(image_shape: tuple[int, int, int]) -> int:
    """How many images a mosaic can hold that every format takes."""
    return int(min(LONGEST_SIDE // side for side in image_shape[:2])) ** 2


def mosaic(images: ByteImages) -> np.ndarray:
    """Images edge to edge as one nearly square picture, filled up with black: uint8 [height, width, channels]."""
    number, height, width, channels = images.shape
    columns = int(np.ceil(np.sqrt(number)))
    rows = -(-number // columns)
    tiles = np.zeros((rows * columns, height, width, channels), np.uint8)
    tiles[:number] = images
    tiles = tiles.reshape(rows, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
    return tiles.reshape(rows * height, columns * width, channels)


def cut_mosaic(picture: np.ndarray, number: int, image_shape: tuple[int, int, int]) -> ByteImages:
    """The first `number` images of a mosaic."""
    height, width, channels = image_shape
    rows, columns = picture.shape[0] // height, picture.shape[1] // width
    tiles = picture.reshape(rows, height, columns, width, channels).transpose(0, 2, 1, 3, 4)
    return tiles.reshape(-1, height, width, channels)[:number]


def through_pillow(picture: np.ndarray, image_format: str, quality: int | None) -> tuple[int, np.ndarray]:
    """Size in bytes of a picture [height, width, channels] in an image format, and the picture that it decodes to.

    Args:
        picture: bytes; one channel or three.
        image_format: "JPEG" (optimised Huffman tables), "WEBP" (slowest method) or "PNG" (optimised).
        quality: of the format, 0 to 100; None is lossless, in WebP and PNG.
    """
    webp = {"quality": 100, "lossless": True} if quality is None else {"quality": quality}
    options: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": quality, "optimize": True},
        "WEBP": {**webp, "method": 6},
        "PNG": {"optimize": True},
    }
    grey = picture.shape[-1] == 1
    file = io.BytesIO()
    Image.fromarray(picture[..., 0] if grey else picture).save(file, image_format, **options[image_format])
    with Image.open(file) as image:
        decoded = np.asarray(image.convert("L" if grey else "RGB"))
    return file.getbuffer().nbytes, decoded.reshape(picture.shape)


def rate_at(psnr: float, rates: Float[np.ndarray, " points"], psnrs: Float[np.ndarray, " points"]) -> float | None:
    """Rate of a rate-distortion curve at a PSNR: the logarithm interpolated linearly; None beyond the curve's ends.

    Args:
        psnr: in dB.
        rates: of the points, such as bits per pixel, above 0.
        psnrs: of the points, in dB.
    """
    order = np.argsort(psnrs)
    if not psnrs[order[0]] <= psnr <= psnrs[order[-1]]:
        return None
    return float(np.exp(np.interp(psnr, psnrs[order], np.log(rates[order]))))
