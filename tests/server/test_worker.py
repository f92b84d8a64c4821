"""The server of a worker: its settings."""

from embedway.config import Config
from embedway.server.worker import make_server


def test_times_are_rounded_up_to_seconds():
    settings = Config.load([], overrides={"server.idle_timeout_s": 0.5, "server.drain_s": 1.2}).server
    config = make_server(None, settings).config
    assert (config.timeout_keep_alive, config.timeout_graceful_shutdown) == (1, 2)


def test_connections_have_the_limits_of_the_settings():
    limits = {"server.read_timeout_s": 3.0, "server.write_timeout_s": 4.0, "server.max_connections": 5}
    protocol = make_server(None, Config.load([], overrides=limits).server).config.http
    assert (protocol.read_timeout_s, protocol.write_timeout_s, protocol.max_connections) == (3, 4, 5)
