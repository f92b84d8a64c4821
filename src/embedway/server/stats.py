"""Counts and times of a worker's requests, for the metrics, the page and the log. They contain no texts and no keys."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from embedway.telemetry.json_log import FIELDS, timestamp
from embedway.telemetry.metrics import counted, lock, observed, process_metrics
from embedway.telemetry.names import (
    GATEWAY_REFUSED,
    GATEWAY_REQUESTS,
    GATEWAY_RUNNING,
    GATEWAY_SECONDS,
    GATEWAY_STARTS,
    GATEWAY_WAITING,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedway.server.endpoint import Endpoint, Exchange

_access = logging.getLogger("embedway.access")

#: Facts in a line of text, besides path, status and time; a line of JSON has all.
_SHOWN = ("code", "key", "tenant", "model", "texts", "tokens", "hits", "request_id")

#: Seconds of a period of the history, and number of periods.
PERIOD_S, PERIODS = 5, 120
#: A request that takes longer is remembered as slow, in seconds.
_SLOW_S = 1.0
#: Slow and failed requests that are remembered.
_REMEMBERED = 50
#: Times are counted in classes that grow by this factor from the first bound, in seconds.
_FIRST_BOUND_S, _GROWTH, _CLASSES = 0.0001, 1.25, 64
#: Statuses from which a request is remembered as failed.
_FAILED = 400
#: Statuses of refusals, which are counted by code.
_REFUSALS = frozenset({401, 403, 413, 429, 503})


def _time_class(seconds: float) -> int:
    """Return the class of a time: the number of bounds below it."""
    if seconds <= _FIRST_BOUND_S:
        return 0
    return min(_CLASSES - 1, math.ceil(math.log(seconds / _FIRST_BOUND_S, _GROWTH)))


def upper_bound_s(number: int) -> float:
    """Return the greatest time of a class, in seconds."""
    return _FIRST_BOUND_S * float(_GROWTH**number)


@dataclass(slots=True)
class Period:
    """Counts of some seconds. `times` counts requests by class of their time."""

    start: int
    requests: int = 0
    failed: int = 0
    texts: int = 0
    hits: int = 0
    times: list[int] = field(default_factory=lambda: [0] * _CLASSES)


@dataclass(slots=True)
class ModelCounts:
    """Counts of a model since the start of the worker. Hits are unique texts; costs are in nano-dollars."""

    requests: int = 0
    texts: int = 0
    tokens: int = 0
    hits: int = 0
    cost_nanousd: int = 0
    saved_nanousd: int = 0


class Stats:
    """Statistics of a worker."""

    def __init__(
        self,
        *,
        log_requests: bool = False,
        metrics: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._logs = log_requests
        self._metrics = _GatewayMetrics() if metrics else None
        self.started = clock()
        self.requests = 0
        self.failed = 0
        self.models: dict[str, ModelCounts] = {}
        self.history: deque[Period] = deque(maxlen=PERIODS)
        self.remembered: deque[dict[str, Any]] = deque(maxlen=_REMEMBERED)

    def end(self, endpoint: Endpoint | None, exchange: Exchange, status: int, seconds: float, code: str = "") -> None:
        """Count an ended request; `code` is that of its error."""
        path = "other" if endpoint is None else endpoint.path
        if self._metrics is not None:
            self._metrics.count(path, status, seconds, code)
        if endpoint is None or endpoint.access == "caller":
            self._count(exchange, status, seconds)
            if status >= _FAILED or seconds > _SLOW_S:
                self.remembered.append(self._facts(path, exchange, status, seconds, code))
        if self._logs:
            facts = self._facts(path, exchange, status, seconds, code)
            shown = ", ".join(f"{name} {facts[name]}" for name in _SHOWN if facts[name] not in {"", 0})
            _access.info("%s %d in %.1f ms, %s", path, status, seconds * 1000, shown, extra={FIELDS: facts})

    def _count(self, exchange: Exchange, status: int, seconds: float) -> None:
        now = int(self._clock()) // PERIOD_S * PERIOD_S
        if not self.history or self.history[-1].start != now:
            self.history.append(Period(now))
        period = self.history[-1]
        failed = status >= _FAILED
        self.requests += 1
        self.failed += failed
        period.requests += 1
        period.failed += failed
        period.texts += exchange.texts
        period.hits += exchange.cache_hits
        period.times[_time_class(seconds)] += 1
        if exchange.texts:  # the model answered
            counts = self.models.get(exchange.model)
            if counts is None:
                counts = self.models[exchange.model] = ModelCounts()
            counts.requests += 1
            counts.texts += exchange.texts
            counts.tokens += exchange.tokens
            counts.hits += exchange.cache_hits
            counts.cost_nanousd += exchange.cost_nanousd
            counts.saved_nanousd += exchange.saved_nanousd

    def _facts(self, path: str, exchange: Exchange, status: int, seconds: float, code: str) -> dict[str, Any]:
        return {
            "time": timestamp(self._clock()),
            "request_id": exchange.request_id,
            "path": path,
            "status": status,
            "code": code,
            "seconds": round(seconds, 6),
            "key": exchange.caller.key_name,
            "tenant": exchange.caller.tenant,
            "model": exchange.model,
            "texts": exchange.texts,
            "tokens": exchange.tokens,
            "hits": exchange.cache_hits,
        }

    def report_queue(self, *, running: int, waiting: int) -> None:
        """Report the requests that compute and wait now, and the memory of the process."""
        if self._metrics is not None:
            self._metrics.set_queue(running, waiting)


def count_start(process: str) -> None:
    """Count the start of this process of a gateway."""
    with lock:
        process_metrics().child(GATEWAY_STARTS, process).inc()


class _GatewayMetrics:
    """The gateway's metrics of this process."""

    def __init__(self) -> None:
        self._count: dict[tuple[str, int], Callable[[float], None]] = {}
        self._seconds: dict[str, Callable[[float], None]] = {}

    def count(self, path: str, status: int, seconds: float, code: str) -> None:
        with lock:
            key = path, status
            if key not in self._count:
                metrics = process_metrics()
                self._count[key] = counted(metrics.child(GATEWAY_REQUESTS, path, str(status)))
                self._seconds[path] = observed(metrics.child(GATEWAY_SECONDS, path))
            self._count[key](1)
            self._seconds[path](seconds)
            if status in _REFUSALS and code:
                process_metrics().child(GATEWAY_REFUSED, code).inc()

    def set_queue(self, running: int, waiting: int) -> None:
        with lock:
            metrics = process_metrics()
            metrics.child(GATEWAY_RUNNING).set(running)
            metrics.child(GATEWAY_WAITING).set(waiting)
            metrics.measure_memory()
