"""`python tests/faults/soak.py --seconds 400`: thousands of short epochs with saving; does anything grow?"""

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
from vae_jax.data import load_dataset  # noqa: E402
from vae_jax.errors import Interrupted  # noqa: E402
from vae_jax.models import build_model  # noqa: E402
from vae_jax.recording import train_run  # noqa: E402


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


def main() -> None:
    """Soak and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=400)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory(prefix="vae_jax-soak-") as folder:
        number, means = soak(Path(folder) / "run", seconds)
    print(f"{number} epochs, each with 2 checkpoints, in {seconds:.0f} s; means of the first and the last quarter:")
    for name, (first, last) in means.items():
        print(f"  {name:12s} {first:10.2f} {last:10.2f}  {last - first:+.2f} ({(last / first - 1) * 100:+.1f}%)")


if __name__ == "__main__":
    main()
