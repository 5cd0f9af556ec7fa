"""What can go wrong by the user's hand, in one or two lines that name the remedy."""


class UsageError(ValueError):
    """A setting or an input outside its domain: nothing was written. The command line exits with code 2."""


class RunError(RuntimeError):
    """A failure while running: what was finished stays on disk. The command line exits with code 1."""
