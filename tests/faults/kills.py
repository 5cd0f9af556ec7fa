"""`python tests/faults/kills.py`: at least 100 kills at random moments, and what was lost by them."""

import argparse
import signal
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from driver import CONFIGURATIONS, HEADER, Tally, finish, kill_and_go_on, prepare, result  # noqa: E402


def campaign(name: str, folder: Path, kills: int, seed: int, by: signal.Signals = signal.SIGKILL) -> Tally:
    """So many kills of runs of one configuration, each of which is killed several times and then has to end well."""
    flags, straight = CONFIGURATIONS[name].split(), folder / "straight"
    folder.mkdir()
    finish(folder / "warm", flags)
    seconds = finish(straight, flags)
    expected, total = result(straight), Tally()
    number = 0
    while total.tried < kills:
        path = folder / f"run{number}"
        tally = kill_and_go_on(path, flags, seconds, min(6, kills - total.tried), seed + number, by)
        number += 1
        if not tally.tried:
            seconds *= 0.7  # the machine was busier when the straight run was timed
        total.tried += tally.tried
        total.lost += tally.lost
        for where, count in tally.phases.items():
            total.phases[where] = total.phases.get(where, 0) + count
        problem = "did not go on" if tally.lost else _compare(path, flags, expected)
        if problem:
            total.lost.append(f"{name}, seed {seed + number - 1}: {problem}; {path}")
        else:
            total.survived += tally.tried
    return total


def _compare(path: Path, flags: list[str], expected: dict[str, object]) -> str:
    try:
        if not (path / "summary.json").exists():
            finish(path, flags)
        found = result(path)
    except Exception as error:
        return str(error)
    return ", ".join(f"{part} differ" for part in expected if expected[part] != found[part])


def main() -> int:
    """Run the campaign of every configuration, two at a time, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=15, help="for each of the configurations")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="the configurations with this in their name")
    parser.add_argument("--signal", default="SIGKILL", choices=["SIGKILL", "SIGTERM", "SIGINT"])
    parser.add_argument("--folder", type=Path, default=None, help="kept; by default a temporary one")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="vae_jax-kills-"))
    folder.mkdir(parents=True, exist_ok=True)
    prepare(folder / "cache")
    by = signal.Signals[arguments.signal]
    names = [name for name in CONFIGURATIONS if arguments.only in name]
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(campaign, name, folder / f"{i}", arguments.kills, arguments.seed + 100 * i, by)
            for i, name in enumerate(names)
        ]
        print(HEADER)
        tallies = []
        for name, job in zip(names, jobs, strict=True):
            tallies.append(job.result())
            print(tallies[-1].row(name), flush=True)
    lost = [line for tally in tallies for line in tally.lost]
    print(f"{sum(t.tried for t in tallies)} kills, {sum(t.survived for t in tallies)} survived", *lost, sep="\n")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
