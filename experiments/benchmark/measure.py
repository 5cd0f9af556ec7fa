"""Repetitions that alternate between contestants, so that a busy moment of the machine meets all of them."""

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.contestants.job import Job
from experiments.contestants.worker import Worker

PATIENCE = 1200.0  # seconds for one answer; torch.compile's first step takes minutes on a busy machine
PAUSE = 0.05  # seconds between repetitions, in which the threads of the last one go to sleep
TOLERANCE = 0.15  # of a contestant's last loss from the median of all

Entries = Mapping[str, tuple[str, Job]]
"""By key, the name of the contestant and its job."""
Measured = dict[str, Any]
"""What is known of one entry: "version", "device", by action the list of its seconds; or "missing" or "failed"."""


def measure(entries: Entries, actions: Sequence[str], repetitions: int, logs: Path) -> dict[str, Measured]:
    """Each action of each entry so many times, in turn, after a first one that is not counted.

    Roofs take part as entries whose action is always "rates".
    """
    if not entries:
        return {}
    workers = {key: Worker(name, logs, job) for key, (name, job) in entries.items()}
    found: dict[str, Measured] = {key: {} for key in entries}
    try:
        for key, (_, job) in entries.items():
            _take(found[key], workers[key].ask("prepare", PATIENCE, job=job.to_json()), None)
        for repetition in range(-1, repetitions):
            for key in order(list(entries), repetition + 1):
                for action in ("rates",) if entries[key][0].startswith("roof") else actions:
                    if not unavailable(found[key]):
                        time.sleep(PAUSE)
                        _take(found[key], workers[key].ask(action, PATIENCE), action, counted=repetition >= 0)
        for key, worker in workers.items():
            if not unavailable(found[key]):
                _take(found[key], worker.ask("memory", PATIENCE), None)
    finally:
        for worker in workers.values():
            worker.close()
    return found


def order(keys: Sequence[str], number: int) -> list[str]:
    """Who comes when in the round of this number: several begin in turn, and nobody always follows the same one."""
    start = number % len(keys)
    turned = [*keys[start:], *keys[:start]]
    return turned[::-1] if number % 2 else turned


def _take(found: Measured, answer: dict[str, Any], action: str | None, counted: bool = True) -> None:
    if "loss" in answer:
        found.setdefault("losses", []).append(answer.pop("loss"))  # the first one's too: it shows that the loss falls
    if action is None or unavailable(answer):
        found.update(answer)
    elif counted:
        found.setdefault(action, []).append(answer["rates" if action == "rates" else "seconds"])


def unavailable(found: Measured) -> str | None:
    """Why there is no number, None where there is one."""
    if "missing" in found:
        return f"not installed ({found['missing']})"
    return f"failed ({found['failed']})" if "failed" in found else None


def images_per_second(found: Measured, job: Job, action: str = "train") -> float | None:
    """Median over the repetitions, of all the models together; None where there is no number."""
    seconds = found.get(action)
    return None if unavailable(found) or not seconds else job.images * job.members / statistics.median(seconds)


def roof(found: Mapping[str, Measured]) -> float | None:
    """The largest rate of a square float32 matrix product: by size the median over the repetitions, in FLOP/s."""
    medians = [
        statistics.median(rates[size] for rates in each["rates"])
        for each in found.values()
        if "rates" in each and not unavailable(each)
        for size in each["rates"][0]
    ]
    return max(medians) if medians else None


def check_losses(found: Mapping[str, Measured]) -> dict[str, str]:
    """What is wrong with the losses of those that trained, by key: that they did not fall, or lie apart from the rest.

    All have done the same number of steps, so one that does less work than it should shows here.
    """
    losses = {key: each["losses"] for key, each in found.items() if each.get("losses") and not unavailable(each)}
    wrong = {}
    middle = statistics.median(each[-1] for each in losses.values()) if losses else 0.0
    for key, each in losses.items():
        if not each[-1] < each[0]:
            wrong[key] = f"the loss did not fall: {each[0]:.1f} to {each[-1]:.1f}"
        elif abs(each[-1] - middle) > TOLERANCE * middle:
            wrong[key] = f"a last loss of {each[-1]:.1f}, the median of all is {middle:.1f}"
    return wrong
