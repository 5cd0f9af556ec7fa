"""How small programs are compiled quickly: unoptimised, in one piece, with XLA's older code generator where it has it.

XLA aborts on an option that it does not know, so these are set only for the versions seen to accept them.
"""

import jax

KNOWN = jax.__version_info__ < (0, 11)
IN_ONE_PIECE = {"xla_cpu_parallel_codegen_split_count": 1} if KNOWN else {}
"""Not in up to 32 modules, which LLVM compiles in threads: half of the time, and the tests keep all cores busy."""
OPTIONS = IN_ONE_PIECE | ({"xla_cpu_use_fusion_emitters": False} if KNOWN else {})
"""Beside JAX's own `jax_disable_most_optimizations`: two thirds of the time to compile."""
XLA_FLAGS = " ".join(
    ["--xla_backend_optimization_level=0", *(f"--{name}={str(value).lower()}" for name, value in OPTIONS.items())]
)
"""For a process of its own."""
