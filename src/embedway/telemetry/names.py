"""Names, labels and buckets of all metrics: the one table for code and documentation.

The first five have names without the prefix `embedway_`, for common dashboards. The values of labels are bounded
(`telemetry/labels.py`). Counters have the suffix `_total` in the exposition, which prometheus-client adds:
`embedding_cost_dollars` is exposed as `embedding_cost_dollars_total`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Buckets of the first five, in seconds and in texts.
_LATENCY = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
_BATCH = (1, 10, 50, 100, 500, 1000)
#: Buckets for short and long times, in seconds.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric: its name without `_total`, kind, help text, labels and, for a histogram, buckets.

    `multiprocess` is the mode of a gauge in prometheus-client's multiprocess mode.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    multiprocess: Literal["livesum", "livemax", "mostrecent"] = "livesum"

    @property
    def exposed(self) -> str:
        """The name in the exposition."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


def _counter(name: str, text: str, *labels: str) -> Metric:
    return Metric(name, "counter", text, labels)


def _seconds(name: str, text: str, *labels: str) -> Metric:
    return Metric(name, "histogram", text, labels, _SECONDS)


LATENCY = Metric(
    "embedding_generation_latency_seconds",
    "histogram",
    "Time of a call that returned vectors, cache hits included.",
    ("model", "provider"),
    _LATENCY,
)
BATCH_SIZE = Metric("embedding_batch_size", "histogram", "Texts of a batch that is computed.", ("model",), _BATCH)
MODEL_USAGE = _counter(
    "embedding_model_usage", "Texts whose vectors were returned, repeated texts included.", "model", "provider"
)
COST = _counter("embedding_cost_dollars", "Cost of requests to services, failed ones included, in dollars.", "model")
CACHE_OPERATIONS = _counter(
    "embedding_cache_operations", "Texts looked up in the cache and stored in it.", "operation", "status"
)

REQUESTS = _counter("embedway_requests", "Calls, by outcome.", "task", "model", "outcome")
REQUEST_SECONDS = _seconds("embedway_request_seconds", "Time of a call.", "task", "model")
REQUESTS_RUNNING = Metric("embedway_requests_running", "gauge", "Calls that have not ended.", ("task",))
TEXTS = _counter("embedway_texts", "Unique texts of calls, by source of their vectors.", "model", "source")
TOKENS = _counter(
    "embedway_tokens",
    "Tokens of the texts of successful calls, and those that services bill.",
    "model",
    "kind",
)
BATCH_TOKENS = _counter("embedway_batch_tokens", "Tokens of batches on this machine: text or padding.", "model", "kind")
TRUNCATIONS = _counter("embedway_truncated_texts", "Texts that were truncated at a model's limit.", "model")
SAVED = _counter("embedway_saved_dollars", "Cost that cache hits saved, in dollars.", "model")

WAITING = Metric(
    "embedway_waiting", "gauge", "Waits that have not ended: the depth of the queues.", ("reason", "route")
)
WAIT_SECONDS = _seconds("embedway_wait_seconds", "Time of a wait.", "reason", "route")

ATTEMPTS = _counter("embedway_attempts", "Requests to services, by outcome.", "model", "route", "outcome")
ATTEMPT_SECONDS = _seconds("embedway_attempt_seconds", "Time of a request to a service.", "route")
RETRIES = _counter("embedway_retries", "Requests to services that repeat texts.", "route")
FAILOVERS = _counter(
    "embedway_failovers", "Requests whose texts went to another route.", "model", "route", "next_route"
)
CIRCUIT = Metric(
    "embedway_circuit_state", "gauge", "Circuit of a route: 0 closed, 1 half-open, 2 open.", ("route",), (), "livemax"
)
ROUTE_ALERTS = _counter(
    "embedway_route_alerts", "Alerts on a route: error rate, circuit, refused vectors or drift.", "kind", "route"
)

