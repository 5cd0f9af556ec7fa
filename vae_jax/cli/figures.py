"""From a trained model to the arrays that `vae_jax.plots.run` draws, and the figures of a run."""

import dataclasses
from functools import partial
from pathlib import Path
from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax import plots
from vae_jax.data.dataset import Dataset
from vae_jax.measures.sparsity import most_used_atoms
from vae_jax.models.autoencoders import AnyModel, Parameters
from vae_jax.models.codes import Codes
from vae_jax.plots.sparsity import dictionaries
from vae_jax.runs.run import Run

PRIOR_SHARE = 0.955
"""Share of the prior's mass, in the dimensions shown, that the latent grid covers."""
DISPLAY_NAMES = {
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "kmnist": "Kuzushiji-MNIST",
    "digits": "scikit-learn digits",
}


def plural(number: int, noun: str) -> str:
    """Such as "1 latent dimension" or "2 latent dimensions"."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def headline(model: AnyModel, dataset: str, test: dict[str, float] | None) -> str:
    """The first lines of every title: data set, model, latent dimension; test loss and its parts where known."""
    first = f"{DISPLAY_NAMES.get(dataset, dataset)} · {model.name}, {plural(model.latent_dim, 'latent dimension')}"
    if test is None:
        return first
    second = f"test loss {test['loss']:.2f} {model.likelihood.unit}"
    if model.stochastic:
        second += f" = reconstruction {test['reconstruction']:.2f} + KL {test['kl']:.2f}"
    return f"{first}\n{second}"


@dataclasses.dataclass(frozen=True)
class Grid:
    """Images decoded over one or two latent dimensions, the others at their centre."""

    images: np.ndarray
    """[rows, columns, height, width, channels] in [0, 1]."""
    x_values: np.ndarray
    y_values: np.ndarray | None
    axis_names: tuple[str, str]
    note: str


def decode_grid(model: AnyModel, params: Parameters, codes: Codes, size: int) -> Grid:
    """Decode a grid over the two most informative dimensions.

    For a VAE at quantiles of N(0, 1); for an AE, which has no prior, evenly from the 1st to the 99th percentile of the
    codes.
    """
    shown = min(2, model.latent_dim)
    dims = np.sort(codes.order()[:shown])  # in their own order, so that two dimensions never change places
    centre = np.zeros(model.latent_dim, np.float32)
    if model.stochastic:
        share = PRIOR_SHARE ** (1 / shown)
        levels = np.linspace((1 - share) / 2, (1 + share) / 2, size)
        values = [np.array([NormalDist().inv_cdf(p) for p in levels])] * shown
        where = "prior's mass" if shown == model.latent_dim else "prior's mass in these two dimensions"
        note = f"normal quantiles, {size} a side: the middle {PRIOR_SHARE:.1%} of the {where}"
    else:
        centre = np.median(codes.means, axis=0)
        low, high = np.percentile(codes.means[:, dims], [1, 99], axis=0)
        values = list(np.linspace(low, high, size, axis=1))
        note = f"{size} steps a side from the 1st to the 99th percentile of the validation images' codes"
    mesh = np.meshgrid(*values)
    z = np.tile(centre, (mesh[0].size, 1)).astype(np.float32)
    z[:, dims] = np.stack([axis.ravel() for axis in mesh], axis=1)
    images = decode_mean(model, params, z)
    rows = size if shown == 2 else 1
    names = [f"$z_{{{dim + 1}}}$" for dim in dims]
    return Grid(
        np.clip(images, 0, 1).reshape(rows, size, *images.shape[1:]),
        values[0],
        values[1] if shown == 2 else None,
        (names[0], names[1] if shown == 2 else ""),
        note,
    )


def decode_mean(model: AnyModel, params: Parameters, z: np.ndarray) -> np.ndarray:
    """Expected images of latents [n, latent], compiled once for all runs of a model."""
    return np.asarray(_decode_mean(model, params, jnp.float32(z)))


@partial(jax.jit, static_argnums=0)
def _decode_mean(model: AnyModel, params: Parameters, z: jax.Array) -> jax.Array:
    return model.decode_mean(params, z)


def draw_means(run: Run, codes: Codes, labels: np.ndarray | None, title: str, path: Path) -> None:
    """Scatter of the latents by class; the first two principal components where there are more than two."""
    means, axis_names = codes.means, ("$z_1$", "$z_2$")
    projection = np.eye(run.model.latent_dim)
    if run.model.latent_dim > 2:
        from sklearn.decomposition import PCA

        pca = PCA(2, svd_solver="covariance_eigh").fit(means)
        means, projection = pca.transform(means), pca.components_
        shares = pca.explained_variance_ratio_
        first, second = (f"principal component {i + 1} ({share:.0%} of variance)" for i, share in enumerate(shares))
        axis_names = (first, second)
    ellipses, chosen = None, _spread(labels, len(means))
    variances = codes.covariances(chosen)
    if variances is not None and run.model.latent_dim > 1:
        ellipses = (means[chosen], np.einsum("pd,nd,qd->npq", projection, variances, projection))
    plots.save(plots.latent_means(means, labels, title, axis_names, ellipses, run.dataset.get("class_names")), path)


def _spread(labels: np.ndarray | None, number: int, per_class: int = 1) -> np.ndarray:
    # A few points for ellipses: the first ones of each class.
    if labels is None:
        return np.arange(min(20, number))
    classes = np.unique(labels)[:20]
    return np.concatenate([np.flatnonzero(labels == label)[:per_class] for label in classes])


def draw_grid(grid: Grid, title: str, path: Path) -> None:
    """The decoded latent grid."""
    figure = plots.latent_grid(grid.images, grid.x_values, grid.y_values, title, grid.axis_names, grid.note)
    plots.save(figure, path)


def draw_run(run: Run, codes: Codes, dataset: Dataset, test_loss: dict[str, float]) -> None:
    """Every still figure of a run, into RUN/figures; `codes` are those of the test images."""
    folder, test = run.path / "figures", dataset.test
    folder.mkdir(exist_ok=True)
    title = headline(run.model, run.dataset["name"], test_loss)
    reference = run.encode(dataset.validation.images)
    what = f"{title}\n{codes.title} of {len(test):,} test images"
    draw_means(run, codes, test.labels, what, folder / "latent_means.png")
    grid = decode_grid(run.model, run.params, reference, run.config.grid_size)
    draw_grid(grid, f"{title}\ndecoded latent grid", folder / "latent_grid.png")
    pairs = _reconstruct(run, test.images[:20])
    figure = plots.reconstructions(*pairs, f"{title}\ntest images and their reconstructions")
    plots.save(figure, folder / "reconstructions.png")
    # The key of the samples lies behind those of all test images.
    images = run.generate(100, key=jax.random.fold_in(run.evaluation_key, len(test)), codes=reference)
    drawn = "the prior" if run.model.stochastic else "a Gaussian fitted to the validation images' codes"
    plots.save(plots.samples(images, f"{title}\nsamples: latents drawn from {drawn}"), folder / "samples.png")
    if run.config.sparsity != "none" and run.model.likelihood.parameters == 1 and not run.model.likelihood.init():
        shown = {str(run.config.sparsity): most_used_atoms(run.model, run.params, codes.means, 100)}
        atoms_title = f"{title}\ndecoder atoms of the {min(100, run.model.latent_dim)} most used units; grey is 0"
        plots.save(dictionaries(shown, atoms_title), folder / "dictionary.png")
    unit = f"{run.model.likelihood.unit} per image"
    plots.save(plots.training_curves(run.metrics, title, unit), folder / "training_curves.png")


def _reconstruct(run: Run, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    @jax.jit
    def reconstruct(params: Parameters, images: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        seen = run.inputs.batch(images, jnp.arange(len(images)), key)
        return seen.inputs, run.model.decode_mean(params, run.model.latents(params, seen.inputs))

    originals, rebuilt = reconstruct(run.params, images, run.evaluation_key)
    return np.asarray(originals), np.asarray(rebuilt)
