"""The way back from a run to its data set, wherever that lies now."""

import dataclasses
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.config import READING, Settings
from vae_jax.data.dataset import Dataset, digest_of
from vae_jax.data.idx import MNIST_FAMILY
from vae_jax.data.loading import load_dataset
from vae_jax.data.published import PUBLISHED
from vae_jax.data.raw import Pictures
from vae_jax.data.sources import find_source
from vae_jax.data.split import joined
from vae_jax.errors import RunError, UsageError


class MissingDataError(UsageError):
    """Nothing lies where the data set of a run was looked for."""


def find_dataset(
    settings: Settings, record: dict[str, Any], data_dir: Path | None = None, *, in_file: bool = False
) -> Dataset:
    """The data set that a run was trained on: the first one with the recorded sha256 where it may lie.

    Args:
        settings: of the run.
        record: what its config.json says of the data set.
        data_dir: where to look in place of where the run found it: the .npz or .npy file or the folder of images
            itself, the folder that holds it under its old name, or that of the IDX files.
        in_file: as in `load_dataset`.

    Raises:
        MissingDataError: nothing is there.
        UsageError: what is there is other data, or can't be read.
    """
    if data_dir is not None and not data_dir.exists():
        raise UsageError(f"--data-dir must be a file or folder that exists, got {str(data_dir)!r}.")
    moved, folder = data_dir not in (None, settings.data_dir), data_dir or settings.data_dir
    options: dict[str, Any] = {name: getattr(settings, name) for name in READING}
    then = pictures_of(record)
    if then and then.is_scaled:  # whatever size the settings leave to the pictures
        options |= {"image_size": "x".join(map(str, then.size)), "fit": then.fit}
    options["data_dir"] = folder if folder and folder.is_dir() else None
    problems, missing = [], True
    for name in _candidates(settings.dataset or record["name"], folder, moved):
        try:
            with warnings.catch_warnings(record=True) as caught:  # of what is not taken nothing is said
                warnings.simplefilter("always")
                uses = find_source(name).uses
                acting: Any = {field: value for field, value in options.items() if field in uses}
                dataset = load_dataset(name, in_file=in_file, stratify=record.get("stratified", True), **acting)
        except (UsageError, RunError) as error:
            missing = missing and not (name == settings.dataset and os.path.exists(name))
            reason = str(error).partition("\n")[0][:150].rstrip(".")
            is_gone = os.path.isabs(name) and not os.path.exists(name)
            problems.append(f"{name} does not exist" if is_gone else f"{name}: {reason}")
            continue
        # The MNIST family keeps its order, other data is shuffled: under another name the splits were others.
        alike = (dataset.name in MNIST_FAMILY) == (record["name"] in MNIST_FAMILY)
        if alike and (found := as_recorded(dataset, record["sha256"])):
            for warning in caught:
                warnings.warn(warning.message, stacklevel=2)
            how = then or found.pictures
            return dataclasses.replace(found, name=record["name"], sha256=record["sha256"], pictures=how)
        missing = False
        problems.append(f"{dataset.name} ({dataset.source}) is other data")
    raise (MissingDataError if missing else UsageError)(
        f"The data set {record['name']} of the run was not found: {'; '.join(problems)}\n"
        "Give the file or folder that holds the same data by --data-dir."
    )


def pictures_of(record: dict[str, Any]) -> Pictures | None:
    """How pictures became the images of a run, by its record of the data set; None where it does not say."""
    return Pictures.of(record["pictures"]) if record.get("pictures") else None


def _candidates(name: str, folder: Path | None, moved: bool) -> list[str]:
    # What to give to `load_dataset`, in turn; where the folder was given, no file or folder elsewhere.
    if folder is None or name in MNIST_FAMILY:
        return [name]
    beside = folder / Path(name).name
    left_out = moved and os.path.exists(name) and find_source(name).is_path
    return (
        [str(beside)] * (beside.exists() and name not in PUBLISHED)
        + [name] * (not left_out)
        + [str(folder)] * folder.exists()
    )


def as_recorded(dataset: Dataset, sha256: str) -> Dataset | None:
    """The data set as a run knows it that recorded this digest, None where it is other data.

    That of arrays given from Python is of their splits. Earlier versions hashed the splits in another way, and the
    first ones did not shuffle what they trained and validated on.
    """
    splits = dataset.splits.values()
    if sha256 in (dataset.sha256, digest_of(splits, chained=False), digest_of(splits)):
        return dataset
    if dataset.name in MNIST_FAMILY:
        return None
    both = joined([dataset.train, dataset.validation])
    both = both.rows(np.argsort(np.random.default_rng(0).permutation(len(both))))
    last = len(dataset.validation)
    train, validation = both.rows(slice(None, -last)), both.rows(slice(-last, None))
    former = dataclasses.replace(dataset, train=train, validation=validation)
    return former if sha256 == digest_of(former.splits.values(), chained=False) else None
