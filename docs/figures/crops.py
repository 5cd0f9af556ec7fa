"""2,000 crops of six photographs to train on, and 200 of their right-hand thirds to test on; no pixel is in both.

The photographs come with scikit-image: NASA's and SpaceX's are in the public domain (astronaut, hubble_deep_field,
rocket), and the others were put under CC0 by who took them (chelsea, coffee, retina).

    python docs/figures/crops.py photos/
    vae-jax train photos/ --image-size 64 --steps 1444 --run-dir runs/photos    # figures/reconstructions.png
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
        border = photo.shape[1] * 2 // 3
        part = photo[:, :border] if split == "train" else photo[:, border:]
        height, width = np.minimum(rng.integers(96, 193, 2), part.shape[:2])
        top, left = (rng.integers(0, room + 1) for room in np.subtract(part.shape[:2], (height, width)))
        crop = part[top : top + height, left : left + width]
        Image.fromarray(crop).save(folder / f"{i:04d}-{NAMES[i % len(NAMES)]}.jpg", quality=95)
