"""Codes images in a process of its own, without JAX: codec, images and batch in, the SHA-256 of the file out."""

import hashlib
import sys
from pathlib import Path

import numpy as np

from vae_jax.codecs.lossless import container
from vae_jax.codecs.lossless.codec import read_codec


def main(codec, images, batch):
    """Print the digest of the file, and whether it came back."""
    codec, images = read_codec(Path(codec)), np.load(images)
    content = [*container.compress(codec, images, batch=int(batch))][-1]
    again = [*container.decompress(codec, content, "it", batch=int(batch))][-1]
    assert "jax" not in sys.modules
    print(hashlib.sha256(content).hexdigest(), np.array_equal(again.images, images))


if __name__ == "__main__":
    main(*sys.argv[1:])