VALIDATION_FAILURES = _counter(
    "embedway_validation_failures", "Checks of vectors that failed; the vectors were refused.", "route", "check"
)
VECTOR_WARNINGS = _counter("embedway_vector_warnings", "Checks of vectors that warned.", "model", "check")
CANARY_COSINE = Metric(
    "embedway_canary_cosine",
    "gauge",
    "Lowest cosine of a route's canaries to the baseline, at the last check.",
    ("model", "route"),
    (),
    "mostrecent",
)
ACCURACY_RATIO = Metric(
    "embedway_accuracy_ratio",
    "gauge",
    "Accuracy of a route divided by the baseline's, at the last check.",
    ("model", "route"),
    (),
    "mostrecent",
)
QUARANTINED = Metric(
    "embedway_quarantined", "gauge", "Whether a route is in quarantine.", ("model", "route"), (), "mostrecent"
)
DRIFT_CHECK_TIME = Metric(
    "embedway_drift_check_timestamp_seconds",
    "gauge",
    "Time of the last comparison with a baseline, by result, in seconds since 1970.",
    ("model", "route", "result"),
    (),
    "mostrecent",
)
DRIFT_CHECKS = _counter(
    "embedway_drift_checks",
    "Comparisons with a baseline: passed, failed or no_baseline.",
    "model",
    "route",
    "result",
)

RESERVATIONS = _counter("embedway_reservations", "Reservations of money, by outcome.", "outcome")
RESERVED = _counter("embedway_reserved_dollars", "Money reserved, in dollars.", "model")
BUDGET_SPENT = Metric(
    "embedway_budget_spent_dollars", "gauge", "Spent in the period of a budget.", ("budget",), (), "mostrecent"
)
BUDGET_LEFT = Metric(
    "embedway_budget_left_dollars",
    "gauge",
    "Neither spent nor reserved in the period of a budget.",
    ("budget",),
    (),
    "mostrecent",
)
BUDGET_WARNINGS = _counter("embedway_budget_warnings", "Warnings that a part of a budget is spent.", "budget", "level")
BUDGET_REFUSALS = _counter("embedway_budget_refusals", "Calls refused because they would exceed a budget.", "budget")
BUDGET_RATIO = Metric(
    "embedway_budget_spent_ratio",
    "gauge",
    "Amount spent divided by the limit, in the period of a budget.",
    ("budget",),
    (),
    "mostrecent",
)

STORE_ERRORS = _counter("embedway_store_errors", "Failures of the cache, the ledger and the pins.", "store", "action")
LOAD_SECONDS = _seconds("embedway_model_load_seconds", "Time to load a model or open its service.", "model")
INFERENCE_SECONDS = _seconds("embedway_inference_seconds", "Time of a batch on this machine.", "model")
MEMORY = Metric("embedway_resident_memory_bytes", "gauge", "Resident memory of the process, at most two seconds old.")


def _of_run(name: str, text: str) -> Metric:
    return Metric(name, "gauge", text, ("run",), (), "mostrecent")


RUN_SUCCESS = _of_run("embedway_run_success", "Whether the last run of a job was completed, 1 or 0.")
RUN_END = _of_run("embedway_run_end_timestamp_seconds", "End of the last run of a job, in seconds since 1970.")
RUN_SECONDS = _of_run("embedway_run_seconds", "Time of the last run of a job.")
RUN_REJECTED = _of_run("embedway_run_rejected_rows", "Rows that the last run of a job rejected, if it was completed.")

GATEWAY_REQUESTS = _counter("embedway_gateway_requests", "Requests to the gateway, by status.", "path", "status")
GATEWAY_SECONDS = _seconds("embedway_gateway_request_seconds", "Time of a request to the gateway.", "path")
GATEWAY_RUNNING = Metric("embedway_gateway_running_requests", "gauge", "Requests that the gateway computes.")
GATEWAY_WAITING = Metric("embedway_gateway_waiting_requests", "gauge", "Requests that wait for their turn.")
GATEWAY_REFUSED = _counter("embedway_gateway_refused_requests", "Requests that the gateway refused, by code.", "code")
GATEWAY_STARTS = _counter("embedway_gateway_process_starts", "Starts of the processes of the gateway.", "process")

METRICS: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
