"""From what the user gives to a data set, or to images for a model: read by a source, checked, split."""

import os
import warnings
from pathlib import Path

import numpy as np

from vae_jax.data import catalogue
from vae_jax.data.checks import ImageShape, as_images, as_labels, natural_sorted
from vae_jax.data.dataset import Dataset, digest_of
from vae_jax.data.idx import MNIST_FAMILY
from vae_jax.data.raw import Pictures, Raw, Reading
from vae_jax.data.sources import check_effects, expanded, find_source, read_digits
from vae_jax.data.split import Split, held_out, joined
from vae_jax.domains import image_sides
from vae_jax.errors import UsageError


def load_dataset(
    name: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    in_file: bool = False,
    background: str = "white",
    skip_damaged: bool = False,
    image_size: str | int | None = None,
    fit: str = "crop",
    stratify: bool = True,
) -> Dataset:
    """Load a data set, check it and split it.

    A split that the source has not is held out of its training images: for test a fifth, for validation the last
    tenth, or the last 5,000 of at least 50,000.

    Args:
        name: what `vae_jax.data.sources.sources_in_words` lists. None is mnist, and digits with a warning where
            mnist can't be downloaded.
        data_dir: where the files of a data set lie that is given by its name, itself or a subfolder of that name;
            by default the environment variable `VAE_JAX_DATA_DIR`.
        in_file: leave large images where they are, in an .npy or uncompressed .npz file of unsigned bytes, as
            `vae_jax.data.stored.StoredImages`; enough to train, to evaluate and to encode. Otherwise they are read.
            Those of pictures are in the user's cache directory, or in that which `VAE_JAX_CACHE_DIR` names.
        background: what stands behind transparent pictures, "white" or "black".
        skip_damaged: leave out pictures that can't be read, with a warning, rather than refuse the folder.
        image_size: pixels of the images that pictures become, N or "HxW"; None is the size that all of them have, or
            64x64 with a warning where sizes differ.
        fit: how a picture of another shape gets that size: "crop" scales it so that the short side fits, and crops it
            from the middle; "pad" scales it so that the long side fits, and pads it.
        stratify: where a class of at least five images would be missing from a split that is held out, hold out of
            each class by itself.

    Raises:
        UsageError: there is no such data set, or it can't be trained on.
        DownloadError: it is named, is not here and can't be downloaded.
    """
    for what, folder in (("--data-dir", data_dir), ("VAE_JAX_DATA_DIR", os.environ.get("VAE_JAX_DATA_DIR"))):
        if folder and not Path(folder).expanduser().is_dir():
            raise UsageError(f"{what} must be a folder that exists, got {str(folder)!r}.")
    size = None if image_size is None else str(image_size)
    if size is not None and image_sides(size) is None:
        raise UsageError(f"--image-size must be N or HxW (height x width), such as 64 or 48x64, got {size[:60]!r}.")
    _check_one_of("background", background, "white", "black")
    _check_one_of("fit", fit, "crop", "pad")
    reading = Reading(Path(data_dir) if data_dir else None, background, skip_damaged, size, fit)
    if not isinstance(name, str | os.PathLike | None):
        raise UsageError(f"--dataset must be a name or a path, got {str(name)[:60]}. An array goes into a Split.")
    given = "mnist" if name is None else os.fspath(name)
    source = find_source(given)
    check_effects(source, given, reading)
    try:
        raw = source.read(given, reading)
    except catalogue.DownloadError as error:
        if name is not None:
            raise
        warnings.warn(f"NOT MNIST: using scikit-learn's embedded 8x8 digits instead, because {error}", stacklevel=2)
        given, raw = "digits", read_digits()
    path = expanded(given)
    title = path.resolve().name if path.is_dir() else path.stem
    return _checked(title if source.is_path else given, raw, in_file, stratify)


def read_images(
    path: str | os.PathLike[str],
    image_shape: ImageShape,
    *,
    pictures: Pictures | None = None,
    background: str = "white",
    skip_damaged: bool = False,
) -> tuple[Split, tuple[str, ...] | None]:
    """Read images for a model, with their labels and files where there are any; splits one after another.

    Gives also the names of the classes, where they have names: their labels are numbered by what is read, which need
    not hold the classes that the model was trained on.

    Pictures that are stored grey become colour for a model of colour images, and the other way where they are grey.

    Args:
        path: of what `load_dataset` takes as a path.
        image_shape: height, width and channels that the model was trained on.
        pictures: how pictures became the images that it was trained on, as its run has it: those given are made images
            in the same way. Without it they must have that size, and 8 bits a channel.
        background: as in `load_dataset`; that of the model's run, so it may be without effect.
        skip_damaged: as in `load_dataset`.

    Raises:
        UsageError: they can't be read, or have another shape.
    """
    given = os.fspath(path)
    source = find_source(given, paths_only=True)
    check_effects(source, given, Reading(skip_damaged=skip_damaged))
    _check_one_of("background", background, "white", "black")
    height, width, channels = image_shape
    before = pictures or Pictures((height, width), "none", channels)
    raw = source.read(given, Reading(None, background, skip_damaged, before=before))
    splits, class_names = _as_splits(raw, image_shape, in_file=False)
    return joined(list(splits.values())), class_names


def _check_one_of(name: str, value: str, *allowed: str) -> None:
    if value not in allowed:
        raise UsageError(f"--{name} must be {' or '.join(allowed)}, got {value!r}.")


def _as_splits(
    raw: Raw, image_shape: ImageShape | None, in_file: bool
) -> tuple[dict[str, Split], tuple[str, ...] | None]:
    # The splits that there are, checked, and the names of the classes.
    images, labels, class_names = {}, {}, raw.class_names
    for part in ("train", "test", "validation"):
        if (found := getattr(raw, part)) is not None:
            prefix = "" if part == "train" else f"{part}_"
            checked = as_images(found.images, image_shape=image_shape, what=f"{prefix}images of {raw.source}")
            image_shape = checked.shape[1:]  # type: ignore[assignment]
            images[part] = checked if in_file else np.asarray(checked)
            labels[part] = as_labels(found.labels, len(checked), f"{prefix}labels of {raw.source}")
    words = {part: array.tolist() for part, array in labels.items() if array is not None and array.dtype.kind == "U"}
    if words:  # one number for a word in all splits
        if len(words) < sum(array is not None for array in labels.values()):
            raise UsageError(f"labels of {raw.source} must be words in all splits or in none, got both.")
        class_names = tuple(natural_sorted(set().union(*words.values())))
        places = {name: index for index, name in enumerate(class_names)}
        labels |= {part: np.array([places[name] for name in names], np.int32) for part, names in words.items()}
    found = {part: getattr(raw, part) for part in images}
    return {part: Split(images[part], labels[part], of.files, of.factors) for part, of in found.items()}, class_names


def _checked(name: str, raw: Raw, in_file: bool, stratify: bool) -> Dataset:
    given, class_names = _as_splits(raw, None, in_file)
    digest = raw.sha256 or digest_of(given.values())  # as they lie there: a file is read from its beginning to its end
    if raw.remember:
        raw.remember(digest)
    fewest = 2 + ("test" not in given) + ("validation" not in given)  # two to train on
    if len(given["train"]) < fewest:
        raise UsageError(
            f"{raw.source} must hold at least {fewest} images to split, got {len(given['train'])}. Add some."
        )
    splits = held_out(given, in_order=name in MNIST_FAMILY, stratify=stratify)
    return Dataset(
        *(name, splits["train"], splits["validation"], splits["test"], raw.source, digest),
        class_names=class_names,
        pictures=raw.pictures,
        factor_names=raw.factor_names,
    )
