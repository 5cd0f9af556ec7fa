"""Training images that lie nearest in the latent space: `vae-jax nearest RUN IMAGES`."""

import dataclasses
from pathlib import Path

import numpy as np

from vae_jax.cli.images import REMEDY, LabelledConfig, Loaded, load, write_table
from vae_jax.cli.outputs import free_output
from vae_jax.domains import at_least
from vae_jax.errors import UsageError, counted
from vae_jax.files import replacing, writing

_SHOWN = 10  # rows of a figure


@dataclasses.dataclass(frozen=True)
class Config(LabelledConfig):
    """Find the run's training images whose codes lie nearest to those of images, by Euclidean distance."""

    number: int = at_least(1, 5, most=20)
    """Of training images for each image."""
    output: Path | None = None
    """A name that ends in .png, for a sheet of the first ten images; or in .csv, for a table of them all. Default: the
    images' name with -nearest.png, beside them."""
    data_dir: Path | None = None
    """Where the run's data lies, if no longer where the run found it."""


def run(config: Config) -> Path:
    """Search, write the file and print where."""
    output = free_output(config.output, config.images, "-nearest.png", ".png", ".csv")
    loaded = load(config)
    restored, split = loaded.run, loaded.split
    # After `load`, as they import JAX.
    from sklearn.neighbors import NearestNeighbors

    from vae_jax.cli.figures import draw_nearest, headline
    from vae_jax.runs.run import load_dataset_of

    dataset = load_dataset_of(restored, config.data_dir)
    train = dataset.train
    if config.number > len(train):
        raise UsageError(f"--number must be at most {len(train)}, the number of training images, got {config.number}.")
    known = restored.encode(train.images, restored.taken_for(train.images, train.labels)).means
    search = NearestNeighbors(n_neighbors=config.number).fit(known)
    distances, places = search.kneighbors(restored.encode(split.images, loaded.labels).means)
    if output.suffix.lower() == ".csv":
        _write_table(output, loaded, train.files, distances, places)
    else:
        shown = slice(_SHOWN)
        names = [name[-24:] for name in (split.files or map(str, range(len(split))))][shown]
        what = "images (framed), the training images whose codes are nearest, and their distances"
        title = f"{headline(restored, None)}\n{what}"
        with writing(output, REMEDY), replacing(output) as temporary:
            found = np.stack([np.asarray(train.images[row]) for row in places[shown]])
            draw_nearest(np.asarray(split.images[shown]), found, distances[shown], names, title, temporary)
    print(f"{counted(len(split), 'image')}, {counted(config.number, 'training image')} each: {output}")
    return output


def _write_table(
    path: Path, loaded: Loaded, files: tuple[str, ...] | None, distances: np.ndarray, places: np.ndarray
) -> None:
    named = places if files is None else np.array(files)[places]
    columns: dict[str, np.ndarray] = {}
    for rank in range(places.shape[1]):
        columns |= {f"nearest_{rank + 1}": named[:, rank], f"distance_{rank + 1}": distances[:, rank]}
    write_table(path, loaded, columns)
