"""What can go wrong by the user's hand, in one or two lines that name the remedy."""

import signal


class UsageError(ValueError):
    """A setting or an input outside its domain: nothing was written. The command line exits with code 2."""


class RunError(RuntimeError):
    """A failure while running: what was finished stays on disk. The command line exits with code 1."""


class Interrupted(KeyboardInterrupt):
    """The end by a signal, after what there was has been saved. The command line exits with 128 + `number`."""

    def __init__(self, message: str, number: int = signal.SIGINT):
        super().__init__(message)
        self.number = number


def counted(number: int, noun: str) -> str:
    """Such as "1 image", "1,295 images" or "2 classes", for messages."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}"
