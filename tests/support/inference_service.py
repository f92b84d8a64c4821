"""An inference service in the test's own event loop, and clients of it."""

import asyncio
import contextlib
import socket
import tempfile
from pathlib import Path

from embedway import Config
from embedway.local import loading
from embedway.local.remote import ModelSpec
from embedway.server.inference.client import InferenceClient
from embedway.server.inference.service import InferenceService
from embedway.server.inference.settings import ClientLimits, InferenceLimits
from inside import embedder_with


@contextlib.asynccontextmanager
async def serving(config, **limits):
    """Serve on a socket in a folder of its own, whose path is short; yield the service and the path."""
    with tempfile.TemporaryDirectory(prefix="ew-") as folder:
        path = Path(folder) / "s"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        listener.listen(64)
        listener.setblocking(False)
        service = InferenceService(config, InferenceLimits(**limits))
        await service.start(listener)
        try:
            yield service, path
        finally:
            await service.aclose(drain_s=30)


async def until(condition, limit_s=60):
    """Wait until a condition is true."""
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110  some conditions are states of a process
            await asyncio.sleep(0.002)


def settings_of(config, tmp_path, **more):
    """Return settings without a cache, for a worker and for the process."""
    stored = {"weights.directory": str(config.weights.directory), "tune.directory": str(tmp_path / "tune")}
    return Config.load(environ={}, overrides={**stored, "cache.backend": "none", **more})


def worker(config, path, **limits):
    """Return an embedder whose models are computed by the process behind a socket."""
    return embedder_with(lambda: InferenceClient(path, ClientLimits(**limits)), config)


def spec_of(name, config):
    """Return the specification of a local model, as a worker sends it."""
    named = loading.resolve(name)
    loaded = loading.load(named, config)
    return ModelSpec.of(named.key, loaded.recipe, loaded.choice)
