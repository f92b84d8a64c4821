"""Record of whether a request may have reached a service: if not, it is not billed.

A connection is opened before the first byte is sent. Until then, a failure, the deadline or a cancelled caller costs
nothing: name resolution, connecting, TLS, a proxy's refusal, and the wait for a free connection. Later the request may
have been read, even if the service closes the connection at once.
"""

from __future__ import annotations

import contextvars
from dataclasses import dataclass


@dataclass(slots=True)
class Delivery:
    """Record of the requests of one attempt, or of one of them."""

    #: Whether the provider records its connections. A third-party provider does not.
    is_recorded: bool = False
    #: Whether a request had a connection.
    had_connection: bool = False
    #: Service that the request waits for before it is sent, such as that of a token; empty if there is none.
    awaited: str = ""

    @property
    def may_have_begun(self) -> bool:
        """Whether a byte may have been sent."""
        return self.had_connection or not self.is_recorded


_of_request: contextvars.ContextVar[Delivery | None] = contextvars.ContextVar("embedway_request", default=None)
_of_attempt: contextvars.ContextVar[Delivery | None] = contextvars.ContextVar("embedway_delivery", default=None)


def record_attempt() -> Delivery:
    """Return the record of the attempt that begins in this context."""
    delivery = Delivery()
    _of_attempt.set(delivery)
    return delivery


def forget_attempt() -> None:
    """Forget the record of an earlier attempt in this context, whose service may have been awaited."""
    if _of_attempt.get() is not None:
        _of_attempt.set(None)


def of_attempt() -> Delivery:
    """Return the record of the attempt of this context."""
    return _of_attempt.get() or Delivery()


def record_request() -> Delivery:
    """Return the record of the request that begins in this context, and record it in its attempt."""
    attempt = _of_attempt.get()
    if attempt is not None:
        attempt.is_recorded = True
    delivery = Delivery(is_recorded=True)
    _of_request.set(delivery)
    return delivery


def record_connection() -> None:
    """Record that the request of this context has a connection."""
    for delivery in (_of_request.get(), _of_attempt.get()):
        if delivery is not None:
            delivery.had_connection = True
