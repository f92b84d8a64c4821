"""The server of a worker: its settings."""

from embedway.config import Config
from embedway.server.worker import make_server


def test_times_are_rounded_up_to_seconds():
    settings = Config.load([], overrides={"server.idle_timeout_s": 0.5, "server.drain_s": 1.2}).server
    config = make_server(None, settings).config
    assert (config.timeout_keep_alive, config.timeout_graceful_shutdown) == (1, 2)
