"""Log lines on requests to services: retries, failovers, and changes of a circuit.

A line has numbers, names of routes and classes of errors, never a text, a key or a message of a service. Each retry is
a line of level INFO. Others are logged once for each request, so that a request with many parts writes few lines.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from embedway.text import redact

if TYPE_CHECKING:
    from embedway.dispatch.circuit_breaker import State
    from embedway.errors import EmbedwayError

_log = logging.getLogger("embedway.dispatch")


@dataclass(slots=True)
class RequestLog:
    """Log lines of one request."""

    #: Failovers and searches that were logged.
    _logged: set[tuple[str, ...]] = field(default_factory=set)

    def retry(self, route: str, texts: int, error: EmbedwayError, *, attempts: int, wait_s: float | None) -> None:
        """Log that texts are sent again to a route, after `attempts` attempts."""
        _log.info(
            "route %s: %s sent again %s, after attempt %d: %s",
            redact(route),
            _texts_are(texts),
            f"in {wait_s:.1f} s" if wait_s else "at once",
            attempts,
            kind_of(error),
        )

    def retry_alone(self, route: str, texts: int, error: EmbedwayError) -> None:
        """Log that the texts of invalid vectors in an answer are sent again, each alone."""
        _log.info("route %s: %s sent again, each alone: %s", redact(route), _texts_are(texts), kind_of(error))

    def search(self, route: str, texts: int, error: EmbedwayError) -> None:
        """Log that failed texts are sent again in parts, to find those at fault; once for a route."""
        if self._is_new("search", route):
            _log.info("route %s: %s sent again in parts: %s", redact(route), _texts_are(texts), kind_of(error))

    def failover(self, route: str, following: str, texts: int, error: EmbedwayError, *, is_sent: bool) -> None:
        """Log that texts go to another route; once for a pair of routes.

        With `is_sent`, a request to the first route failed. Otherwise its circuit is open or its limits are reached,
        which is no new failure, so the line is of level INFO.
        """
        is_new = (
            self._is_new("failed", route, following) if is_sent else ("failed", route, following) not in self._logged
        )
        if not is_new or not (is_sent or self._is_new("skipped", route, following)):
            return
        _log.log(
            logging.WARNING if is_sent else logging.INFO,
            "route %s %s (%s): %s sent to route %s",
            redact(route),
            "failed" if is_sent else "is skipped",
            kind_of(error),
            _texts_are(texts),
            redact(following),
        )

    def _is_new(self, *event: str) -> bool:
        known = len(self._logged)
        self._logged.add(event)
        return len(self._logged) > known


def log_circuit(route: str, before: State, after: State) -> None:
    """Log that a circuit opens or closes. A failed probe opens it again, which is a line of level INFO."""
    name = redact(route)
    if after == "open" and before == "closed":
        _log.warning("route %s failed several times in a row: it is skipped for a while, then probed", name)
    elif after == "open":
        _log.info("route %s failed again when it was probed, and is skipped for a while", name)
    elif after == "closed":
        _log.info("route %s answers again, and is used again", name)


def kind_of(error: EmbedwayError) -> str:
    """Return the class name of an error, and its HTTP status; no text of it."""
    status = getattr(error, "status", None)
    return f"{type(error).__name__} {status}" if isinstance(status, int) else type(error).__name__


def _texts_are(count: int) -> str:
    return "1 text is" if count == 1 else f"{count:,} texts are"
