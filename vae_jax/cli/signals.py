"""SIGINT and SIGTERM while a command trains: the first one saves and ends the run, the second ends it at once."""

import os
import signal
import threading
from types import FrameType
from typing import Any

from vae_jax.errors import Interrupted

HANDLED = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """Handlers for as long as it is entered, in the main thread only; anywhere else it does nothing.

    Where something has to be saved first (`saving`), a signal only sets `received`, for training to ask between
    two parts of an epoch. Elsewhere it raises `Interrupted`. What it raises in a callback of the garbage collector is
    lost, but `received` stays, and `end` raises it. From then on the system's own handlers are back: the second
    signal ends the process at once. Python runs a handler only between two of its own instructions, so that both
    wait while XLA compiles if they come within one compilation.
    """

    def __init__(self) -> None:
        self.received = 0
        """Number of the signal that came, 0: none."""
        self.saving = False
        self._old: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            self._old = {number: signal.signal(number, self._handle) for number in HANDLED}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        self.received = number
        for each in HANDLED:
            signal.signal(each, signal.SIG_DFL)
        if not self.saving:
            raise Interrupted(f"Stopped by {signal.Signals(number).name}.", number)
        # Not by print, which may be what was interrupted.
        os.write(2, f"\n{signal.Signals(number).name}: stopping. Once more to stop at once.\n".encode())

    def end(self) -> None:
        """Nothing is left to be saved: from now on a signal raises, also one that came before.

        Raises:
            Interrupted: there was one.
        """
        self.saving = False
        if self.received:
            raise Interrupted(f"Stopped by {signal.Signals(self.received).name}.", self.received)
