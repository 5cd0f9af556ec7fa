"""Several processes that train one model: how they find each other, and how they end when one of them is lost.

Imports JAX only where it is needed, as a process has to be connected before JAX's backend starts.
"""

import contextlib
import ctypes
import importlib.util
import os
import signal
import sys
from collections.abc import Iterator, Mapping

from vae_jax.errors import RunError, UsageError

HEARTBEAT_SECONDS = 20
"""A process that was not heard of for so long is lost."""
CONNECT_SECONDS = 300
"""How long the processes wait for each other at the start."""
_LOST = (
    "Another of the processes ended, or can't be reached any more: this one ends, too.\n"
    "When all are gone, go on from the latest checkpoint with --resume; any number of processes will do."
)
# What errors of collectives and of the coordination service have in their text.
_SIGNS = ("gloo", "nccl", "unavailable", "coordination", "connection reset", "deadline_exceeded", "heartbeat")


def connect(coordinator: str | None, num_processes: int | None, process_id: int | None) -> bool:
    """Join the other processes, if there are any: those of the flags, or of the cluster that this one runs in.

    Args:
        coordinator: HOST:PORT at which process 0 listens.
        num_processes: of all; 1 alone: look for no cluster.
        process_id: from 0.

    Returns:
        Whether there are others.

    Raises:
        UsageError: only some of the three are given, or they don't fit.
        RunError: the others can't be reached.
    """
    given = {"--coordinator": coordinator, "--num-processes": num_processes, "--process-id": process_id}
    missing = [flag for flag, value in given.items() if value is None]
    if len(missing) == 3 and not in_cluster(os.environ):
        return False
    if num_processes == 1 and len(missing) == 2:
        return False
    if 0 < len(missing) < 3:
        raise UsageError(f"{' and '.join(missing)} must be given as well: all of {', '.join(given)} or none.")
    if not missing:
        _check(str(coordinator), num_processes or 0, process_id or 0)
    import jax

    _end_clearly_on_abort()
    try:
        jax.distributed.initialize(
            *(coordinator, num_processes, process_id),
            initialization_timeout=CONNECT_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        if len(missing) == 3 and "defined" in str(error):
            return False  # it looked like a cluster, but JAX finds none
        reason = str(error).partition("\n")[0][:200]
        raise RunError(f"The processes can't be connected: {reason}\nAre all of them started?") from error
    return jax.process_count() > 1


def _check(coordinator: str, num_processes: int, process_id: int) -> None:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"--coordinator must be HOST:PORT, got {coordinator!r}. Give the address of process 0.")
    if not 0 <= process_id < num_processes:
        raise UsageError(f"--process-id must be an integer from 0 to {num_processes - 1}, got {process_id}.")


def in_cluster(environment: Mapping[str, str]) -> bool:
    """Whether this is one of several processes that JAX's own detection connects: SLURM, Open MPI, GKE, a TPU pod."""

    def number(name: str) -> int:
        text = environment.get(name, "")
        return int(text) if text.isdigit() else 0

    # srun sets them for each task of a step; a shell within an allocation has no step.
    slurm = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID")
    if number("SLURM_NTASKS") > 1 and all(name in environment for name in slurm):
        return True
    if number("OMPI_COMM_WORLD_SIZE") > 1 and "OMPI_MCA_orte_hnp_uri" in environment:
        return True
    if "," in environment.get("TPU_WORKER_HOSTNAMES", "") or "," in environment.get("TPU_PROCESS_ADDRESSES", ""):
        return True
    if "JOB_COMPLETION_INDEX" in environment and importlib.util.find_spec("kubernetes"):
        return True
    # A TPU machine of the Compute Engine says nothing in its environment; JAX asks its metadata server.
    return "TPU_SKIP_MDS_QUERY" not in environment and importlib.util.find_spec("libtpu") is not None


def is_connected() -> bool:
    """Whether this is one of several processes."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Whether this is the process that prints and writes: the only one, or number 0."""
    return not is_connected() or sys.modules["jax"].process_index() == 0


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """Turn the errors that tell of a lost process into one clear error.

    Raises:
        RunError: another process ended.
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:
        # Also the RunError of a checkpoint that could not be saved without the others, but not of a disk or download.
        cause = error.__cause__ if isinstance(error, RunError) else error
        told = any(sign in str(cause).lower() for sign in _SIGNS)
        if not is_connected() or isinstance(error, UsageError) or isinstance(cause, OSError) or not told:
            raise
        raise RunError(_LOST) from error


def wait_for_others() -> None:
    """Wait until all processes are here, so that none ends while another still works."""
    if is_connected():
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices("vae_jax")


def text_of_first(text: str) -> str:
    """The text that process 0 has; each process has to ask."""
    if not is_connected():
        return text
    import numpy as np
    from jax.experimental import multihost_utils

    line = np.frombuffer(text.encode().ljust(4096, b"\0"), np.uint8)
    return bytes(np.asarray(multihost_utils.broadcast_one_to_all(line))).rstrip(b"\0").decode()


def leave(code: int) -> None:
    """End this process at once, also where nobody reads what it prints any more.

    One of several that failed must not wait for the others, which end when it is gone.
    """
    try:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # whoever read it is gone
                stream.flush()
    finally:
        os._exit(code)


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _on_abort(_: int) -> None:
    os.write(2, f"{_LOST}\n".encode())
    os._exit(1)


def _end_clearly_on_abort() -> None:
    # Where process 0 is lost, or one that said nothing, JAX's runtime aborts in a thread of its own, beyond Python's
    # signal handlers, which wait for the interpreter: so the handler is the C library's.
    ctypes.CDLL(None).signal(int(signal.SIGABRT), _on_abort)
