"""Hook that logs each call as one JSON line to the logger `embedway.requests`."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from embedway.telemetry.hooks import BaseHook
from embedway.telemetry.json_log import FIELDS, json_line, timestamp
from embedway.telemetry.operations import RequestDetails
from embedway.telemetry.requests import RequestTracker, model_of, provider_of, request_id

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from embedway.telemetry.operations import Operation, Outcome
    from embedway.telemetry.requests import RouteFacts, Tried

_log = logging.getLogger("embedway.requests")


class RequestLogHook(BaseHook):
    """Hook that logs calls: names and numbers, no texts. `models` are names that a line may contain.

    The name of a call's model may be anything, so the line has it if it is known or the call succeeded.
    """

    def __init__(
        self,
        routes: Mapping[str, RouteFacts] | None = None,
        models: frozenset[str] = frozenset(),
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._routes = {} if routes is None else routes
        self._models = models
        self._clock = clock
        self._tracker = RequestTracker()

    def begin(self, operation: Operation) -> None:
        """Register an operation."""
        self._tracker.begin(operation)

    def end(self, operation: Operation, outcome: Outcome) -> None:
        """Log the end of a call."""
        tried = self._tracker.end(operation)
        if tried is None or not _log.isEnabledFor(logging.INFO):
            return
        document = self._document(operation, outcome, tried)
        _log.info("%s", json_line({"time": timestamp(self._clock()), **document}), extra={FIELDS: document})

    def _document(self, operation: Operation, outcome: Outcome, tried: Tried) -> dict[str, Any]:
        details = operation.details
        assert isinstance(details, RequestDetails)  # noqa: S101  only requests have attempts
        routes = outcome.routes or tuple(tried.routes)
        cost = outcome.cost_nanousd
        return {
            "request_id": request_id(operation.id),
            "task": details.task,
            "input_type": details.input_type,
            "model": outcome.model or model_of(details, outcome, self._models),
            "providers": list(dict.fromkeys(provider_of(route, self._routes) for route in routes)),
            "routes": list(routes),
            "texts": details.texts,
            "tokens": outcome.tokens,
            "billed_tokens": outcome.billed_tokens,
            "cost_usd": None if cost is None else cost / 1e9,
            "cache_hits": outcome.cache_hits,
            "attempts": tried.attempts if outcome.attempts is None else outcome.attempts,
            "truncated": outcome.truncations,
            "failures": outcome.failures,
            "duration_ms": round(outcome.duration_s * 1000, 3),
            "outcome": outcome_of(outcome),
            "error": outcome.error,
        }


def outcome_of(outcome: Outcome) -> str:
    """Return `ok`, `partial` if some texts failed, `cancelled`, or `error`."""
    if outcome.error is not None:
        return "cancelled" if outcome.error == "CancelledError" else "error"
    return "partial" if outcome.failures else "ok"
