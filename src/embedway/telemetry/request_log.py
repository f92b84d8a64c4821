"""Hook that logs each call as one JSON line to the logger `embedway.requests`."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from embedway.telemetry.json_log import FIELDS, json_line, timestamp
from embedway.telemetry.labels import outcome_of
from embedway.telemetry.operations import RequestDetails
from embedway.telemetry.request_ids import request_id
from embedway.telemetry.request_tracker import requested_model
from embedway.telemetry.route_facts import OTHER, provider_of
from embedway.telemetry.settings_hook import SettingsHook

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedway.telemetry.operations import Operation, Outcome
    from embedway.telemetry.request_tracker import RequestAttempts

_log = logging.getLogger("embedway.requests")


class RequestLogHook(SettingsHook):
    """Hook that logs calls: names and numbers, no texts. A name of a model that is not known is `other`."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._clock = clock

    def begin(self, operation: Operation) -> None:
        """Register an operation."""
        self.tracker.begin(operation)

    def end(self, operation: Operation, outcome: Outcome) -> None:
        """Log the end of a call."""
        attempts = self.tracker.end(operation)
        if attempts is None or not _log.isEnabledFor(logging.INFO):
            return
        document = self._document(operation, outcome, attempts)
        _log.info("%s", json_line({"time": timestamp(self._clock()), **document}), extra={FIELDS: document})

    def _document(self, operation: Operation, outcome: Outcome, attempts: RequestAttempts) -> dict[str, Any]:
        details = operation.details
        assert isinstance(details, RequestDetails)  # noqa: S101  only requests have attempts
        routes = outcome.routes or tuple(attempts.routes)
        cost = outcome.cost_nanousd
        return {
            "request_id": request_id(operation.id),
            "task": details.task,
            "input_type": details.input_type,
            "model": outcome.model or attempts.model or requested_model(details, None, self.models) or OTHER,
            "providers": list(dict.fromkeys(provider_of(route, self.routes) for route in routes)),
            "routes": list(routes),
            "texts": details.texts,
            "tokens": outcome.tokens,
            "billed_tokens": outcome.billed_tokens,
            "cost_usd": None if cost is None else cost / 1e9,
            "cache_hits": outcome.cache_hits,
            "attempts": attempts.attempts if outcome.attempts is None else outcome.attempts,
            "truncated": outcome.truncations,
            "failures": outcome.failures,
            "duration_ms": round(outcome.duration_s * 1000, 3),
            "outcome": outcome_of(outcome.error, partial=bool(outcome.failures)),
            "error": outcome.error,
        }
