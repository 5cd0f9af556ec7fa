"""Classes as a condition: a learned picture of each beside the encoder's image, learned numbers beside the latent.

Any encoder and decoder take them, as one more channel of the image and as more dimensions of the latent (the model is
that of Sohn et al. 2015, whose prior depends on the class only where that is asked for).
"""

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Shaped

from vae_jax.config import Settings
from vae_jax.data.dataset import Dataset
from vae_jax.data.split import UNKNOWN, Classes, Split
from vae_jax.domains import as_declared, shortened
from vae_jax.errors import UsageError

Parameters = dict[str, Any]
Labels: TypeAlias = Int[Array | np.ndarray, " batch"] | None
MOST_NUMBERS = 16
"""Of a class, beside a latent."""


def conditions_of(settings: Settings, dataset: Dataset) -> tuple[int, ...]:
    """The labels that a model on this data set, or on its --classes, will know, in their order; none without them.

    Raises:
        UsageError: the images have no labels, are of one class, or none of a class is trained on.
    """
    if settings.condition == "none":
        return ()
    held: dict[str, set[int]] = {}
    given = f"--condition {settings.condition}"
    chosen = None if settings.classes is None else dataset.labels_of(settings.classes)
    for part, split in dataset.splits.items():
        if split.labels is None:
            raise UsageError(
                f"{given} needs labels, which the {part} images of {dataset.name} have not.\n"
                "Give a folder with a folder for each class or a file with labels, or leave --condition out."
            )
        held[part] = set(np.unique(split.labels[split.positions(chosen)]).tolist())
        held[part] -= {UNKNOWN} if settings.condition == "inferred" else set()
    known = sorted(held["train"])
    if len(known) < 2:
        raise UsageError(
            f"{given} needs at least two classes, got {' '.join(map(dataset.name_of, known)) or 'none'} alone.\n"
            "Give more --classes, or leave --condition out."
        )
    for part, found in held.items():
        if strange := sorted(found - held["train"]):
            raise UsageError(
                f"{given} needs training images of each class, got {dataset.name_of(strange[0])} in the "
                f"{part} split only.\nLeave it out by --classes, or give more images of it."
            )
    return tuple(known)


def known_classes(classes: Any) -> tuple[int, ...]:
    """The labels in their order, from themselves or from how many there are from 0 on.

    Raises:
        UsageError: they are no labels of at least two classes.
    """
    labels = as_declared(tuple(range(classes)) if isinstance(classes, int) else classes, tuple[int, ...])
    if not (isinstance(labels, tuple) and all(type(label) is int for label in labels) and len(set(labels)) > 1):
        raise UsageError(
            f"--condition needs the labels of at least two classes, got {shortened(repr(classes), 60)}.\n"
            "Give build_model(settings, image_shape, classes), such as the number of classes."
        )
    return tuple(sorted(set(labels)))


def check_conditions(
    classes: tuple[int, ...], *splits: Split, chosen: Classes | None = None, unknown: bool = False
) -> None:
    """Refuse splits for a model of these classes that lack labels or hold others, by a UsageError."""
    for split in splits if classes else ():
        places = split.positions(chosen)
        check_labels(None if split.labels is None else split.labels[places], len(places), classes, unknown=unknown)


def check_labels(labels: Any, number: Any, classes: tuple[int, ...], *, unknown: bool = False) -> Labels:
    """The labels of so many images for a model of these classes; traced ones pass by their shape.

    `unknown` is whether UNKNOWN is allowed, too.

    Raises:
        UsageError: there are none, of another number, or one that the model does not know.
    """
    known = shortened(", ".join(map(str, classes)), 200)
    if labels is None:
        raise UsageError(
            f"The model is conditional (--condition) and needs the label of each image.\n"
            f"Give labels=..., one an image; it knows {known}."
        )
    found = labels if isinstance(labels, jax.Array) else np.asarray(labels)
    allowed = (*classes, UNKNOWN) if unknown else classes
    if found.shape != (number,) or found.dtype.kind not in "iu":
        raise UsageError(f"labels must be integers [{number}], one an image, got {found.dtype} of shape {found.shape}.")
    if not isinstance(found, jax.core.Tracer) and not (ok := np.isin(np.asarray(found), allowed)).all():
        wrong = np.asarray(found)[~ok][0]
        raise UsageError(f"labels must be among those that the model knows, {known}, got {wrong}.")
    return found.astype(np.int32)


def numbered(named: Shaped[np.ndarray, " n"], classes: dict[str, int], where: str) -> Int[np.ndarray, " n"]:
    """The labels of classes given by name.

    Raises:
        UsageError: there is no such class; `where` is what knows them.
    """
    names, places = np.unique(named, return_inverse=True)
    if strange := sorted(set(names.tolist()) - set(classes)):
        raise UsageError(
            f"{where} knows no class {strange[0][:60]!r}.\n"
            f"Give the label as one that it knows: {shortened(', '.join(classes), 200)}."
        )
    return np.array([classes[name] for name in names.tolist()], np.int32)[places]


def one_hot(
    labels: Any, number: Any, classes: tuple[int, ...], *, unknown: bool = False
) -> Float[Array, "batch classes"]:
    """1 at the class of each image, checked as by `check_labels`; zeros where it is not known."""
    known = jnp.asarray(classes, jnp.int32)
    given: Any = check_labels(labels, number, classes, unknown=unknown)
    return (jnp.asarray(given)[:, None] == known[None, :]).astype(jnp.float32)


def numbers_of(classes: tuple[int, ...]) -> int:
    """How many numbers of a class stand beside a latent, or beside the part of it at each place of a map."""
    return min(len(classes), MOST_NUMBERS)


def init(key: Key[Array, ""], classes: tuple[int, ...], image_shape: tuple[int, int, int]) -> Parameters:
    """A picture [height, width] and some numbers for each class."""
    return {
        "pictures": 0.1 * jax.random.normal(key, (len(classes), *image_shape[:2])),
        "numbers": jax.random.normal(jax.random.fold_in(key, 1), (len(classes), numbers_of(classes))),
    }


def beside_image(
    params: Parameters, chosen: Float[Array, "batch classes"], x: Float[Array, "batch height width channels"]
) -> Float[Array, "batch height width channels+1"]:
    """Images with the picture of their class as the last channel."""
    pictures = params["pictures"]
    own = _picked(chosen, pictures.reshape(len(pictures), -1)).reshape(-1, *pictures.shape[1:], 1)
    return jnp.concatenate([x, own.astype(x.dtype)], axis=-1)


def beside_latent(
    params: Parameters, chosen: Float[Array, "batch classes"], z: Float[Array, "batch latent"], places: int
) -> Float[Array, "batch wider"]:
    """Latents with the numbers of their class, at each place of a latent map."""
    own, number = _picked(chosen, params["numbers"]), z.shape[0]
    z = z.reshape(number, places, -1)
    own = jnp.broadcast_to(own[:, None], (number, places, own.shape[-1]))
    return jnp.concatenate([z, own.astype(z.dtype)], axis=-1).reshape(number, -1)


def _picked(chosen: Float[Array, "batch classes"], table: Float[Array, "classes n"]) -> Float[Array, "batch n"]:
    # A product in place of table[labels]: its gradient is a product, too, and the same at every run on a GPU.
    return jnp.dot(chosen, table, precision="highest")
