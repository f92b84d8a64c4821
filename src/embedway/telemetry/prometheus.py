"""Hook that reports all operations to Prometheus; see `names.py` for the metrics."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from embedway.telemetry import budget_metrics, names
from embedway.telemetry.exposition import exposition
from embedway.telemetry.hooks import BaseHook
from embedway.telemetry.labels import Labels, outcome_label, word_label
from embedway.telemetry.metrics import lock, process_metrics, want_metrics
from embedway.telemetry.resident import resident_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedway.telemetry.metrics import Metrics
    from embedway.telemetry.operations import Operation, Outcome

__all__ = ["PrometheusHook", "exposition"]

#: Interval between two measurements of the resident memory, in seconds.
_MEMORY_S = 1.0
#: Maximum number of kinds of calls whose metrics are remembered: models are named by callers.
_MOST_CALLS = 512
_CIRCUITS = {"closed": 0, "half-open": 1, "open": 2}


class PrometheusHook(BaseHook):
    """Hook that reports operations to the metrics of this process, which all its embedders share.

    `metrics` returns other metrics. Labels are names of models, routes and budgets, classes of errors and fixed words,
    never texts, keys, URLs or collections.
    """

    def __init__(
        self,
        labels: Labels | None = None,
        metrics: Callable[[], Metrics] = process_metrics,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.labels = Labels() if labels is None else labels
        self._find_metrics = metrics
        self.clock = clock
        #: Metrics of calls by kind of call, and the metrics to which they belong: a forked process has others.
        self.calls: dict[tuple[object, ...], CallMetrics] = {}
        self.owner: Metrics | None = None
        want_metrics()

    def begin(self, operation: Operation) -> None:
        """Count an operation that runs or waits."""
        details: Any = operation.details
        kind = details.kind
        if kind == "request":
            where: tuple[Any, ...] = names.REQUESTS_RUNNING, details.task
        elif kind == "wait":
            where = names.WAITING, details.reason, details.route
        else:
            return
        metrics = self._find_metrics()
        with lock:
            if kind == "wait":
                where = names.WAITING, details.reason, self.labels.route(details.route, metrics.limit)
            gauge = metrics.child(*where)
            gauge.inc()
            metrics.running[operation.id] = gauge

    def end(self, operation: Operation, outcome: Outcome) -> None:
        """Report an operation."""
        report = _ENDS.get(operation.details.kind)
        if report is None:
            return
        metrics = self._find_metrics()
        with lock:
            gauge = metrics.running.pop(operation.id, None)
            if gauge is not None:
                gauge.dec()
            report(self, metrics, operation.details, outcome)

    def event(self, operation: Operation) -> None:
        """Report an event."""
        report = _EVENTS.get(operation.details.kind)
        if report is None:
            return
        metrics = self._find_metrics()
        with lock:
            report(self, metrics, operation.details)


class CallMetrics:
    """Metrics of one kind of call, found once: a cache hit takes about 50 µs."""

    __slots__ = ("computed", "hits", "latency", "model", "requests", "seconds", "tokens", "usage")

    def __init__(
        self,
        labels: Labels,
        metrics: Metrics,
        *,
        task: str,
        model: str,
        error: str | None,
        partial: bool,
        is_hit: bool,
        route: str,
    ) -> None:
        child, limit = metrics.child, metrics.limit
        self.model = name = labels.model(model, limit)
        provider = labels.provider(route) if route else "cache" if is_hit else "none"
        self.requests = child(names.REQUESTS, task, name, outcome_label(error, partial=partial))
        self.seconds = child(names.REQUEST_SECONDS, task, name)
        self.hits, self.computed = child(names.TEXTS, name, "cache"), child(names.TEXTS, name, "computed")
        self.tokens = child(names.TOKENS, name, "text")
        self.latency: Any = None
        self.usage: Any = None
        if task == "embed" and error is None:
            self.latency, self.usage = child(names.LATENCY, name, provider), child(names.MODEL_USAGE, name, provider)


def measure_memory(metrics: Metrics) -> None:
    """Report the resident memory."""
    if (memory := resident_bytes()) is not None:
        metrics.child(names.MEMORY).set(memory)


def _end_request(hook: PrometheusHook, metrics: Metrics, details: Any, outcome: Outcome) -> None:
    if metrics is not hook.owner:
        hook.calls, hook.owner = {}, metrics
    hits, failures = outcome.cache_hits or 0, outcome.failures or 0
    model, routes = outcome.model or details.model, outcome.routes
    task, error, route = details.task, outcome.error, routes[0] if routes else ""
    key = task, model, error, failures > 0, hits > 0, route
    call = hook.calls.get(key)
    if call is None:
        call = CallMetrics(
            hook.labels,
            metrics,
            task=task,
            model=model,
            error=error,
            partial=failures > 0,
            is_hit=hits > 0,
            route=route,
        )
        if len(hook.calls) < _MOST_CALLS:
            hook.calls[key] = call
    call.requests.inc()
    call.seconds.observe(outcome.duration_s)
    if outcome.error is None and details.task == "embed":
        call.latency.observe(outcome.duration_s)
        if returned := details.texts - failures:
            call.usage.inc(returned)
    _count_texts(metrics, call, outcome, hits, failures)
    now = hook.clock()
    if now - metrics.memory_read_at >= _MEMORY_S:
        metrics.memory_read_at = now
        measure_memory(metrics)


def _count_texts(metrics: Metrics, call: CallMetrics, outcome: Outcome, hits: int, failures: int) -> None:
    shared = outcome.shared or 0
    if hits:
        call.hits.inc(hits)
    if shared:
        metrics.child(names.TEXTS, call.model, "shared").inc(shared)
    if failures:
        metrics.child(names.TEXTS, call.model, "failed").inc(failures)
    if outcome.error is None:
        # `failures` are rows, which may repeat a text.
        computed = (outcome.unique_texts or 0) - hits - shared - failures
        if computed > 0:
            call.computed.inc(computed)
        if outcome.tokens:
            call.tokens.inc(outcome.tokens)
    if outcome.truncations:
        metrics.child(names.TRUNCATIONS, call.model).inc(outcome.truncations)
    if outcome.saved_nanousd:
        metrics.child(names.SAVED, call.model).inc(outcome.saved_nanousd / 1e9)


def _end_batch(hook: PrometheusHook, metrics: Metrics, details: Any, outcome: Outcome) -> None:
    model = hook.labels.model(details.model, metrics.limit)
    metrics.child(names.BATCH_SIZE, model).observe(details.texts)
    if not details.backend.startswith("local:"):
        return
    metrics.child(names.INFERENCE_SECONDS, model).observe(outcome.duration_s)
    if details.padded_tokens is not None:
        metrics.child(names.BATCH_TOKENS, model, "text").inc(details.tokens)
        if padding := max(0, details.padded_tokens - details.tokens):
            metrics.child(names.BATCH_TOKENS, model, "padding").inc(padding)


def _end_attempt(hook: PrometheusHook, metrics: Metrics, details: Any, outcome: Outcome) -> None:
    model = hook.labels.model(details.model, metrics.limit)
    route = hook.labels.route(details.route, metrics.limit)
    metrics.child(names.ATTEMPTS, model, route, outcome_label(outcome.error)).inc()
    metrics.child(names.ATTEMPT_SECONDS, route).observe(outcome.duration_s)
    if details.number > 1:
        metrics.child(names.RETRIES, route).inc()
    if outcome.billed_tokens:
        metrics.child(names.TOKENS, model, "billed").inc(outcome.billed_tokens)


def _end_wait(hook: PrometheusHook, metrics: Metrics, details: Any, outcome: Outcome) -> None:
    route = hook.labels.route(details.route, metrics.limit)
    metrics.child(names.WAIT_SECONDS, details.reason, route).observe(outcome.duration_s)


def _end_cache(_hook: PrometheusHook, metrics: Metrics, details: Any, outcome: Outcome) -> None:
    if outcome.error is not None:
        counts = {"error": details.texts}
    elif details.action == "store":
        counts = {"ok": details.texts}
    else:
        hits = outcome.cache_hits or 0
        counts = {"hit": hits, "miss": details.texts - hits}
    for status, count in counts.items():
        if count:
            metrics.child(names.CACHE_OPERATIONS, details.action, status).inc(count)


def _end_load(hook: PrometheusHook, metrics: Metrics, details: Any, outcome: Outcome) -> None:
    if outcome.error is None and outcome.model is not None and hook.labels.open(outcome.model):
        hook.calls = {}  # its label was `other`
    model = hook.labels.model(outcome.model or details.model, metrics.limit)
    metrics.child(names.LOAD_SECONDS, model).observe(outcome.duration_s)


def _end_reservation(hook: PrometheusHook, metrics: Metrics, details: Any, outcome: Outcome) -> None:
    metrics.child(names.RESERVATIONS, outcome_label(outcome.error)).inc()
    if outcome.error is None and details.nanousd:
        model = hook.labels.model(details.model, metrics.limit)
        metrics.child(names.RESERVED, model).inc(details.nanousd / 1e9)


def _on_cost(hook: PrometheusHook, metrics: Metrics, details: Any) -> None:
    if details.nanousd > 0:
        model = hook.labels.model(details.model, metrics.limit)
        metrics.child(names.COST, model).inc(details.nanousd / 1e9)


def _on_circuit(hook: PrometheusHook, metrics: Metrics, details: Any) -> None:
    route = hook.labels.route(details.route, metrics.limit)
    metrics.child(names.CIRCUIT, route).set(_CIRCUITS[details.after])


def _on_failover(hook: PrometheusHook, metrics: Metrics, details: Any) -> None:
    route, following = (hook.labels.route(one, metrics.limit) for one in (details.route, details.next_route))
    metrics.child(names.FAILOVERS, hook.labels.model(details.model, metrics.limit), route, following).inc()


def _on_store_error(_hook: PrometheusHook, metrics: Metrics, details: Any) -> None:
    metrics.child(names.STORE_ERRORS, details.store, word_label(details.action)).inc()


def _on_vector_check(hook: PrometheusHook, metrics: Metrics, details: Any) -> None:
    check = word_label(details.check)
    if details.level == "refused":
        route = hook.labels.route(details.route, metrics.limit)
        metrics.child(names.VALIDATION_FAILURES, route, check).inc()
    else:
        metrics.child(names.VECTOR_WARNINGS, hook.labels.model(details.model, metrics.limit), check).inc()


def _on_drift(hook: PrometheusHook, metrics: Metrics, details: Any) -> None:
    where = hook.labels.model(details.model, metrics.limit), hook.labels.route(details.route, metrics.limit)
    result = "failed" if details.level in {"failed", "raised"} else "passed"
    metrics.child(names.DRIFT_CHECKS, *where, result).inc()
    metrics.child(names.DRIFT_CHECK_TIME, *where, result).set(time.time())
    metrics.child(names.QUARANTINED, *where).set(details.quarantined)
    if details.cosine is not None:
        metrics.child(names.CANARY_COSINE, *where).set(details.cosine)
    if details.accuracy_ratio is not None:
        metrics.child(names.ACCURACY_RATIO, *where).set(details.accuracy_ratio)


_ENDS: dict[str, Callable[[PrometheusHook, Metrics, Any, Outcome], None]] = {
    "request": _end_request,
    "batch": _end_batch,
    "attempt": _end_attempt,
    "wait": _end_wait,
    "cache": _end_cache,
    "load": _end_load,
    "reservation": _end_reservation,
}
_EVENTS: dict[str, Callable[[PrometheusHook, Metrics, Any], None]] = {
    "circuit": _on_circuit,
    "cost": _on_cost,
    "failover": _on_failover,
    "store_error": _on_store_error,
    "vector_check": _on_vector_check,
    "drift": _on_drift,
    "budget_warning": budget_metrics.on_warning,
    "budget_refusal": budget_metrics.on_refusal,
    "budget_standing": budget_metrics.on_standing,
}
