"""Canaries for what the guard of vae_jax turns off and for the products that it leaves, and the guard itself."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest


def test_constant_cotangent_then_multiply_and_reduce_is_right_under_jit():
    def f(h, w, c):
        return jnp.sum((h @ jnp.broadcast_to(c, w.shape)) * (h @ w), -1)

    keys = jax.random.split(jax.random.key(0), 2)
    h, w = jax.random.normal(keys[0], (64, 32)), jax.random.normal(keys[1], (32, 16))
    expected = (np.asarray(h) @ np.full(w.shape, 0.5) * (np.asarray(h) @ np.asarray(w))).sum(-1)
    np.testing.assert_allclose(jax.jit(f)(h, w, jnp.float32(0.5)), expected, rtol=2e-4, atol=2e-3)


def test_the_last_row_of_a_mapped_reduction_is_right():
    m = jax.random.normal(jax.random.key(0), (3, 4))
    rows = jax.random.normal(jax.random.key(1), (32_769, 4))
    ours = jax.jit(jax.vmap(lambda r: jnp.sum((m @ r) ** 2)))(rows)
    expected = ((np.asarray(rows, np.float64) @ np.asarray(m, np.float64).T) ** 2).sum(-1)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("contracted", [((1,), (0,)), ((0,), (0,)), ((1,), (1,)), ((0,), (1,))])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (9, 12_545, 32), (288, 64, 1_031), (65, 3, 17)])
def test_matrix_products_of_all_layouts_are_right(sizes, contracted):
    m, k, n = sizes
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(m, k)).astype(np.float32), rng.normal(size=(k, n)).astype(np.float32)
    expected = left.astype(np.float64) @ right
    (a,), (b,) = contracted
    ours = jax.jit(lambda x, y: jax.lax.dot_general(x, y, (contracted, ((), ()))))(
        left if a else left.T, right.T if b else right
    )
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5 * k**0.5)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("", "--xla_cpu_experimental_ynn_fusion_type=-reduce"),
        ("--xla_dump_to=x", "--xla_dump_to=x --xla_cpu_experimental_ynn_fusion_type=-reduce"),
        ("--xla_cpu_experimental_ynn_fusion_type=", "--xla_cpu_experimental_ynn_fusion_type="),
    ],
)
def test_guard_appends_to_the_users_flags_and_imports_no_jax(flags, expected):
    code = "import vae_jax, os, sys; assert 'jax' not in sys.modules; print(os.environ['XLA_FLAGS'])"
    environment = {**os.environ, "XLA_FLAGS": flags}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == expected
