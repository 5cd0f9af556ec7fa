"""What makes the training images unfair, and what each group of the test images then has."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from experiments.debiasing import Config
from experiments.markdown import interval, markdown_table, with_half
from vae_jax.config import sampling_name
from vae_jax.data.dataset import Dataset
from vae_jax.data.split import Split
from vae_jax.errors import UsageError, counted
from vae_jax.measures.dimensionality import probed
from vae_jax.registry import SAMPLINGS
from vae_jax.runs.run import Run

SAMPLINGS_TRIED = {"uniform": "each image once", "balanced": "class weights", "rare": "rare latents"}
FOURTHS = ("least ink", "second fourth", "third fourth", "most ink")
MEASURES = {
    "squared error": "Squared error of the reconstruction (squared intensity, less is better)",
    "probe": "Accuracy of a linear probe fitted on the unfair training images by the same weights",
    "fair probe": "Accuracy of a linear probe fitted on the fair validation images",
}


@dataclasses.dataclass(frozen=True)
class Groups:
    """Groups of images, and which of them is thinned."""

    names: tuple[str, ...]
    limits: tuple[float, ...] | None
    """Of the ink between the fourths; None: the groups are the classes."""
    labels: tuple[int, ...]
    thinned: int

    @classmethod
    def of(cls, by: str, dataset: Dataset, thinned: int) -> "Groups":
        """The groups of a data set.

        Raises:
            UsageError: it has no labels, or no such class.
        """
        if dataset.train.labels is None:
            raise UsageError(f"The study needs labels, which the images of {dataset.name} have not.\nGive others.")
        labels = tuple(np.unique(dataset.train.labels).tolist())
        if by == "ink":
            limits = np.quantile(_ink(dataset.train), (0.25, 0.5, 0.75))
            return cls(FOURTHS, tuple(limits.tolist()), labels, len(FOURTHS) - 1)
        if thinned not in labels:
            raise UsageError(f"--thinned must be a label of {dataset.name}, {labels}, got {thinned}.")
        return cls(tuple(map(dataset.name_of, labels)), None, labels, labels.index(thinned))

    def places(self, split: Split) -> Int[np.ndarray, " n"]:
        """The group of each image."""
        if self.limits is None:
            assert split.labels is not None
            return np.searchsorted(self.labels, split.labels)
        return np.searchsorted(self.limits, _ink(split), side="right")

    def unfair(self, dataset: Dataset, kept: float) -> Dataset:
        """The same, of whose training images so small a share of the thinned group is kept, at least one."""
        places = self.places(dataset.train)
        own = np.flatnonzero(places == self.thinned)
        few = np.random.default_rng(0).permutation(own)[: max(1, round(kept * len(own)))]
        chosen = np.sort(np.concatenate([np.flatnonzero(places != self.thinned), few]))
        return dataclasses.replace(dataset, train=dataset.train.rows(chosen), sha256="")


def _ink(split: Split) -> Float[np.ndarray, " n"]:
    return np.asarray(split.images).mean(axis=(1, 2, 3), dtype=np.float64)


def measure(run: Run, dataset: Dataset, groups: Groups) -> dict[str, list[float]]:
    """By name of `MEASURES`, what each group of the test images has; `dataset` is the unfair one."""
    train, held, test = dataset.train, dataset.validation, dataset.test
    codes = [run.encode(split.images).means for split in (train, held, test)]
    rebuilt = run.decode(codes[2])
    errors = ((rebuilt - test.images / np.float32(255)) ** 2).sum(axis=(1, 2, 3))
    sampling = SAMPLINGS.make(sampling_name(run.config), run.config)
    weights = np.ones(len(train))
    if sampling.weighs:
        weights = sampling.weights(run.model, run.params, train, run.inputs, run.evaluation_key)
    own = probed(codes[0], train.labels, codes[2], weights / weights.mean()) == test.labels
    fair = probed(codes[1], held.labels, codes[2]) == test.labels
    places = [groups.places(test) == group for group in range(len(groups.names))]
    each = {"squared error": errors, "probe": own, "fair probe": fair}
    return {name: [float(values[chosen].mean()) for chosen in places] for name, values in each.items()}


def worst(name: str, values: Sequence[float]) -> float:
    """Of the groups, the value of the worst."""
    return max(values) if name == "squared error" else min(values)


def summarised(found: Mapping[str, list[dict[str, list[float]]]], groups: Groups) -> dict[str, Any]:
    """Mean and half interval over the seeds of each sampling: of all groups, the thinned and the worst one."""
    parts = {
        "mean of the groups": lambda name, values: float(np.mean(values)),
        "thinned group": lambda name, values: values[groups.thinned],
        "worst group": worst,
    }
    return {
        measured: {
            sampling: {part: interval([of(measured, one[measured]) for one in every]) for part, of in parts.items()}
            for sampling, every in found.items()
        }
        for measured in MEASURES
    }


def verdict(numbers: dict[str, dict[str, tuple[float, float | None]]], name: str) -> str:
    """Whether rare latents more often is better for the worst group than each image once, outside the intervals."""
    (rare, wide), (plain, narrow) = (numbers[sampling]["worst group"] for sampling in ("rare", "uniform"))
    gain = plain - rare if name == "squared error" else rare - plain
    if wide is None or narrow is None:
        return "one seed: no interval"
    if abs(gain) <= wide + narrow:
        return "no difference outside the intervals"
    return "better outside the intervals" if gain > 0 else "worse outside the intervals"


def section(by: str, groups: Groups, dataset: Dataset, numbers: dict[str, Any]) -> str:
    """The part of report.md for one kind of groups."""

    def cell(name: str, mean: float, half: float | None) -> str:
        return with_half(mean, half, 2 if name == "squared error" else 3)

    left = int((groups.places(dataset.train) == groups.thinned).sum())
    text = (
        f"## By {by}: {counted(left, 'image')} of {groups.names[groups.thinned]!r} left among {len(dataset.train):,}\n"
    )
    for name, title in MEASURES.items():
        of = numbers[name]
        parts = [*next(iter(of.values()))]
        rows = [[SAMPLINGS_TRIED[s], *(cell(name, *of[s][part]) for part in parts)] for s in of]
        text += f"\n{title}:\n\n{markdown_table(['drawn', *parts], rows)}\n"
        text += f"\nThe worst group with rare latents more often, against each image once: {verdict(of, name)}.\n"
    return text


def report(config: Config, name: str, sections: Sequence[str]) -> str:
    """report.md."""
    return f"""# Unfair training images: {name}

{counted(config.seeds, "seed")} each; means with 95% intervals; every number is of fair test images. Class weights know
the classes, rare latents are found without labels.

{chr(10).join(sections)}"""
