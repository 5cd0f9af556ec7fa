"""What the parts of a run's records must look like."""

from typing import Any

from vae_jax.data.raw import Pictures

TERMS = ("loss", "reconstruction", "kl")
_LARGEST = 1e300


def are_labels(value: Any) -> bool:
    """Whether a value is the list of labels of a conditional model."""
    is_list = isinstance(value, list) and all(type(label) is int for label in value)
    return is_list and len(set(value)) == len(value) > 1 and -(2**31) <= min(value) <= max(value) < 2**31


def are_pictures(value: Any, image_shape: list[int]) -> bool:
    """Whether a value says how pictures became images of this shape."""
    if not isinstance(value, dict) or set(value) != set(Pictures._fields):
        return False
    levels = value["levels"]
    return (
        isinstance(value["size"], list)
        and [*value["size"], value["channels"]] == image_shape
        and value["fit"] in ("crop", "pad")
        and type(value["is_scaled"]) is bool
        and (levels is None or (isinstance(levels, list) and len(levels) == 2 and {int} == set(map(type, levels))))
    )


def is_row(row: Any) -> bool:
    """Whether a value is a row of metrics."""
    return (
        has_numbers(row, "epoch", "step", "beta", "images_per_second", "seconds")
        and type(row["epoch"]) is type(row["step"]) is int
        and all(has_numbers(row.get(part), *TERMS) for part in ("train", "validation"))
    )


def has_numbers(content: Any, *names: str) -> bool:
    """Whether a value is a dict with finite numbers of these names, no integer beyond any float among them."""
    return isinstance(content, dict) and all(
        type(content.get(name)) in (int, float) and abs(content[name]) < _LARGEST for name in names
    )
