"""Ids of requests in logs and spans."""

from __future__ import annotations

import os
from contextvars import ContextVar

from embedway.forks import at_fork

#: Ids of the operations of the requests that the current task works for; several in a batch of several callers.
current_requests: ContextVar[tuple[int, ...]] = ContextVar("embedway_requests", default=())


def _new_prefix() -> str:
    return os.urandom(6).hex()


class _Process:
    """Random prefix of the request ids of this process."""

    prefix = _new_prefix()


def _after_fork() -> None:
    _Process.prefix = _new_prefix()


at_fork(after_in_child=_after_fork)


def request_id(operation: int) -> str:
    """Return the unique id of a request from the id of its operation, which is unique only in this process."""
    return f"{_Process.prefix}-{operation:x}"
