"""What TFDS's catalogue offers: prepared data sets and verified downloads. Imports no JAX and no TensorFlow.

What touches the network runs in a child process (`python -m vae_jax.data.catalogue`), which can be given up when
it takes too long: TFDS sets no time-out and joins its threads at exit.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
from tqdm import tqdm

from vae_jax.data.raw import Raw, RawSplit
from vae_jax.errors import RunError, UsageError

PROBE_SECONDS = 7.0
DOWNLOAD_SECONDS = 900.0
_RETRIES = 2


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
    return [RemoteFile(_last_part(url), url, int(info.size), info.checksum) for url, info in url_infos.items()]


def download(
    files: list[RemoteFile],
    folder: Path,
    probe_seconds: float = PROBE_SECONDS,
    download_seconds: float = DOWNLOAD_SECONDS,
) -> None:
    """Put the files into a folder: all of them, verified, or none.

    Args:
        files: as `remote_files` gives them.
        folder: made where it is missing; files of the same names are replaced.
        probe_seconds: until the server has to have answered.
        download_seconds: until all has to have come.

    Raises:
        DownloadError: it can't be reached, is too slow, gives other bytes, or the folder can't be written.
    """
    smallest = min(files, key=lambda file: file.size)
    _in_child("probe", smallest.url, [smallest], probe_seconds)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # On the same file system, so that each file appears in the folder whole or not at all.
        with tempfile.TemporaryDirectory(dir=folder, prefix="partial-") as partial:
            _in_child("fetch", partial, files, download_seconds)
            for file in files:
                os.replace(Path(partial, file.name), folder / file.name)
    except OSError as error:
        raise DownloadError(f"{folder} can't be written: {error}") from error


def probe(url: str) -> None:
    """Ask a server for a file without reading it, by the user's proxies."""
    import requests

    try:
        with requests.get(url, stream=True, timeout=PROBE_SECONDS) as response:
            response.raise_for_status()
    except requests.ConnectionError as error:
        raise DownloadError(f"{urlsplit(url).netloc} can't be reached ({type(error).__name__})") from error


def fetch(files: list[RemoteFile], folder: Path) -> None:
    """Download files through TFDS, which checks their sizes and checksums, and give them their names."""
    from tensorflow_datasets.core.download import DownloadManager, checksums, downloader
    from tensorflow_datasets.core.utils import Size

    downloader.MAX_RETRIES = _RETRIES
    url_infos = {file.url: checksums.UrlInfo(Size(file.size), file.sha256, file.name) for file in files}
    manager = DownloadManager(download_dir=folder / "tfds", url_infos=url_infos, register_checksums=False)
    paths = manager.download({file.name: file.url for file in files})
    for name, path in paths.items():
        os.replace(path, folder / name)


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


def _in_child(task: str, target: str, files: list[RemoteFile], seconds: float) -> None:
    package, search = str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")
    try:
        # On a time-out and on Ctrl-C, run() kills the child before it raises.
        child = subprocess.run(
            [sys.executable, "-m", "vae_jax.data.catalogue", task, target],
            input=json.dumps(files),
            stdout=subprocess.PIPE,
            text=True,
            timeout=seconds,
            env={**os.environ, "PYTHONPATH": f"{package}{os.pathsep}{search}" if search else package},
        )
    except subprocess.TimeoutExpired as error:
        host = urlsplit(files[0].url).netloc
        what = "no answer came" if task == "probe" else "the download did not end"
        raise DownloadError(f"{what} from {host} within {seconds:g} s") from error
    if child.returncode:
        reason = child.stdout.strip().rpartition("\n")[2]
        raise DownloadError(reason or f"the download ended with exit code {child.returncode}")


def _last_part(url: str) -> str:
    return urlsplit(url).path.rpartition("/")[2]


def _main(task: str, target: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        if task == "probe":
            probe(target)
        else:
            fetch([RemoteFile(*file) for file in json.load(sys.stdin)], Path(target))
    except Exception as error:
        reason = str(error).partition("\n")[0].rstrip(":") or type(error).__name__
        print(reason, flush=True)
        os._exit(1)  # sys.exit would wait for the other downloads' threads


if __name__ == "__main__":
    _main(*sys.argv[1:])
