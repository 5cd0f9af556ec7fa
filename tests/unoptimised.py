"""How small programs are compiled quickly: unoptimised, with XLA's older code generator while it has that.

XLA aborts on an option that it does not know, so this one is set only for the versions seen to accept it.
"""

import jax

OPTIONS = {"xla_cpu_use_fusion_emitters": False} if jax.__version_info__ < (0, 11) else {}
"""Beside JAX's own `jax_disable_most_optimizations`: two thirds of the time to compile."""
XLA_FLAGS = " ".join(
    ["--xla_backend_optimization_level=0", *(f"--{name}={str(value).lower()}" for name, value in OPTIONS.items())]
)
"""For a process of its own."""
