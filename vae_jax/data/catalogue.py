"""What TFDS's catalogue offers: prepared data sets and verified downloads. Imports no JAX and no TensorFlow."""

import contextlib
import hashlib
import os
import tempfile
import threading
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
from tqdm import tqdm

from vae_jax.data.raw import Raw, RawSplit
from vae_jax.errors import RunError, UsageError

PROBE_SECONDS = 7.0
"""Until a server has to have answered."""
DOWNLOAD_SECONDS = 900.0
"""Until all files of a data set have to have come."""
_RETRIES = 2
_BLOCK_BYTES = 2**16


class DownloadError(RunError):
    """A data set that could not be downloaded, with the reason in one line."""


class RemoteFile(NamedTuple):
    """A file of the catalogue."""

    name: str
    url: str
    size: int
    sha256: str


def data_dir() -> Path:
    """TFDS's data directory: `TFDS_DATA_DIR`, or ~/tensorflow_datasets."""
    return Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser().absolute()


def is_prepared(name: str) -> bool:
    """Whether TFDS's data directory holds the data set as array_record files; TFDS is not imported."""
    records = (data_dir() / name.partition(":")[0]).rglob("*.array_record*")
    return any(not record.parent.name.startswith("incomplete.") for record in records)


def knows(name: str) -> bool:
    """Whether TFDS has a data set of this name, prepared or not."""
    try:
        _import_tfds().builder(name, data_dir=data_dir())
    except (ValueError, AssertionError, ImportError):
        return False
    return True


def read_prepared(name: str) -> Raw:
    """Read a TFDS data set, which it `knows`, that was prepared as array_record files.

    Raises:
        UsageError: it is not prepared, or has no images of one size.
    """
    builder = _import_tfds().builder(name, data_dir=data_dir())
    if not is_prepared(name) or "train" not in builder.info.splits:
        raise UsageError(
            f'TFDS has not prepared {name} in {data_dir()}. Do it once: pip install "vae_jax[tf]" and then\n'
            'python -c "import tensorflow_datasets as tfds; '
            f"tfds.builder('{name}', file_format='array_record').download_and_prepare()\""
        )
    features = dict(builder.info.features.items())
    shape: tuple[int | None, ...] = features["image"].shape if "image" in features else ()
    if len(shape) != 3 or None in shape:
        found = ", ".join(f"{key} {feature.shape}" for key, feature in features.items())
        raise UsageError(
            f"TFDS's {name} must have a feature image of shape (height, width, channels), found {found}.\n"
            "Choose another, or write its images to an .npz file and give that to --dataset."
        )
    label = features.get("label")
    labelled = label is not None and label.shape == () and np.issubdtype(label.np_dtype, np.integer)
    train = _read_split(builder, "train", labelled)
    test = _read_split(builder, "test", labelled) if "test" in builder.info.splits else None
    names = tuple(getattr(label, "names", ())) if labelled else ()
    return Raw(f"TFDS {builder.info.full_name} in {data_dir()}", train, test=test, class_names=names or None)


def remote_files(name: str) -> list[RemoteFile]:
    """The files that TFDS downloads for a data set, with the sizes and checksums it expects."""
    url_infos = _import_tfds().builder_cls(name).url_infos
    return [
        RemoteFile(urlsplit(url).path.rpartition("/")[2], url, int(info.size), info.checksum)
        for url, info in url_infos.items()
    ]


def download(files: list[RemoteFile], folder: Path) -> None:
    """Put the files into a folder: all of them, verified, or none.

    Args:
        files: as `remote_files` gives them.
        folder: made where it is missing; files of the same names are replaced.

    Raises:
        DownloadError: it can't be reached, is too slow, gives other bytes, or the folder can't be written.
    """
    host = urlsplit(files[0].url).netloc
    answered, ended, given_up, failures = threading.Event(), threading.Event(), threading.Event(), []

    def fetch_all(partial: str) -> None:
        try:
            for file in files:
                _fetch(file, Path(partial, file.name), answered, given_up)
        except Exception as error:
            failures.append(error)
        answered.set()
        ended.set()

    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # On the same file system, so that each file appears in the folder whole or not at all.
        with tempfile.TemporaryDirectory(dir=folder, prefix="partial-", ignore_cleanup_errors=True) as partial:
            # A thread that can be given up: no time-out of requests bounds the look-up of a name, or the whole.
            threading.Thread(target=fetch_all, args=(partial,), daemon=True).start()
            if not answered.wait(PROBE_SECONDS):
                raise DownloadError(f"no answer came from {host} within {PROBE_SECONDS:g} s")
            if not ended.wait(DOWNLOAD_SECONDS):
                raise DownloadError(f"the download did not end from {host} within {DOWNLOAD_SECONDS:g} s")
            for error in failures:
                raise DownloadError(str(error).partition("\n")[0] or type(error).__name__) from error
            for file in files:
                os.replace(Path(partial, file.name), folder / file.name)
    except OSError as error:
        raise DownloadError(f"{folder} can't be written: {error}") from error
    finally:
        given_up.set()
        for path in missing:  # no empty folder is left behind
            with contextlib.suppress(OSError):
                path.rmdir()


def _fetch(file: RemoteFile, path: Path, answered: threading.Event, given_up: threading.Event) -> None:
    import requests

    retries = requests.adapters.Retry(total=_RETRIES, backoff_factor=0.2, status_forcelist=(500, 502, 503, 504))
    digest = hashlib.sha256()
    try:
        with requests.Session() as session:
            session.mount(file.url, requests.adapters.HTTPAdapter(max_retries=retries))
            with session.get(file.url, stream=True, timeout=PROBE_SECONDS) as response, path.open("wb") as opened:
                answered.set()
                response.raise_for_status()
                with tqdm(desc=file.name, total=file.size, unit="B", unit_scale=True, disable=None) as bar:
                    for block in response.iter_content(_BLOCK_BYTES):
                        if given_up.is_set():
                            return
                        digest.update(block)
                        opened.write(block)
                        bar.update(len(block))
    except requests.ConnectionError as error:
        raise DownloadError(f"{urlsplit(file.url).netloc} can't be reached ({type(error).__name__})") from error
    if digest.hexdigest() != file.sha256:
        raise DownloadError(f"{file.url} has wrong checksum")


def _import_tfds() -> Any:
    import absl.logging

    absl.logging.set_verbosity(absl.logging.ERROR)  # it warns of optional parts that are missing
    import tensorflow_datasets

    return tensorflow_datasets


def _read_split(builder: Any, split: str, labelled: bool) -> RawSplit:
    images, labels = [], []
    try:
        examples = builder.as_data_source(split)
        for index in tqdm(range(len(examples)), f"{builder.name} {split}", disable=None):
            example = examples[index]
            images.append(example["image"])
            if labelled:
                labels.append(example["label"])
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(
            f"{builder.data_dir} can't be read: {reason}\nDelete it and prepare {builder.name} again."
        ) from error
    return RawSplit(np.stack(images), np.array(labels) if labelled else None)
