"""SIGINT and SIGTERM while a command trains: the first one saves and ends the run, the second ends it at once."""

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

from vae_jax.errors import Interrupted

HANDLED = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """Handlers for as long as it is entered, in the main thread only; anywhere else it does nothing.

    Where something has to be saved first (`saving`), a signal only sets `received`, for training to ask between
    two parts of an epoch. Elsewhere it raises `Interrupted`. Python runs a handler only between two of its own
    instructions, so a thread of its own sees to the second signal, which may come in the middle of a compilation.
    What it raises in a callback of the garbage collector is lost, but `received` stays, and `end` raises it.
    """

    def __init__(self) -> None:
        self.received = 0
        """Number of the signal that came, 0: none."""
        self.saving = False
        self._old: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is not threading.main_thread():
            return self
        read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._old_wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._old = {number: signal.signal(number, self._handle) for number in HANDLED}
        self._watcher = threading.Thread(target=_leave_on_the_second, args=(read,), daemon=True)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._old:
            return
        for number, handler in self._old.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_wakeup)
        os.close(self._write)
        self._watcher.join()

    def _handle(self, number: int, _: FrameType | None) -> None:
        if not self.received:
            self.received = number
            if not self.saving:
                raise Interrupted(f"Stopped by {signal.Signals(number).name}.", number)

    def end(self) -> None:
        """Nothing is left to be saved: from now on a signal raises, also one that came before.

        Raises:
            Interrupted: there was one.
        """
        self.saving = False
        if self.received:
            raise Interrupted(f"Stopped by {signal.Signals(self.received).name}.", self.received)


def _leave_on_the_second(read: int) -> None:
    numbers = []
    with os.fdopen(read, "rb", buffering=0) as pipe:
        while byte := pipe.read(1):
            if byte[0] in HANDLED:
                numbers.append(byte[0])
            if len(numbers) == 2:
                os._exit(128 + numbers[1])
            if len(numbers) == 1:
                name = signal.Signals(numbers[0]).name
                print(f"\n{name}: stopping. Once more to stop at once.", file=sys.stderr, flush=True)
