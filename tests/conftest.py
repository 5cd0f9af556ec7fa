"""Shapes and types of public functions are checked at run time in the tests; silent promotions raise."""

import collections
import functools
import gc
import os
import shutil
import tempfile

import jaxtyping

# Not `data` and `cli`, which meet the user's values: their own checks are tested as they are.
TYPED = [f"vae_jax.{room}" for room in ("models", "training", "runs", "measures", "codecs", "plots")]
os.environ["VAE_JAX_CACHE_DIR"] = "off"  # of pictures: the user's own is no place for those of tests
hook = jaxtyping.install_import_hook(TYPED, "beartype.beartype")

import jax  # noqa: E402
import optax  # noqa: E402
import pytest  # noqa: E402
import unoptimised  # noqa: E402
from jax._src import compiler  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

import vae_jax  # noqa: E402  (before JAX's backend starts, so that the XLA guard is set)

jax.config.update("jax_numpy_rank_promotion", "raise")
# Many tests train the same small networks: what one of the run's processes has compiled the others take over.
RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID") or str(os.getpid())
jax.config.update("jax_compilation_cache_dir", os.path.join(tempfile.gettempdir(), f"vae_jax-tests-{RUN}"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
jax.config.update("jax_disable_most_optimizations", True)  # see pytest_runtest_protocol


# JAX has no public way to give options to the programs of some tests only; those marked `optimised` are what users get.
get_compile_options = compiler.get_compile_options
compiled = []
MOST_PROGRAMS = 600  # some 2 GB


@functools.wraps(get_compile_options)
def quick_to_compile(*args, **kwargs):
    compiled.append(1)
    options = get_compile_options(*args, **kwargs)
    if jax.config.read("jax_disable_most_optimizations"):
        options.env_option_overrides = [*options.env_option_overrides, *unoptimised.OPTIONS.items()]
    return options


compiler.get_compile_options = quick_to_compile


@functools.wraps(Figure.savefig)
def save_coarsely(*args, **options):
    """Figures are looked at as they are drawn, so files of a third of the pixels a side are enough."""
    return save_coarsely.__wrapped__(*args, **options | {"dpi": 50})


Figure.savefig = save_coarsely


OPTIMISED = jax.make_user_context(default_value=False)  # programs of one kind don't serve the other


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    """XLA optimises only where a test is about what it makes of a formula, or long: compiling is most of the suite."""
    optimised = not is_quick(item)
    jax.config.update("jax_disable_most_optimizations", not optimised)
    with OPTIMISED(optimised):
        result = yield
    if len(compiled) > MOST_PROGRAMS and (nextitem is None or nextitem.path != item.path):
        jax.clear_caches()
        compiled.clear()
    return result


def is_quick(item):
    return not (item.config.getoption("optimised") or any(map(item.get_closest_marker, ("slow", "optimised"))))


def pytest_addoption(parser):
    parser.addoption("--optimised", action="store_true", help="compile the programs of all tests as for users")


def pytest_collection_finish():
    """What is imported stays: it need not be looked through for garbage each time."""
    gc.freeze()


def pytest_collection_modifyitems(items):
    """Files of few tests first, which are long ones: so the processes end together."""
    numbers = collections.Counter(item.path for item in items)
    items.sort(key=lambda item: (numbers[item.path], item.path))


@pytest.fixture(autouse=True)
def strict_promotion():
    """No implicit promotion of types."""
    with jax.numpy_dtype_promotion("strict"):
        yield


def with_standard_promotion(chain):
    """Optax's own arithmetic apart: its Adam multiplies integers and floats."""

    @functools.wraps(chain)
    def made(*parts):
        optimizer = chain(*parts)

        def update(*arguments, **keywords):
            with jax.numpy_dtype_promotion("standard"):
                return optimizer.update(*arguments, **keywords)

        return optimizer._replace(update=update)

    return made


optax.chain = with_standard_promotion(optax.chain)


@pytest.fixture(scope="session")
def digits():
    return vae_jax.load_dataset("digits")


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with api.sync_playwright() as driver:
        try:
            browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except api.Error:
            pytest.skip("needs Chromium")
        yield browser
        browser.close()


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


@pytest.fixture
def missing():
    """A list that grows by one with each program that is not in the compilation cache, however small."""
    events, least = [], jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)

    def listen(event, **_):
        if event == "/jax/compilation_cache/cache_misses":
            events.append(event)

    jax.monitoring.register_event_listener(listen)
    yield events
    jax.monitoring.clear_event_listeners()
    jax.config.update("jax_persistent_cache_min_compile_time_secs", least)


def pytest_unconfigure(config):
    """Remove the compiled programs, once all processes are done with them."""
    if not hasattr(config, "workerinput"):
        shutil.rmtree(jax.config.jax_compilation_cache_dir, ignore_errors=True)
