"""How orbax is kept quiet, and used by one process of several."""

import logging
import sys
from typing import Any

import jax

from vae_jax.errors import Interrupted


def quiet() -> None:
    """Let orbax log no stacks: what goes wrong is raised, and each array still being read would print one more."""
    import absl.logging

    absl.logging.set_verbosity(absl.logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    if sys.unraisablehook is not _without_known:
        global _unraisablehook
        _unraisablehook, sys.unraisablehook = sys.unraisablehook, _without_known


_unraisablehook = sys.unraisablehook


def _without_known(unraisable: Any) -> None:
    source = getattr(getattr(unraisable.object, "cr_code", None), "co_filename", "")
    late_read = "orbax" in source or str(unraisable.exc_value) == "Event loop is closed"
    # A signal may come in JAX's callback of the garbage collector, where nothing can be raised; training asks for it.
    if not late_read and not isinstance(unraisable.exc_value, Interrupted):
        _unraisablehook(unraisable)


def alone(ocp: Any) -> Any:
    """Options of a checkpointer in this process that waits for no other."""
    own = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process{own}"
    )
