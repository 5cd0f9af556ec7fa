"""`python tests/faults/soak.py --seconds 400`: hundreds of short epochs with saving; exit code 1 if anything grows.

Memory may grow by MOST_A_SAVE: tensorstore 0.1.86 keeps every list that it makes of JSON
(`experimental_collect_matching_metrics`, `KvStore.Spec.to_json`), and orbax asks it for some at each save.
"""

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2])]

import jax  # noqa: E402

from vae_jax.config import Settings  # noqa: E402
from vae_jax.data.loading import load_dataset  # noqa: E402
from vae_jax.errors import Interrupted  # noqa: E402
from vae_jax.models.autoencoders import build_model  # noqa: E402
from vae_jax.runs.recording import train_run  # noqa: E402

SAVES = 2
"""Checkpoints an epoch."""
MOST_A_SAVE = 0.2
"""MiB of memory."""
MOST = {"arrays": 0.0, "device MiB": 0.0, "open files": 3.0, "threads": 2.0}
"""How much more of each there may be, on average, in the last quarter than in the first."""


def sample() -> dict[str, float]:
    """What may not grow: memory in MiB, arrays on the device and their MiB, open files, threads."""
    arrays = jax.live_arrays()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "RSS MiB": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        "arrays": len(arrays),
        "device MiB": sum(array.nbytes for array in arrays) / 2**20,
        "open files": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
    }


def soak(folder: Path, seconds: float) -> tuple[int, dict[str, tuple[float, float]]]:
    """Train for so long; epochs done, and of each number its mean in the first and in the last quarter of them."""
    dataset = load_dataset("digits")
    settings = Settings(dataset="digits", hidden_sizes=(32,), batch_size=512, epochs=10**6, checkpoint_every_steps=2)
    began, samples = time.monotonic(), []

    def stop() -> int:
        return signal.SIGTERM if time.monotonic() - began > seconds else 0

    model = build_model(settings, dataset.image_shape)
    with contextlib.suppress(Interrupted):
        train_run(folder, model, settings, dataset, on_epoch=lambda *_: samples.append(sample()), stop=stop)
    quarter = len(samples) // 4
    first, last = samples[:quarter], samples[-quarter:]
    means = {name: tuple(sum(s[name] for s in part) / quarter for part in (first, last)) for name in samples[0]}
    return len(samples), means


def main() -> int:
    """Soak, print, and say whether anything grew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=400)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory(prefix="vae_jax-soak-") as folder:
        number, means = soak(Path(folder) / "run", seconds)
    saves = SAVES * number * 3 / 4  # between the middles of the two quarters
    most = MOST | {"RSS MiB": MOST_A_SAVE * saves}
    print(f"{number} epochs, each with {SAVES} checkpoints, in {seconds:.0f} s; means of first and last quarter:")
    for name, (first, last) in means.items():
        verdict = "ok" if last - first <= most[name] else "GROWS"
        print(f"  {name:12s} {first:10.2f} {last:10.2f}  {last - first:+8.2f}, at most {most[name]:+8.2f}  {verdict}")
    grown = means["RSS MiB"][1] - means["RSS MiB"][0]
    print(f"  {grown / saves:.3f} MiB of memory a save")
    return int(any(last - first > most[name] for name, (first, last) in means.items()))


if __name__ == "__main__":
    sys.exit(main())
