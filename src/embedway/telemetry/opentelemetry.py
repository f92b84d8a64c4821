"""Spans and metrics for OpenTelemetry, by its semantic conventions for embeddings.

Source: github.com/open-telemetry/semantic-conventions-genai, docs/gen-ai/client-embeddings.md, commit 88eccb155ca7
(status: development), read 2026-11-27: names, units and buckets. Our own attributes begin with `embedway.`.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from embedway._version import __version__
from embedway.errors import MissingExtraError
from embedway.telemetry.operations import AttemptDetails, BudgetStandingDetails, RequestDetails
from embedway.telemetry.request_tracker import RequestAttempts, requested_model
from embedway.telemetry.settings_hook import SettingsHook
from embedway.telemetry.span_attributes import (
    at_begin,
    at_end,
    attributes_of,
    event_of,
    labels_of,
    outcome_attributes,
    server_of,
)

try:
    from opentelemetry import context as contexts
    from opentelemetry import metrics, trace
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "opentelemetry":
        raise
    raise MissingExtraError("[telemetry] opentelemetry", extra="opentelemetry", package="opentelemetry-api") from None

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from opentelemetry.context import Context
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, SpanContext, TracerProvider

    from embedway.telemetry.operations import Operation, Outcome

#: Ended requests that may still be parents: vectors are stored after their request.
_REMEMBERED = 512
_DURATION_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKENS = tuple(4**power for power in range(14))
_NO_CONTEXT: AbstractContextManager[object] = contextlib.nullcontext()


class _Running(NamedTuple):
    """Span of a running operation."""

    span: Span
    context: Context
    started_ns: int
    attributes: dict[str, Any]


class OpenTelemetryHook(SettingsHook):
    """Hook that reports operations as spans, and calls as metrics.

    Without providers it uses the global ones, also if they are set later. A call of `embed` or `rerank` is a span of
    kind CLIENT, whose parent is the current span of the caller. Loads, lookups, batches, attempts and waits are spans
    below it, and events such as failovers are events of the span in which they occur. A batch of several callers is
    below the first one's call, and linked to the others'. No attribute contains a text, key or URL. Raises
    MissingExtraError without `embedway[opentelemetry]`.
    `[telemetry] opentelemetry = true` adds this hook with the global providers.
    """

    def __init__(
        self, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
    ) -> None:
        super().__init__()
        self._running: dict[int, _Running] = {}
        self._ended: list[tuple[int, SpanContext] | None] = [None] * _REMEMBERED
        self._tracer = trace.get_tracer("embedway", __version__, tracer_provider)
        meter = metrics.get_meter("embedway", __version__, meter_provider)
        self._duration = meter.create_histogram(
            "gen_ai.client.embeddings.duration",
            unit="s",
            description="GenAI client embeddings operation duration.",
            explicit_bucket_boundaries_advisory=_DURATION_S,
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.embeddings.operation.input_tokens",
            unit="{token}",
            description="The number of input tokens used per embeddings operation.",
            explicit_bucket_boundaries_advisory=_TOKENS,
        )

    def begin(self, operation: Operation) -> None:
        """Start the span of an operation."""
        self.tracker.begin(operation)
        details = operation.details
        if isinstance(details, RequestDetails):
            name, attributes = at_begin(operation, details, requested_model(details, None, self.models))
            parent, kind = contexts.get_current(), trace.SpanKind.CLIENT
        else:
            name, attributes = attributes_of(details)
            parent = self._parent_context(operation.parent)
            kind = trace.SpanKind.INTERNAL
            if isinstance(details, AttemptDetails):
                kind = trace.SpanKind.CLIENT
                attributes.update(server_of(details.route, self.routes))
        started_ns = time.time_ns()
        span = self._tracer.start_span(
            name,
            parent,
            kind,
            attributes,
            self._links(operation.links) if operation.links else None,
            started_ns,
        )
        context = trace.set_span_in_context(span, parent)
        self._running[operation.id] = _Running(span, context, started_ns, attributes)

    def context(self, operation: Operation) -> AbstractContextManager[object]:
        """Return a context manager in which the span is the current one."""
        running = self._running.get(operation.id)
        if running is None or not running.span.get_span_context().is_valid:
            return _NO_CONTEXT
        return _Current(running.context)

    def end(self, operation: Operation, outcome: Outcome) -> None:
        """End the span, and record a call in the metrics."""
        attempts = self.tracker.end(operation)
        running = self._running.pop(operation.id, None)
        if running is None:
            return
        span, details = running.span, operation.details
        if isinstance(details, RequestDetails):
            name, attributes = at_end(details, outcome, attempts or RequestAttempts(), self.routes)
            self._ended[operation.id % _REMEMBERED] = operation.id, span.get_span_context()
            span.update_name(name)
            if details.task == "embed":
                self._record(running, outcome, {**running.attributes, **attributes})
        else:
            attributes = outcome_attributes(details, outcome)
        if span.is_recording():
            if attributes:
                span.set_attributes(attributes)
            if outcome.error is not None:
                span.set_attribute("error.type", outcome.error)
                span.set_status(trace.StatusCode.ERROR)
        span.end(running.started_ns + round(outcome.duration_s * 1e9))

    def event(self, operation: Operation) -> None:
        """Add an event to the span in which it occurs."""
        if isinstance(operation.details, BudgetStandingDetails):  # amounts after each call, for gauges
            return
        running = None if operation.parent is None else self._running.get(operation.parent)
        if running is not None and running.span.is_recording():
            running.span.add_event(*event_of(operation.details))

    def _record(self, running: _Running, outcome: Outcome, attributes: dict[str, Any]) -> None:
        labels = labels_of(attributes, outcome)
        self._duration.record(outcome.duration_s, labels, context=running.context)
        tokens = attributes.get("gen_ai.usage.input_tokens")
        if tokens is not None:
            labels.pop("error.type", None)
            self._tokens.record(tokens, labels, context=running.context)

    def _parent_context(self, parent: int | None) -> Context:
        if parent is None:
            return contexts.get_current()
        running = self._running.get(parent)
        if running is not None:
            return running.context
        ended = self._ended_span(parent)
        # The current context is not used: the task may work for several requests.
        return (
            contexts.Context()
            if ended is None
            else trace.set_span_in_context(trace.NonRecordingSpan(ended), contexts.Context())
        )

    def _links(self, requests: tuple[int, ...]) -> list[trace.Link]:
        found = (
            self._running[one].span.get_span_context() if one in self._running else self._ended_span(one)
            for one in requests
        )
        return [trace.Link(one) for one in found if one is not None and one.is_valid]

    def _ended_span(self, request: int) -> SpanContext | None:
        ended = self._ended[request % _REMEMBERED]
        return ended[1] if ended is not None and ended[0] == request else None


class _Current:
    """Context manager in which a context is the current one.

    It does not use the token of the context, which is invalid if the block of an asynchronous generator ends in another
    task.
    """

    __slots__ = ("_context", "_previous")

    def __init__(self, context: Context) -> None:
        self._context = context

    def __enter__(self) -> None:
        self._previous = contexts.get_current()
        contexts.attach(self._context)

    def __exit__(self, *_error: object) -> None:
        contexts.attach(self._previous)
