"""Shapes and types of public functions are checked at run time in the tests; silent promotions raise."""

import os
import shutil
import tempfile

import jaxtyping

# Not config: its own checks meet the user's values, and are tested as they are.
TYPED = (
    "animation applications.anomaly applications.compression applications.container "
    "applications.denoising applications.dimensionality applications.entropy_coding "
    "applications.image_codecs applications.sparsity applications.threshold checkpoints convolutions "
    "corruption data distributions evaluation fitting frozen_features gradient_estimators history latent_space many "
    "models networks objectives parallel plots plots_anomaly plots_compare plots_compression plots_denoising "
    "plots_dimensionality plots_gradients plots_sparsity plots_sweep plots_traversal records runs "
    "training traversal"
)
TRAINING = [
    f"test_{name}"
    for name in [
        "training",
        "anomaly",
        "compression",
        "many",
        "denoising",
        "dimensionality",
        "runs",
        "experiments",
        "processes",
        "studies",
        "readme",
        "sparsity",
    ]
]
hook = jaxtyping.install_import_hook([f"vae_jax.{name}" for name in TYPED.split()], "beartype.beartype")

import jax  # noqa: E402
import pytest  # noqa: E402

import vae_jax  # noqa: E402  (before JAX's backend starts, so that the XLA guard is set)

jax.config.update("jax_numpy_rank_promotion", "raise")
# Many tests train the same small networks: what one of the run's processes has compiled the others take over.
RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID") or str(os.getpid())
jax.config.update("jax_compilation_cache_dir", os.path.join(tempfile.gettempdir(), f"vae_jax-tests-{RUN}"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.fixture(autouse=True)
def strict_promotion(request):
    """No implicit promotion of types, but where optax runs: its Adam multiplies integers and floats."""
    uses_optax = request.module.__name__ in TRAINING
    with jax.numpy_dtype_promotion("standard" if uses_optax else "strict"):
        yield


@pytest.fixture(scope="session")
def digits():
    return vae_jax.load_dataset("digits")


@pytest.fixture
def compilations():
    """A list that grows by one with each program that XLA compiles."""
    events = []

    def listen(event, *_, **__):
        if event == "/jax/core/compile/backend_compile_duration":
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    jax.monitoring.clear_event_listeners()


def pytest_unconfigure(config):
    """Remove the compiled programs, once all processes are done with them."""
    if not hasattr(config, "workerinput"):
        shutil.rmtree(jax.config.jax_compilation_cache_dir, ignore_errors=True)
