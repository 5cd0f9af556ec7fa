"""Published data sets by their names: where their files lie, and what reads them. Imports no JAX."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from vae_jax.data import catalogue, formats
from vae_jax.data.idx import IDX_FILES, MNIST_FAMILY, read_idx_files
from vae_jax.data.raw import Raw, Reading
from vae_jax.errors import UsageError


class Published(NamedTuple):
    """A data set that TFDS's catalogue knows."""

    files: tuple[str, ...]
    """Those that are read, of the files that the catalogue names."""
    read: Callable[[dict[str, Path], Reading], Raw]
    """Makes images of these files, by name."""
    endings: tuple[str, ...] = ("",)
    """What may follow the name of a file."""
    as_prepared: bool = True
    """Whether what TFDS prepares of them are the same images."""


_IDX = Published(IDX_FILES, lambda files, _: read_idx_files(files), (".gz", ""))
PUBLISHED = dict.fromkeys(MNIST_FAMILY, _IDX)
"""The data sets by name."""
PUBLISHED |= {
    "cifar10": Published((formats.CIFAR,), formats.read_cifar),
    "svhn_cropped": Published(formats.SVHN, formats.read_svhn),
    "binarized_mnist": Published(formats.AMAT, formats.read_amat),
    "omniglot": Published(formats.OMNIGLOT, formats.read_omniglot, as_prepared=False),
}


def read_published(name: str, reading: Reading) -> Raw:
    """Read a data set: from the user's folder, the cache, what TFDS has prepared, or the network.

    Raises:
        UsageError: a file is missing or broken.
        DownloadError: it is nowhere here, and can't be downloaded.
    """
    known = PUBLISHED[name]
    folder = reading.data_dir or os.environ.get("VAE_JAX_DATA_DIR")
    if folder and (files := find_files(name, Path(folder).expanduser())):
        return known.read(files, reading)
    cache = catalogue.data_dir() / "downloads" / "vae_jax" / name
    # An incomplete cache is no error: the download replaces what is there.
    if len(_files_in(cache, known)) < len(known.files):
        if known.as_prepared and catalogue.is_prepared(name):
            return catalogue.read_prepared(name)
        try:
            remote = catalogue.remote_files(name)
            catalogue.download([file for file in remote if file.name.removesuffix(".gz") in _names(known)], cache)
        except catalogue.DownloadError as error:
            gz = " (.gz or not)" if ".gz" in known.endings else ""
            raise catalogue.DownloadError(
                f"{name} could not be downloaded: {error}.\nTo have it, put {', '.join(known.files)}{gz} into DIR and "
                "give --data-dir DIR or set VAE_JAX_DATA_DIR=DIR."
            ) from error
    return known.read(_files_in(cache, known), reading)


def find_files(name: str, data_dir: Path) -> dict[str, Path]:
    """The files of a data set in `data_dir`/`name` or else in `data_dir`, by name; empty where there is none.

    Raises:
        UsageError: some are there and others are missing.
    """
    known = PUBLISHED[name]
    for folder in (data_dir / name, data_dir):
        files = _files_in(folder, known)
        missing = [file for file in known.files if file not in files]
        if files and missing:
            gz = " (or .gz)" if ".gz" in known.endings else ""
            raise UsageError(
                f"{folder} lacks {', '.join(missing)}{gz}, found {', '.join(files)}.\n"
                "All these files are needed: put the missing ones there, or remove the others."
            )
        if files:
            return files
    return {}


def _names(known: Published) -> set[str]:
    return {file.removesuffix(".gz") for file in known.files}


def _files_in(folder: Path, known: Published) -> dict[str, Path]:
    paths = ((name, folder / (name + ending)) for name in known.files for ending in known.endings)
    return {name: path for name, path in paths if path.is_file()}
