"""XLA settings that have to be in place before the backend starts. Imports no JAX."""

import hashlib
import os
import platform
from importlib.metadata import version
from pathlib import Path

from vae_jax.files import cache_folder

# XLA's CPU compiler miscompiles a constant cotangent followed by multiply and reduce through YNNPACK's
# reduce fusion (jax#39103 gives wrong values, jax#39257 and jax#40412 crash). The reductions alone are taken out, as
# convolutions train faster with YNNPACK's matrix products. XLA aborts the process on a flag it does not know, so it
# is set only for versions seen to accept it; tests/test_xla.py holds the canaries.
_GUARD = "--xla_cpu_experimental_ynn_fusion_type"
_FIRST, _AFTER_LAST = (0, 10, 2), (0, 13)


def guard_against_miscompilation() -> None:
    """Append the guard to the user's `XLA_FLAGS`; an own setting of the same flag is left alone."""
    jaxlib = tuple(int(part) for part in version("jaxlib").split(".")[:3] if part.isdigit())
    flags = os.environ.get("XLA_FLAGS", "")
    if _FIRST <= jaxlib < _AFTER_LAST and _GUARD not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {_GUARD}=-reduce".strip()


def enable_compilation_cache() -> None:
    """Keep compiled programs in the user's cache directory, one folder for each jaxlib and processor."""
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache_folder("xla") / f"{version('jaxlib')}-{_processor()}"))
    # JAX's own default keeps only what took longer than a second; a run's many small programs add up to more.
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def _processor() -> str:
    # A program compiled for one processor may not run on another, so the folder's name tells them apart.
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        described = {line for line in cpuinfo.splitlines() if line.startswith(("model name", "flags", "Features"))}
    except OSError:
        described = {platform.processor(), platform.machine()}
    return hashlib.sha256("\n".join(sorted(described)).encode()).hexdigest()[:12]
