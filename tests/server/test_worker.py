"""The servers of a worker: their settings, and who may read the port for metrics."""

import asyncio

import pytest

from embedway.config import Config
from embedway.server.worker import make_metrics_app, make_server
from gateways import gateway_at


def test_times_are_rounded_up_to_seconds():
    settings = Config.load([], overrides={"server.idle_timeout_s": 0.5, "server.drain_s": 1.2}).server
    config = make_server(None, settings).config
    assert (config.timeout_keep_alive, config.timeout_graceful_shutdown) == (1, 2)


def test_connections_have_the_limits_of_the_settings():
    limits = {"server.read_timeout_s": 3.0, "server.write_timeout_s": 4.0, "server.max_connections": 5}
    protocol = make_server(None, Config.load([], overrides=limits).server).config.http
    assert (protocol.read_timeout_s, protocol.write_timeout_s, protocol.max_connections) == (3, 4, 5)


@pytest.mark.parametrize(
    ("metrics_host", "host", "status"),
    [
        ("127.0.0.1", b"localhost:9090", 200),
        ("127.0.0.1", b"attacker.example:9090", 403),
        ("::1", b"[::1]:9090", 200),
        ("::1", b"attacker.example", 403),
        ("0.0.0.0", b"gateway-1:9090", 200),  # noqa: S104  for Prometheus on another machine
    ],
)
@pytest.mark.parametrize("auth", ["auto", "none"])
def test_a_page_that_resolves_its_name_to_this_machine_reads_no_metrics(metrics_host, host, status, auth):
    """Whatever the main port requires: the port for metrics needs no key."""

    async def main():
        sent = []

        async def send(message):
            sent.append(message)

        async with gateway_at(**{"server.metrics_host": metrics_host, "server.auth": auth}) as (_, gateway):
            scope = {
                "type": "http",
                "method": "GET",
                "path": "/metrics",
                "query_string": b"",
                "headers": [(b"host", host)],
            }
            await make_metrics_app(gateway)(scope, None, send)
            return sent[0]["status"], gateway.stats.requests

    assert asyncio.run(main()) == (status, 0)
