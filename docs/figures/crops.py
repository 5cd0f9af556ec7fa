"""2,000 crops of six photographs to train on, and 200 of their right-hand quarters to test on.

The photographs come with scikit-image: NASA's and SpaceX's are in the public domain (astronaut, hubble_deep_field,
rocket), and the others were put under CC0 by who took them (chelsea, coffee, retina).

    python docs/figures/crops.py photos/
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

NAMES = ("astronaut", "chelsea", "coffee", "hubble_deep_field", "retina", "rocket")

rng, photos = np.random.default_rng(0), [getattr(data, name)() for name in NAMES]
for split, number in (("train", 2000), ("test", 200)):
    folder = Path(sys.argv[1]) / split
    folder.mkdir(parents=True)
    for i in range(number):
        photo = photos[i % len(NAMES)]
        height, width = rng.integers(64, 129, 2)
        border = photo.shape[1] * 3 // 4  # no pixel is in both splits
        part = photo[:, :border] if split == "train" else photo[:, border:]
        width = min(width, part.shape[1])
        top, left = rng.integers(0, part.shape[0] - height + 1), rng.integers(0, part.shape[1] - width + 1)
        crop = part[top : top + height, left : left + width]
        Image.fromarray(crop).save(folder / f"{NAMES[i % len(NAMES)]}{i}.jpg", quality=95)
