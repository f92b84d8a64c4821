"""Hook that reports all operations to Prometheus; see `names.py` for the metrics."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from embedway.telemetry import budget_metrics, names
from embedway.telemetry.exposition import exposition
from embedway.telemetry.hooks import BaseHook
from embedway.telemetry.labels import Labels, outcome_label, word_label
from embedway.telemetry.metrics import lock, process_metrics, want_metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedway.telemetry.metrics import Metrics
    from embedway.telemetry.operations import Operation, Outcome

__all__ = ["PrometheusHook", "exposition"]

#: Interval between two measurements of the resident memory, in seconds.
_MEMORY_S = 1.0
#: Maximum number of kinds of calls whose metrics are remembered: models are named by callers.
_MOST_CALLS = 512
#: Kinds of operations that are counted while they run.
_BEGINS = frozenset({"request", "wait"})
#: Outcomes of requests to services whose series begin with the first request of a route.
_ATTEMPT_OUTCOMES = (
    "ok",
    "cancelled",
    "AuthenticationError",
    "BadVectorsError",
    "DeadlineError",
    "ProtocolError",
    "QuotaExceededError",
    "RateLimitedError",
    "RefusedInputError",
    "UnavailableError",
)
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
        if kind not in _BEGINS:
            return
        metrics = self._find_metrics()
        with lock:
            if kind == "request":
                add = metrics.adder(names.REQUESTS_RUNNING, details.task)
            else:
                add = metrics.adder(names.WAITING, details.reason, self.labels.route(details.route, metrics.limit))
            add(1)
            metrics.running[operation.id] = add

    def end(self, operation: Operation, outcome: Outcome) -> None:
        """Report an operation."""
        kind = operation.details.kind
        report = _ENDS.get(kind)
        if report is None:
            return
        metrics = self._find_metrics()
        with lock:
            if kind in _BEGINS and (add := metrics.running.pop(operation.id, None)) is not None:
                add(-1)
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
    """Metrics of one kind of call.

    They are found once, because looking them up for each call would cost a large part of a cache hit.
    """

    __slots__ = ("computed", "hits", "latency", "model", "requests", "saved", "seconds", "tokens", "usage")

    def __init__(
        self,
        labels: Labels,
        metrics: Metrics,
        *,
        task: str,
        model: str,
        error: str | None,
        partial: bool,
        source: str,
        route: str,
    ) -> None:
        adder, limit = metrics.adder, metrics.limit
        self.model = name = labels.model(model, limit)
        provider = labels.provider(route) if route else source
        self.requests = adder(names.REQUESTS, task, name, outcome_label(error, partial=partial))
        self.seconds = adder(names.REQUEST_SECONDS, task, name)
        self.hits = adder(names.TEXTS, name, "cache")
        self.computed = adder(names.TEXTS, name, "computed")
        self.tokens = adder(names.TOKENS, name, "text")
        self.saved = adder(names.SAVED, name)
        self.latency: Any = None
        self.usage: Any = None
        if task == "embed" and error is None:
            self.latency = adder(names.LATENCY, name, provider)
            self.usage = adder(names.MODEL_USAGE, name, provider)


def _end_request(hook: PrometheusHook, metrics: Metrics, details: Any, outcome: Outcome) -> None:
    if metrics is not hook.owner:
        hook.calls, hook.owner = {}, metrics
    hits, failures = outcome.cache_hits or 0, outcome.failures or 0
    model, routes = outcome.model or details.model, outcome.routes
    task, error, route = details.task, outcome.error, routes[0] if routes else ""
    # Without a route of its own: texts of the cache, or of a call that it joined.
    source = "cache" if hits else "shared" if outcome.shared else "none"
    key = task, model, error, failures > 0, source, route
    call = hook.calls.get(key)
    if call is None:
        call = CallMetrics(
            hook.labels,
            metrics,
            task=task,
            model=model,
            error=error,
            partial=failures > 0,
            source=source,
            route=route,
        )
        if len(hook.calls) < _MOST_CALLS:
            hook.calls[key] = call
    call.requests(1)
    call.seconds(outcome.duration_s)
    if error is None and task == "embed":
        call.latency(outcome.duration_s)
        if returned := details.texts - failures:
            call.usage(returned)
    _count_texts(metrics, call, outcome, hits, failures)
    now = hook.clock()
    if now - metrics.memory_read_at >= _MEMORY_S:
        metrics.memory_read_at = now
        metrics.measure_memory()


def _count_texts(metrics: Metrics, call: CallMetrics, outcome: Outcome, hits: int, failures: int) -> None:
    shared = outcome.shared or 0
    if hits:
        call.hits(hits)
    if shared:
        metrics.adder(names.TEXTS, call.model, "shared")(shared)
    if failures:
        metrics.adder(names.TEXTS, call.model, "failed")(failures)
    if outcome.error is None:
        # `failures` are rows, which may repeat a text.
        computed = (outcome.unique_texts or 0) - hits - shared - failures
        if computed > 0:
            call.computed(computed)
        if outcome.tokens:
            call.tokens(outcome.tokens)
    if outcome.truncations:
        metrics.adder(names.TRUNCATIONS, call.model)(outcome.truncations)
    if outcome.saved_nanousd:
        call.saved(outcome.saved_nanousd / 1e9)


def _end_batch(hook: PrometheusHook, metrics: Metrics, details: Any, outcome: Outcome) -> None:
    model = hook.labels.model(details.model, metrics.limit)
    metrics.adder(names.BATCH_SIZE, model)(details.texts)
    if not details.backend.startswith("local:"):
        return
    metrics.adder(names.INFERENCE_SECONDS, model)(outcome.duration_s)
    if details.padded_tokens is not None:
        metrics.adder(names.BATCH_TOKENS, model, "text")(details.tokens)
        if padding := max(0, details.padded_tokens - details.tokens):
            metrics.adder(names.BATCH_TOKENS, model, "padding")(padding)


def _end_attempt(hook: PrometheusHook, metrics: Metrics, details: Any, outcome: Outcome) -> None:
    model = hook.labels.model(details.model, metrics.limit)
    route = hook.labels.route(details.route, metrics.limit)
    if metrics.is_new_route(model, route):
        metrics.child(names.RETRIES, route)
        for known in _ATTEMPT_OUTCOMES:
            metrics.child(names.ATTEMPTS, model, route, known)
    metrics.adder(names.ATTEMPTS, model, route, outcome_label(outcome.error))(1)
    metrics.adder(names.ATTEMPT_SECONDS, route)(outcome.duration_s)
    if details.number > 1:
        metrics.adder(names.RETRIES, route)(1)
    if outcome.billed_tokens:
        metrics.adder(names.TOKENS, model, "billed")(outcome.billed_tokens)


def _end_wait(hook: PrometheusHook, metrics: Metrics, details: Any, outcome: Outcome) -> None:
    route = hook.labels.route(details.route, metrics.limit)
    metrics.adder(names.WAIT_SECONDS, details.reason, route)(outcome.duration_s)


def _end_cache(_hook: PrometheusHook, metrics: Metrics, details: Any, outcome: Outcome) -> None:
    if outcome.error is None and details.action == "lookup" and outcome.cache_hits == details.texts:
        metrics.count_lookup_hits(details.texts)
        return
    if outcome.error is not None:
        # A caller that left is no failure of the cache.
        counts = {"cancelled" if outcome.error == "CancelledError" else "error": details.texts}
    elif details.action == "store":
        counts = {"ok": details.texts}
    else:
        hits = outcome.cache_hits or 0
        counts = {"hit": hits, "miss": details.texts - hits}
    for status, count in counts.items():
        if count:
            metrics.adder(names.CACHE_OPERATIONS, details.action, status)(count)


def _end_load(hook: PrometheusHook, metrics: Metrics, details: Any, outcome: Outcome) -> None:
    if outcome.error is None and outcome.model is not None and hook.labels.open(outcome.model):
        hook.calls = {}  # its label was `other`
    model = hook.labels.model(outcome.model or details.model, metrics.limit)
    metrics.adder(names.LOAD_SECONDS, model)(outcome.duration_s)
    if outcome.error is None:
        # Series begin at 0: Prometheus does not see the increase of one that begins with an event.
        for counter in (names.COST, names.SAVED):
            metrics.child(counter, model)


def _end_reservation(hook: PrometheusHook, metrics: Metrics, details: Any, outcome: Outcome) -> None:
    metrics.adder(names.RESERVATIONS, outcome_label(outcome.error))(1)
    if outcome.error is None and details.nanousd:
        model = hook.labels.model(details.model, metrics.limit)
        metrics.adder(names.RESERVED, model)(details.nanousd / 1e9)


def _on_cost(hook: PrometheusHook, metrics: Metrics, details: Any) -> None:
    if details.nanousd > 0:
        model = hook.labels.model(details.model, metrics.limit)
        metrics.adder(names.COST, model)(details.nanousd / 1e9)


def _on_circuit(hook: PrometheusHook, metrics: Metrics, details: Any) -> None:
    route = hook.labels.route(details.route, metrics.limit)
    metrics.child(names.CIRCUIT, route).set(_CIRCUITS[details.after])


def _on_failover(hook: PrometheusHook, metrics: Metrics, details: Any) -> None:
    route, following = (hook.labels.route(one, metrics.limit) for one in (details.route, details.next_route))
    metrics.adder(names.FAILOVERS, hook.labels.model(details.model, metrics.limit), route, following)(1)


def _on_store_error(_hook: PrometheusHook, metrics: Metrics, details: Any) -> None:
    metrics.adder(names.STORE_ERRORS, details.store, word_label(details.action))(1)


def _on_vector_check(hook: PrometheusHook, metrics: Metrics, details: Any) -> None:
    check = word_label(details.check)
    if details.level == "refused":
        route = hook.labels.route(details.route, metrics.limit)
        metrics.adder(names.VALIDATION_FAILURES, route, check)(1)
    else:
        metrics.adder(names.VECTOR_WARNINGS, hook.labels.model(details.model, metrics.limit), check)(1)


def _on_drift(hook: PrometheusHook, metrics: Metrics, details: Any) -> None:
    where = hook.labels.model(details.model, metrics.limit), hook.labels.route(details.route, metrics.limit)
    if details.level == "no_baseline":
        metrics.adder(names.DRIFT_CHECKS, *where, "no_baseline")(1)
        return
    result = "failed" if details.level in {"failed", "raised"} else "passed"
    metrics.adder(names.DRIFT_CHECKS, *where, result)(1)
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
