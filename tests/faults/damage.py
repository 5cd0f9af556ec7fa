"""Damage to every file of a checkpoint, and whether it is noticed when the run is read back."""

import random
import shutil
import warnings
from pathlib import Path

import jax
import numpy as np
from driver import Tally

from vae_jax.config import Settings
from vae_jax.errors import UsageError
from vae_jax.models.autoencoders import build_model
from vae_jax.runs.checkpoints import Checkpoints
from vae_jax.runs.records import read_dataset_record, read_settings
from vae_jax.runs.run import load_run
from vae_jax.training.recipe import Recipe


def restore(path: Path, images: int) -> list[tuple[int, list[np.ndarray], str]]:
    """Step, arrays and warnings: of the latest checkpoint as a run is loaded, and as it goes on."""
    found = []
    for way in (_load, _go_on):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step, tree = way(path, images)
        # Not what orbax leaves of a read that failed: that comes whenever garbage is collected.
        said = " ".join(str(entry.message) for entry in caught if entry.category is UserWarning)
        found.append((step, [np.asarray(leaf) for leaf in jax.tree.leaves(tree)], said))
    return found


def _load(path: Path, _: int) -> tuple[int, object]:
    run = load_run(path, "latest")
    return run.step, run.params


def _go_on(path: Path, images: int) -> tuple[int, object]:
    run = read_settings(path, Settings)
    model = build_model(run, tuple(read_dataset_record(path)["image_shape"]))
    with Checkpoints(path) as checkpoints:
        progress = checkpoints.restore_progress(checkpoints.latest_step, Recipe(model, run, images))
    return int(progress.state.step), progress[:2]


def damage(file: Path, how: str, moments: random.Random, other: Path) -> bool:
    """Damage one file: a flipped bit, a cut, nothing left of it, gone, or that of another step in its place.

    Gives back whether that made it another file.
    """
    before = file.read_bytes()
    content = bytearray(before)
    if how == "flip" and content:
        content[moments.randrange(len(content))] ^= 1 << moments.randrange(8)
        file.write_bytes(content)
    elif how == "truncate":
        file.write_bytes(content[: moments.randrange(len(content) or 1)])
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "swap" and other.exists():
        file.write_bytes(other.read_bytes())
    else:
        file.unlink()
    return not file.exists() or file.read_bytes() != before


def campaign(run: Path, scratch: Path, images: int, tries: int, seed: int, stride: int = 1) -> dict[str, Tally]:
    """Damage the files of the latest checkpoint in turn, so many times, at random places; the tally by kind.

    With a `stride` only every so-manieth of the tries of a whole campaign is made.

    Survived: no array that is restored was hit, and all are what was saved. Detected: the damage was named, and the
    checkpoint before it restored. Lost: anything else, such as other numbers, or an older checkpoint without a word.
    """
    moments, tallies = random.Random(seed), {}
    folder, latest, older = run / "checkpoints", *_expected(run, scratch, images)
    step, before = latest[0][0], older[0][0]
    files = sorted(p.relative_to(folder / str(step)) for p in (folder / str(step)).rglob("*") if p.is_file())
    for i in range(0, tries * stride, stride):
        file, how = files[i % len(files)], ["flip", "flip", "truncate", "empty", "remove", "swap"][i // len(files) % 6]
        path = scratch / "run"
        shutil.copytree(run, path)
        tally = tallies.setdefault(how, Tally())
        if damage(path / "checkpoints" / str(step) / file, how, moments, folder / str(before) / file):
            _count(tally, _outcome(path, images, latest, older), f"{how} of {file}")
        shutil.rmtree(path)
    return tallies


def _expected(run: Path, scratch: Path, images: int) -> tuple[list, list]:
    latest = restore(run, images)
    shutil.copytree(run, scratch / "older")
    shutil.rmtree(scratch / "older" / "checkpoints" / str(latest[0][0]))
    older = restore(scratch / "older", images)
    shutil.rmtree(scratch / "older")
    return latest, older


def swapped_folders(run: Path, scratch: Path, images: int) -> Tally:
    """An item of another step, and a whole other checkpoint, in the place of the latest one."""
    folder, tally, (latest, older) = run / "checkpoints", Tally(), _expected(run, scratch, images)
    step, before = latest[0][0], older[0][0]
    for item in ("params", "training", "record", "."):
        path = scratch / "swapped"
        shutil.copytree(run, path)
        target = path / "checkpoints" / str(step) / item
        shutil.rmtree(target)
        shutil.copytree(folder / str(before) / item, target)
        _count(tally, _outcome(path, images, latest, older), f"{item} swapped")
        shutil.rmtree(path)
    return tally


def _count(tally: Tally, outcome: str, what: str) -> None:
    tally.tried += 1
    tally.survived += outcome == "arrays good"
    tally.detected += outcome == "older taken"
    if outcome not in ("arrays good", "older taken"):
        tally.lost.append(f"{what}: {outcome}")


def _outcome(path: Path, images: int, latest: list, older: list) -> str:
    try:
        found = restore(path, images)
    except UsageError as error:
        return f"refused: {error}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    outcome = "arrays good"
    for (step, arrays, said), new, old in zip(found, latest, older, strict=True):
        if step == new[0] and not said:
            wanted = new[1]
        elif step == old[0] and f"checkpoint {new[0]} of" in said:
            outcome, wanted = "older taken", old[1]
        else:
            return f"step {step}, said {said!r}"
        if not all(map(np.array_equal, arrays, wanted)):
            return f"other numbers at step {step}, said {said!r}"
    return outcome
