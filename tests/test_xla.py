"""Canaries for what the guard of vae_jax turns off and for the products that it leaves; the guard; the cache."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import plot_latent
from vae_jax import _xla
from vae_jax.cli.command import main

pytestmark = pytest.mark.optimised


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


@pytest.fixture
def environment(tmp_path, monkeypatch):
    environment = {"XDG_CACHE_HOME": str(tmp_path)}
    monkeypatch.setattr(os, "environ", environment)
    return environment


def test_the_compilation_cache_is_the_users_one_for_each_jaxlib_and_processor(tmp_path, environment, monkeypatch):
    def folder():
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
        _xla.enable_compilation_cache()
        return Path(environment["JAX_COMPILATION_CACHE_DIR"])

    first = folder()
    assert first.parent == tmp_path / "vae_jax" / "xla"
    assert first.name.startswith(f"{version('jaxlib')}-")
    assert folder() == first
    monkeypatch.setattr(_xla, "version", lambda name: "0.0.1")
    older = folder()
    assert older.name == first.name.replace(version("jaxlib"), "0.0.1")
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "model name : another\nflags : few\nprocessor : 0\n")
    another = folder()
    assert another != older
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "processor : 7\nmodel name : another\nflags : few\n")
    assert folder() == another  # whichever core answers


def test_an_own_compilation_cache_is_left_alone(environment):
    environment["JAX_COMPILATION_CACHE_DIR"] = "own"
    _xla.enable_compilation_cache()
    assert environment["JAX_COMPILATION_CACHE_DIR"] == "own"


@pytest.mark.parametrize(("flags", "kept"), [([], True), (["--no-compilation-cache"], False)])
def test_commands_keep_what_they_compile_unless_told_not_to(environment, flags, kept):
    seen = []
    main(plot_latent.Config, lambda config: seen.append("JAX_COMPILATION_CACHE_DIR" in environment), ["run", *flags])
    assert seen == [kept]


def test_a_compiled_program_is_found_in_the_cache(tmp_path):
    code = (
        "from vae_jax._xla import enable_compilation_cache as e; e(); import jax; jax.jit(lambda x: x * 3 + 1)(2.0)\n"
        "print(jax.config.jax_compilation_cache_dir)"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment["XDG_CACHE_HOME"] = str(tmp_path)
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert list(Path(result.stdout.strip()).glob("jit__lambda*"))
