"""Sockets of a gateway: one for each worker on the same address, so that the kernel spreads the connections."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

from embedway.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_BACKLOG = 2_048


def listen(
    host: str, port: int, count: int, remedy: str = "choose another --port or --host"
) -> tuple[socket.socket, ...]:
    """Return `count` listening sockets on one address, or one if the kernel does not spread connections.

    Raises UsageError if the address cannot be used; its message ends with `remedy`.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        shares = count > 1 and sys.platform == "linux"
        # Without SO_REUSEPORT: two servers of one user would otherwise share the port, unnoticed.
        first = _bound(family, address, shares=False)
        if not shares:
            first.listen(_BACKLOG)
            return (first,)
        address = first.getsockname()
        first.close()
        sockets = tuple(_bound(family, address, shares=True) for _ in range(count))
        for one in sockets:
            one.listen(_BACKLOG)
    except OSError as error:
        raise UsageError(f"cannot listen on {host} port {port}: {error.strerror or error}; {remedy}") from None
    return sockets


def listen_at(path: Path) -> socket.socket:
    """Return a listening Unix socket. Raises UsageError if its path is too long."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.bind(str(path))
    except OSError as error:
        made.close()
        raise UsageError(f"cannot listen on {path}: {error}; set server.run_directory to a shorter path") from None
    made.listen(_BACKLOG)
    return made


def _bound(family: int, address: Sequence[object], *, shares: bool) -> socket.socket:
    # The protocol is named because asyncio sets TCP_NODELAY only then: answers would wait for acknowledgements, 40 ms.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shares:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind(tuple(address))
    except BaseException:
        made.close()
        raise
    return made
