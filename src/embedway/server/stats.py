"""Counts and times of a worker's requests, for metrics, the page and the log. No texts and no keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedway.server.endpoint import Endpoint, Exchange


class Stats:
    """Statistics of a worker."""

    def end(self, endpoint: Endpoint | None, exchange: Exchange, status: int, seconds: float) -> None:
        """Count an ended request."""
