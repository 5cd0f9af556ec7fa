"""The arrays of the figure of AE against VAE."""

import numpy as np
from matplotlib.figure import Figure

from experiments.compare.figures import Space, comparison
from experiments.compare.measure import Yardstick
from vae_jax.cli.figures import decode_grid, plural
from vae_jax.data.dataset import Dataset
from vae_jax.measures.images import as_rows
from vae_jax.measures.traversal import linear_interpolation
from vae_jax.runs.run import Run

PAIRS, POINTS, MAP = 9, 9, 60


def compared(ae: Run, vae: Run, dataset: Dataset, yardstick: Yardstick, name: str) -> Figure:
    """One run of each model side by side; `name` is what titles call the data."""
    pairs, latent_dim = _pairs(dataset), ae.model.latent_dim
    shown = "" if latent_dim == 2 else f", the two most informative of {plural(latent_dim, 'dimension')}"
    spaces = [space_of(run, dataset, yardstick, pairs) for run in (ae, vae)]
    title = f"{name}: the latent spaces of an AE and of a VAE{shown}"
    return comparison(spaces, title, dataset.class_names)


def space_of(run: Run, dataset: Dataset, yardstick: Yardstick, pairs: np.ndarray) -> Space:
    """What the figure shows of a run: its two most informative dimensions, with the others at their centre."""
    model, test = run.model, dataset.test
    codes, reference = run.encode(test.images), run.encode(dataset.validation.images)
    dims = np.sort(reference.order()[:2]) if model.latent_dim > 1 else np.array([0, 0])
    plane = codes.means[:, dims]
    grid = decode_grid(model, run.params, reference, 15)
    low, high = np.percentile(plane, [0.5, 99.5], axis=0)
    axes = [np.linspace(a, b, MAP) for a, b in zip(low, high, strict=True)]
    z = np.tile(np.median(reference.means, axis=0), (MAP * MAP, 1)).astype(np.float32)
    z[:, dims] = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
    realness = yardstick.realness(run.decode(z)).reshape(MAP, MAP)
    a, b = codes.means[pairs]
    lines = linear_interpolation(a, b, POINTS)
    paths = run.decode(lines.reshape(-1, model.latent_dim)).reshape(*lines.shape[:2], *dataset.image_shape)
    first, last = (as_rows(test.images[i]).reshape(len(i), 1, *dataset.image_shape) for i in pairs)
    loss = run.summary["test"]["loss"] if run.summary else run.metrics[-1]["validation"]["loss"]
    return Space(
        name=f"{model.name}: {loss:.1f} {model.likelihood.unit}",
        means=plane,
        labels=test.labels,
        axis_names=(f"$z_{{{dims[0] + 1}}}$", f"$z_{{{dims[1] + 1}}}$"),
        grid=grid.images,
        grid_x=grid.x_values,
        grid_y=grid.y_values if grid.y_values is not None else np.zeros(1),
        realness=realness,
        extent=(low[0], high[0], low[1], high[1]),
        paths=np.concatenate([first, paths, last], axis=1),
    )


def _pairs(dataset: Dataset) -> np.ndarray:
    # Pairs of test images, of different classes where there are any.
    rng = np.random.default_rng(1)
    found: list[np.ndarray] = []
    labels = dataset.test.labels
    several = labels is not None and len(np.unique(labels)) > 1
    while len(found) < PAIRS:
        pair = rng.integers(0, len(dataset.test), 2)
        if not several or (labels is not None and labels[pair[0]] != labels[pair[1]]):
            found.append(pair)
    return np.stack(found, axis=1)
