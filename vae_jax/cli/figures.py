"""From a trained model to the arrays that `vae_jax.plots.run` draws, and the figures of a run."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from vae_jax import plots
from vae_jax.cli.grids import decode_grid, draw_grid
from vae_jax.cli.prior_figure import draw_prior, has_drawn_density
from vae_jax.data.dataset import Dataset
from vae_jax.data.split import Split
from vae_jax.errors import counted
from vae_jax.measures import traversal
from vae_jax.measures.sparsity import most_used_atoms
from vae_jax.models.autoencoders import Parameters
from vae_jax.models.codes import Codes
from vae_jax.plots.sheets import number_within, side_within
from vae_jax.plots.style import MOST_NAMED, classes_of
from vae_jax.runs.run import Run

STEPS = 9
"""Images on the way of an interpolation, with both ends."""
DISPLAY_NAMES = {
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "kmnist": "Kuzushiji-MNIST",
    "digits": "scikit-learn digits",
    "cifar10": "CIFAR-10",
    "dsprites": "dSprites",
}


def headline(run: Run, test: dict[str, float] | None) -> str:
    """The first lines of every title: data set, model, latent dimension; test loss and its parts where known."""
    name, model = run.dataset["name"], run.model
    kind = f"conditional {model.name}" if model.classes else model.name
    first = f"{DISPLAY_NAMES.get(name, name)} · {kind}, {counted(model.latent_dim, 'latent dimension')}"
    if test is None:
        return first
    second = f"test loss {test['loss']:.2f} {model.likelihood.unit}"
    if model.stochastic:
        estimated = ", estimated" if model.estimates_kl else ""
        second += f" = reconstruction {test['reconstruction']:.2f} + KL {test['kl']:.2f}{estimated}"
    if "bits_per_dim" in test:
        second += f"\n{bits_in_words(test)} bits per dimension"
    return f"{first}\n{second}"


def bits_in_words(test: dict[str, float]) -> str:
    """Bits per dimension, and their standard error where it is known."""
    error = f" ± {test['bits_per_dim_se']:.3f}" if "bits_per_dim_se" in test else ""
    return f"{test['bits_per_dim']:.3f}{error}"


def draw_means(run: Run, codes: Codes, labels: np.ndarray | None, title: str, path: Path) -> None:
    """Scatter of the latents by class; the first two principal components where there are more than two."""
    means, axis_names = codes.means, ("$z_1$", "$z_2$")
    projection = np.eye(run.model.latent_dim)
    if run.model.latent_dim > 2 and len(means) == 1:  # one point has no directions
        means, projection = means[:, :2], projection[:2]
    elif run.model.latent_dim > 2:
        projection, shares, centre = traversal.principal_components(means, 2)
        means = (means - centre) @ projection.T
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


def draw_run(run: Run, codes: Codes, dataset: Dataset, test_loss: dict[str, float]) -> None:
    """Every still figure of a run, into RUN/figures; `codes` are those of the test images."""
    folder, test = run.path / "figures", dataset.test
    folder.mkdir(exist_ok=True)
    title = headline(run, test_loss)
    reference = run.encode(dataset.validation.images, dataset.validation.labels)
    what = f"{title}\n{codes.title} of {counted(len(test), 'test image')}"
    draw_means(run, codes, test.labels, what, folder / "latent_means.png")
    if has_drawn_density(run):
        draw_prior(run, codes, test.labels, title, folder / "latent_prior.png")
    grid = decode_grid(run, reference, run.config.grid_size)
    draw_grid(grid, f"{title}\ndecoded latent grid", folder / "latent_grid.png")
    # The key of the samples lies behind those of all test images.
    key = jax.random.fold_in(run.evaluation_key, len(test))
    shape = run.model.image_shape
    images = run.generate(side_within(shape, 10) ** 2, key=key, codes=reference)
    drawn = "the prior" if run.model.prior.has_density else "a Gaussian fitted to the validation images' codes"
    drawn += "; all classes in turn" if run.model.classes else ""
    pairs = _reconstruct(run, test.rows(slice(number_within(shape, 20, least=4))))
    figures = {
        "reconstructions": plots.reconstructions(*pairs, f"{title}\ntest images and their reconstructions"),
        "samples": plots.samples(images, f"{title}\nsamples: latents drawn from {drawn}"),
        "training_curves": plots.training_curves(run.metrics, title, f"{run.model.likelihood.unit} per image"),
    }
    if run.model.classes:
        figures["conditions"] = _conditions(run, reference, key, title)
    elif run.config.sparsity != "none" and run.model.likelihood.parameters == 1 and not run.model.likelihood.init():
        shown = {str(run.config.sparsity): most_used_atoms(run.model, run.params, codes.means, 100)}
        most = counted(min(100, run.model.latent_dim), "most used unit")
        figures["dictionary"] = plots.dictionaries(shown, f"{title}\ndecoder atoms of the {most}; grey is 0")
    for name, figure in figures.items():
        plots.save(figure, folder / f"{name}.png")


def _conditions(run: Run, reference: Codes, key: jax.Array, title: str) -> Figure:
    # The key is that of the samples, so each class has the same latents.
    shape = run.model.image_shape
    shown = list(run.classes.items())[: number_within(shape, MOST_NAMED, least=5)]
    number = number_within(shape, 10 * len(shown)) // len(shown)
    rows = [run.generate(max(2, number), label=label, key=key, codes=reference) for _, label in shown]
    which = "each class" if len(shown) == len(run.classes) else f"each of the first {len(shown)} classes"
    what = f"{title}\nthe same latents in {which}: a column keeps its style"
    return plots.conditions(np.stack(rows), [name for name, _ in shown], what)


def _reconstruct(run: Run, part: Split) -> tuple[np.ndarray, np.ndarray]:
    @jax.jit
    def encode(params: Parameters, images: jax.Array, labels: Any, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        seen = run.inputs.batch(images, jnp.arange(len(images)), key, labels=labels)
        return seen.inputs, run.model.latents(params, seen.inputs, labels)

    originals, codes = encode(run.params, part.images, part.labels, run.evaluation_key)
    return np.asarray(originals), run.decode(codes, part.labels if run.model.classes else None)


def draw_traversals(config: Any, run: Run, part: Split, codes: Codes, reference: Codes, title: str, path: Path) -> None:
    """One latent dimension at a time through its quantiles over the `reference` codes, as the flags of plot say."""
    base, latent_dim = codes.means[config.base_image], run.model.latent_dim
    where, number = "aggregate posterior" if run.model.stochastic else "codes", len(reference.means)
    if traversal.has_components(reference.means):
        most_rows = min(config.traversals, len(reference) - 1)
        vectors, shares, _ = traversal.principal_components(reference.means, most_rows)
        places = traversal.quantiles_along(reference.sample(), vectors, traversal.LEVELS)
        z, own, what = traversal.moved(base, vectors, places), vectors @ base, "component"
        names = [f"component {i + 1}\n{share:.1%} of variance" for i, share in enumerate(shares)]
        shown = f"the first {counted(len(vectors), 'principal component')} of the codes"
    else:
        dims, known = reference.order()[: config.traversals], reference.information()
        quantiles = reference.quantiles(traversal.LEVELS)
        places = quantiles[:, dims]
        z, own, what = traversal.traverse(base, dims, quantiles), base[dims], "dimension"
        names = [f"$z_{{{dim + 1}}}$\n{reference.measure.format(known[dim])}" for dim in dims]
        most = counted(len(dims), "most informative latent dimension")
        shown = "every latent dimension" if len(dims) == latent_dim else f"the {most}"
    every = np.concatenate([base[None], z.reshape(-1, latent_dim)])
    labels = np.full(len(every), part.labels[config.base_image]) if run.model.classes else None  # type: ignore[index]
    decoded = np.clip(run.decode(every, labels), 0, 1)
    figure = plots.traversals(
        decoded[1:].reshape(*z.shape[:2], *decoded.shape[1:]),
        np.stack([part.images[config.base_image].astype(np.float32) / 255, decoded[0]]),
        np.argmin(np.abs(places - own), axis=0),
        traversal.LEVELS,
        names,
        [f"{low:.2f}\nto {high:.2f}".replace("-", "−") for low, high in places[[0, -1]].T],
        f"{title}\ntraversal of {shown} from {config.split} image {config.base_image}",
        f"each row moves one {what} through the quantiles of its {where} over {counted(number, 'validation image')}"
        f"\n(from and to: on the right), the others stay as they are; the most informative {what} first",
    )
    plots.save(figure, path)


def draw_interpolations(config: Any, run: Run, part: Split, codes: Codes, title: str, path: Path) -> None:
    """From image to image, of different classes where there are labels, as the flags of plot say."""
    pairs = traversal.choose_pairs(part.labels, len(part), config.interpolations)
    if part.labels is None:
        names, what = pairs.astype(str), f"pairs of {config.split} images, named by position"
    else:
        known, index = classes_of(part.labels, len(part), run.dataset.get("class_names"))
        names, what = np.array(known)[index[pairs]], f"{config.split} images"
        what += "" if len(known) == 1 else " of different classes"
    named = [f"{first}\nto {last}" for first, last in names]
    labels = None if part.labels is None else part.labels[pairs]
    draw_ways(run, part.images[pairs], codes.means[pairs], config.interpolation, named, (title, what), path, labels)


def draw_ways(
    run: Run,
    ends: np.ndarray,
    codes: np.ndarray,
    way: str,
    names: list[str],
    title: tuple[str, str],
    path: Path,
    labels: np.ndarray | None = None,
) -> None:
    """From each first image [pairs, 2, height, width, channels], with its code, to its second.

    The way is straight, spherical or both; the title is the headline, and what the images are.
    """
    functions = {"straight": traversal.linear_interpolation, "spherical": traversal.spherical_interpolation}
    kinds = [kind for kind in functions if way in ("both", kind)]
    note = "spherical: equal angles about the origin, the norm goes linearly" if "spherical" in kinds else ""
    if note and not run.model.stochastic:
        note += "\nwithout a prior about the origin it has no meaning for an AE: for comparison only"
    if codes.shape[-1] == 1:
        kinds, note = kinds[:1], "in one dimension, straight and spherical are the same"
    z = np.stack([functions[kind](codes[:, 0], codes[:, 1], STEPS) for kind in kinds], axis=1)
    of_step = None
    if run.model.classes:
        near = np.arange(STEPS) > STEPS // 2  # each step is of the class of the nearer end
        of_step = np.broadcast_to(labels.reshape(-1, 1, 2)[..., near.astype(int)], z.shape[:-1]).ravel()  # type: ignore[union-attr]
        note = "\n".join(filter(None, [note, "each step has the class of the nearer end"]))
    decoded = np.clip(run.decode(z.reshape(-1, z.shape[-1]), of_step), 0, 1)
    figure = plots.interpolations(
        ends.astype(np.float32) / 255,
        decoded.reshape(*z.shape[:-1], *decoded.shape[1:]),
        names,
        kinds,
        f"{title[0]}\n{' and '.join(kinds)} interpolation between {title[1]}",
        note,
    )
    plots.save(figure, path)


def draw_nearest(
    images: np.ndarray, found: np.ndarray, distances: np.ndarray, names: list[str], title: str, path: Path
) -> None:
    """Images [rows, height, width, channels], and beside each those found [rows, number, ...] with their distances."""
    plots.save(plots.neighbours(images / np.float32(255), found / np.float32(255), distances, names, title), path)
