"""Metrics of a process: made from the table of names, and forgotten by a forked process.

prometheus-client is imported when the first metrics are made.
"""

from __future__ import annotations

import atexit
import logging
import threading
from bisect import bisect_left
from typing import TYPE_CHECKING, Any

from embedway.forks import at_fork
from embedway.telemetry.labels import NameLimit
from embedway.telemetry.memory import resident_bytes
from embedway.telemetry.multiprocess import is_multiprocess, leave
from embedway.telemetry.names import CACHE_OPERATIONS, MEMORY, METRICS, ROUTE_ALERTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import prometheus_client.metrics_core as core

    from embedway.telemetry.names import Metric

_log = logging.getLogger("embedway.hooks")
#: Held while metrics are changed, and during a fork: a copied lock of prometheus-client must be free in the child.
#: Reentrant, because a signal handler or a destructor may run inside of it.
lock = threading.RLock()


class Metrics:
    """The metrics of the table, without a registry. Used with `lock` held.

    `running` are the gauges of operations that have not ended, by operation.
    """

    def __init__(self) -> None:
        self.limit = NameLimit()
        self.running: dict[int, Any] = {}
        self.memory_read_at = float("-inf")
        self._made = {metric.name: _make(metric) for metric in METRICS}
        self._children: dict[tuple[str, ...], Any] = {}
        self._adders: dict[tuple[str, ...], Callable[[float], None]] = {}
        self._routes: set[tuple[str, str]] = set()
        self.count_lookup_hits = counted(self.child(CACHE_OPERATIONS, "lookup", "hit"))

    def child(self, metric: Metric, *labels: str) -> Any:
        """Return the metric with these values of its labels. prometheus-client's own lookup is slower."""
        key = metric.name, *labels
        child = self._children.get(key)
        if child is None:
            made = self._made[metric.name]
            child = self._children[key] = made.labels(*labels) if labels else made
        return child

    def adder(self, metric: Metric, *labels: str) -> Callable[[float], None]:
        """Return the function that adds to a counter or gauge with these labels, or a value to a histogram."""
        key = metric.name, *labels
        found = self._adders.get(key)
        if found is None:
            child = self.child(metric, *labels)
            found = self._adders[key] = observed(child) if metric.kind == "histogram" else counted(child)
        return found

    def measure_memory(self) -> None:
        """Report the resident memory."""
        if (memory := resident_bytes()) is not None:
            self.child(MEMORY).set(memory)

    def is_new_route(self, model: str, route: str) -> bool:
        """Return whether this is the first request of a model over a route, and remember it."""
        if (model, route) in self._routes:
            return False
        self._routes.add((model, route))
        return True

    def collect(self) -> Iterator[core.Metric]:
        """Return the metrics with at least one value."""
        for made in self._made.values():
            for family in made.collect():
                if family.samples:
                    yield family


def _make(metric: Metric) -> Any:
    from prometheus_client import Counter, Gauge, Histogram  # noqa: PLC0415  not without metrics

    if metric.kind == "counter":
        return Counter(metric.name, metric.help, metric.labels, registry=None)
    if metric.kind == "gauge":
        return Gauge(metric.name, metric.help, metric.labels, registry=None, multiprocess_mode=metric.multiprocess)
    return Histogram(metric.name, metric.help, metric.labels, registry=None, buckets=metric.buckets)


def counted(child: Any) -> Callable[[float], None]:
    """Return the function that adds to a counter or a gauge, with `lock` held.

    It is that of its value: prometheus-client's own one first checks that the metric has its labels.
    """
    return _added_to(getattr(child, "_value", child))


def _added_to(value: Any) -> Callable[[float], None]:
    """Return the function that adds to a value. One in memory needs no second lock."""
    from prometheus_client.values import MutexValue  # noqa: PLC0415  not without metrics

    if type(value) is not MutexValue or not hasattr(value, "_value"):
        found: Callable[[float], None] = value.inc
        return found

    def add(amount: float) -> None:
        value._value += amount  # noqa: SLF001  as in its own method

    return add


def observed(child: Any) -> Callable[[float], None]:
    """Return the function that adds a value to a histogram, as above."""
    try:
        add_sum, bounds = _added_to(child._sum), tuple(child._upper_bounds)  # noqa: SLF001  as above
        count = [_added_to(one) for one in child._buckets]  # noqa: SLF001
    except AttributeError:
        observe: Callable[[float], None] = child.observe
        return observe

    def add(value: float) -> None:
        add_sum(value)
        count[bisect_left(bounds, value)](1)

    return add


class _Collector:
    """Collector of the current metrics for the default registry, so that a fork changes no registry."""

    def collect(self) -> Iterator[core.Metric]:
        """Return the metrics of this process."""
        metrics = _Process.metrics
        return iter(()) if metrics is None else metrics.collect()

    def describe(self) -> Iterator[core.Metric]:
        """Return all metrics without values; the registry finds equal names of others."""
        from prometheus_client.metrics_core import Metric as Family  # noqa: PLC0415  as above

        for metric in METRICS:
            yield Family(metric.name, metric.help, metric.kind)


class _Process:
    """The metrics of this process, for all embedders; None before the first operation."""

    metrics: Metrics | None = None
    is_registered = False
    #: Whether an embedder of this process has wanted metrics.
    is_wanted = False


def want_metrics() -> None:
    """Record that an embedder wants metrics. They are made at the first operation."""
    _Process.is_wanted = True


def process_metrics() -> Metrics:
    """Return the metrics of this process. The first call adds them to prometheus-client's default registry."""
    metrics = _Process.metrics
    return _open() if metrics is None else metrics


def _open() -> Metrics:
    with lock:
        if _Process.metrics is None:
            _Process.metrics = Metrics()
            if not _Process.is_registered:
                _Process.is_registered = True
                if is_multiprocess():
                    atexit.register(leave)  # also in processes that are forked from this one
                _register()
        return _Process.metrics


def _register() -> None:
    from prometheus_client import REGISTRY  # noqa: PLC0415  as above

    try:
        REGISTRY.register(_Collector())
    except ValueError:
        # The metrics are still in files and at the push gateway.
        _log.warning(
            "prometheus-client's default registry has metrics of another program part with the names of embedway's "
            "metrics; embedway's are not added to it"
        )


def count_alert(kind: str, route: str) -> None:
    """Count an alert on a route, if metrics are wanted."""
    if _Process.is_wanted:
        with lock:
            metrics = process_metrics()
            metrics.child(ROUTE_ALERTS, kind, metrics.limit.admit("route", route)).inc()


def _forget() -> None:
    """Start with new metrics: the running operations and the counts are the parent's."""
    _Process.metrics = None
    lock.release()


at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=_forget)
