"""Tables in Markdown, and what stands in them of several seeds."""

import statistics
from collections.abc import Sequence

from scipy.special import stdtrit


def interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and half the width of its 95% interval by Student's t; None for a single value."""
    mean, number = statistics.fmean(values), len(values)
    if number == 1:
        return mean, None
    return mean, float(stdtrit(number - 1, 0.975)) * statistics.stdev(values) / number**0.5


def with_half(mean: float, half: float | None, digits: int) -> str:
    """A mean with half the width of its interval, where there is one, both with so many digits after the point."""
    return f"{mean:,.{digits}f}" + ("" if half is None else f" ± {half:,.{digits}f}")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns are aligned, so that it is readable on a screen too; numbers to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    right = [i > 0 for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True))
        return f"| {' | '.join(padded)} |"

    rule = "|".join("-" * (w + 1) + (":" if r else "-") for w, r in zip(widths, right, strict=True))
    return "\n".join([line(header), f"|{rule}|", *map(line, rows)])
