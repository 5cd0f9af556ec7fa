"""Images as rows of numbers, and how alike two sets of images are in structure: SSIM."""

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from vae_jax.models.chunks import ROWS
from vae_jax.models.quality import Images

_WINDOW = 7
_C1, _C2 = 0.01**2, 0.03**2  # of the paper, for a data range of 1


def as_rows(images: Images) -> Float[np.ndarray, "n pixels"]:
    """Images as rows of float32: bytes over 255, floats as they are."""
    rows = images.reshape(len(images), -1)
    return rows.astype(np.float32) / np.float32(255) if rows.dtype == np.uint8 else rows.astype(np.float32)


def ssim(clean: Images, estimate: Images) -> Float[np.ndarray, " n"]:
    """Mean structural similarity of each image, 1 for a perfect estimate (Wang et al. 2004), for a data range of 1.

    With a uniform window of 7 x 7 pixels, as scikit-image has it, or the largest odd one that fits into the image.

    Args:
        clean: [n, height, width, channels] in [0, 1]; height and width at least 3.
        estimate: of the same shape.

    Raises:
        ValueError: the images are smaller than 3 x 3.
    """
    height, width = clean.shape[1:3]
    window = min(_WINDOW, (min(height, width) - 1) // 2 * 2 + 1)
    if window < 3:
        raise ValueError(f"images must be at least 3 x 3 for the structural similarity, got {height} x {width}")
    border = window // 2
    correction = window**2 / (window**2 - 1)  # to the sample covariance
    means = []
    for start in range(0, len(clean), ROWS):
        x, y = (np.asarray(images[start : start + ROWS], np.float64) for images in (clean, estimate))

        def local(values: np.ndarray) -> np.ndarray:
            # The mean around each pixel whose window lies within the image.
            around = ndimage.uniform_filter(values, (1, window, window, 1))
            return around[:, border : height - border, border : width - border]

        mx, my = local(x), local(y)
        vx, vy, vxy = (
            correction * (local(a * b) - ma * mb) for a, b, ma, mb in ((x, x, mx, mx), (y, y, my, my), (x, y, mx, my))
        )
        index = (2 * mx * my + _C1) * (2 * vxy + _C2) / ((mx**2 + my**2 + _C1) * (vx + vy + _C2))
        means.append(index.mean(axis=(1, 2, 3)))
    return np.concatenate(means)
