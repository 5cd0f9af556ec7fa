"""Shapes and types of public functions are checked at run time in the tests; silent promotions raise."""

import jaxtyping

hook = jaxtyping.install_import_hook("vae_jax", "beartype.beartype")

import jax  # noqa: E402

import vae_jax  # noqa: E402, F401  (first, so that the XLA guard is set before the backend starts)

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
