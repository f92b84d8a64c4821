"""Gateways for tests: the application on loopback, in a thread with its own event loop, as a worker runs it."""

import asyncio
import contextlib
import socket
import threading

import numpy as np
import pytest
import uvicorn

from embedway import Config, Embedder
from embedway._engine import Engines
from embedway.server.access import Access
from embedway.server.app import GatewayApp
from embedway.server.endpoints import ENDPOINTS
from embedway.server.gateway import Gateway
from embedway.server.served import ServedModels
from embedway.server.stats import Stats
from tiny_models import tiny_reranker

#: Models of a provider that returns vectors of 16 numbers from the text, at once. The second has OpenAI's tokenizer.
FAKE, FAKE_OF_OPENAI = "tests/fake", "tests/fake-of-openai"
_FAKE = {"dimensions": 16, "min_dimensions": 1, "max_tokens": 512, "price_usd_per_million_tokens": "1"}
_ROUTE = {"provider": "fake", "options": {"width": 16}}
FAKE_SETTINGS = {
    "models": {
        "fake": {**_FAKE, "name": FAKE, "tokenizer": "estimate"},
        "fake-of-openai": {**_FAKE, "name": FAKE_OF_OPENAI, "tokenizer": "tiktoken:cl100k_base"},
    },
    "routes": {"fake": {**_ROUTE, "model": FAKE}, "fake-of-openai": {**_ROUTE, "model": FAKE_OF_OPENAI}},
}


class RunningGateway:
    """A gateway in a thread. `url` is its address, and `app` its application."""

    def __init__(self, config, endpoints=ENDPOINTS):
        self._config = config
        self._endpoints = endpoints
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._ready = threading.Event()
        self._error = None
        self._thread = threading.Thread(target=self._run, name="gateway", daemon=True)

    def __enter__(self):
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            raise self._error
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stop)
        self._thread.join()
        self._socket.close()

    def _run(self):
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._error = error
            raise
        finally:
            self._ready.set()

    def _stop(self):
        self._server.should_exit = True

    async def _serve(self):
        config, self._loop = self._config, asyncio.get_running_loop()
        engines = Engines(config, (), None)
        engine = await engines.current()
        served = ServedModels(config, engine.selector)
        self.gateway = Gateway(config, engines, served, Stats())
        self.app = GatewayApp(self.gateway, self._endpoints, Access(config.server))
        self._server = _Server(
            uvicorn.Config(
                self.app, http="httptools", ws="none", lifespan="off", access_log=False, log_config=None, log_level=None
            ),
            self._ready,
        )
        try:
            await served.refresh()
            await self._server.serve(sockets=[self._socket])
        finally:
            await engines.aclose(drain=False)


class _Server(uvicorn.Server):
    def __init__(self, config, ready):
        super().__init__(config)
        self._ready = ready

    @contextlib.contextmanager
    def capture_signals(self):
        yield

    async def startup(self, sockets=None):
        await super().startup(sockets)
        self._ready.set()


@pytest.fixture(scope="module")
def gateway_settings(default_model_directory, tokenizer, tmp_path_factory):
    """Return settings of a gateway with the default model, a tiny reranker, and a model of a fake service."""
    folder = tmp_path_factory.mktemp("gateway")
    return {
        **FAKE_SETTINGS,
        "weights.directory": str(default_model_directory),
        "weights.offline": True,
        "tune.directory": str(folder / "tune"),
        "rerank.default_model": str(tiny_reranker(folder / "reranker", tokenizer)),
        "cache.backend": "memory",
        "ledger.backend": "none",
    }


@pytest.fixture(scope="module")
def gateway(gateway_settings):
    """Return a running gateway."""
    with RunningGateway(Config.load(environ={}, overrides=gateway_settings)) as running:
        yield running


@pytest.fixture(scope="module")
def library(gateway_settings):
    """Return an embedder with the settings of the gateway."""
    with Embedder(config=Config.load(environ={}, overrides=gateway_settings)) as embedder:
        yield embedder


def same(vectors, expected):
    """Return whether each row has a cosine of at least 0.99999 with that of the library."""
    rows = np.asarray(vectors, np.float64)
    cosines = (rows * expected).sum(axis=1) / (np.linalg.norm(rows, axis=1) * np.linalg.norm(expected, axis=1))
    return rows.shape == expected.shape and bool((cosines >= 0.99999).all())
