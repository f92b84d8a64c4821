"""Hooks: callbacks at the begin and end of operations, for metrics, traces, logs and webhooks."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, ParamSpec, Protocol

from embedway._public import public
from embedway.telemetry.operations import Operation, Outcome, RequestDetails
from embedway.telemetry.request_ids import current_requests
from embedway.third_party import is_interrupt, must_pass, place_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractContextManager

    from embedway.telemetry.operations import Details

P = ParamSpec("P")

_log = logging.getLogger("embedway.hooks")
#: Timeout of one hook in `Hooks.flush`, in seconds.
FLUSH_S = 5.0
#: Id of the current operation, or None.
current_operation: ContextVar[int | None] = ContextVar("embedway_operation", default=None)


@public
class Hook(Protocol):
    """Receiver of operations. Derive from `BaseHook` to implement only the methods that you need.

    All methods except `flush` are called in the task or thread that does the work, and delay it: keep them short. If a
    method raises, this is logged once and never fails a request.
    """

    def begin(self, operation: Operation) -> None:
        """Handle the begin of an operation."""

    def end(self, operation: Operation, outcome: Outcome) -> None:
        """Handle the end of an operation, also after an error or a cancellation. Do not store or change the outcome."""

    def context(self, operation: Operation) -> AbstractContextManager[object]:
        """Return a context manager around the work, entered after `begin` and left before `end`, in the same task.

        It does not receive the error, because an error may repeat texts; the outcome names its class.
        """

    def event(self, operation: Operation) -> None:
        """Handle an event, which has no duration."""

    async def flush(self) -> None:
        """Deliver what is pending. Called when an embedder is closed."""


@public
class BaseHook:
    """A hook that does nothing."""

    def begin(self, operation: Operation) -> None:
        """Do nothing."""

    def end(self, operation: Operation, outcome: Outcome) -> None:
        """Do nothing."""

    def context(self, operation: Operation) -> AbstractContextManager[object]:  # noqa: ARG002  for subclasses
        """Return an empty context manager."""
        return contextlib.nullcontext()

    def event(self, operation: Operation) -> None:
        """Do nothing."""

    async def flush(self) -> None:
        """Do nothing."""


class Hooks:
    """Dispatcher to the hooks of an embedder. Details are created lazily, so there is no cost without hooks."""

    def __init__(self, hooks: Sequence[Hook] = (), *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._hooks = tuple(hooks)
        self.operating = tuple(hook for hook in hooks if _overrides(hook, "begin", "end", "context"))
        # A method that a hook does not override is not called: each call takes a part of a microsecond. So does finding
        # a method, and a cache hit takes only 50 µs.
        self.beginning = tuple((hook, hook.begin) for hook in hooks if _overrides(hook, "begin"))
        self.entering = tuple(hook for hook in hooks if _overrides(hook, "context"))
        self.ending = tuple((hook, hook.end) for hook in reversed(hooks) if _overrides(hook, "end"))
        self._listening = tuple((hook, hook.event) for hook in hooks if _overrides(hook, "event"))
        self.clock = clock
        self._failed: set[tuple[int, str]] = set()

    def operation(
        self, details: Callable[P, Details], *args: P.args, **kwargs: P.kwargs
    ) -> AbstractContextManager[Outcome]:
        """Run an operation in a `with` block, which yields the outcome to fill: `operation(LoadDetails, model)`."""
        if not self.operating:
            return _UNHEARD
        operation = Operation(next(_ids), current_operation.get(), details(*args, **kwargs))
        own = (operation.id,) if isinstance(operation.details, RequestDetails) else ()
        return _RunningOperation(self, operation, own)

    def merged_operation(
        self, requests: Iterable[int | None], details: Callable[P, Details], *args: P.args, **kwargs: P.kwargs
    ) -> AbstractContextManager[Outcome]:
        """Run an operation for several callers' requests: the first is its parent, the others are its links."""
        if not self.operating:
            return _UNHEARD
        ids = tuple(dict.fromkeys(request for request in requests if request is not None))
        parent = ids[0] if ids else None
        return _RunningOperation(self, Operation(next(_ids), parent, details(*args, **kwargs), ids[1:]), ids)

    def event(self, details: Callable[P, Details], *args: P.args, **kwargs: P.kwargs) -> None:
        """Report an event, which has no duration."""
        if not self._listening:
            return
        operation = Operation(next(_ids), current_operation.get(), details(*args, **kwargs))
        for hook, event in self._listening:
            try:
                event(operation)
            except BaseException as error:
                if is_interrupt(error):
                    raise
                self.log_failure(hook, "event", error)

    @property
    def is_listening(self) -> bool:
        """Whether a hook receives events."""
        return bool(self._listening)

    async def flush(self) -> None:
        """Let all hooks deliver pending data, each within `FLUSH_S`."""
        for hook in self._hooks:
            if not _overrides(hook, "flush"):
                continue
            try:
                async with asyncio.timeout(FLUSH_S):
                    await hook.flush()
            except BaseException as error:
                if must_pass(error):
                    raise
                self.log_failure(hook, "flush", error)

    def log_failure(self, hook: Hook, method: str, error: BaseException) -> None:
        """Log the first failure of a hook's method, without its message, which may repeat texts."""
        if (id(hook), method) in self._failed:
            return
        self._failed.add((id(hook), method))
        _log.warning(
            "hook %s: %s failed with %s and is ignored; its later failures are not logged",
            type(hook).__name__,
            method,
            place_of(error),
        )


class _RunningOperation:
    """Context manager of one operation."""

    __slots__ = (
        "_contexts",
        "_hooks",
        "_operation",
        "_outcome",
        "_previous",
        "_previous_requests",
        "_requests",
        "_started",
    )

    def __init__(self, hooks: Hooks, operation: Operation, requests: tuple[int, ...] = ()) -> None:
        self._hooks = hooks
        self._operation = operation
        #: Requests that the operation begins to work for; empty if they are those of its parent.
        self._requests = requests
        self._outcome = Outcome()
        self._contexts: list[tuple[Hook, AbstractContextManager[object]]] = []

    def __enter__(self) -> Outcome:
        hooks, operation = self._hooks, self._operation
        self._previous = current_operation.get()
        current_operation.set(operation.id)
        if self._requests:
            self._previous_requests = current_requests.get()
            current_requests.set(self._requests)
        self._started = hooks.clock()
        for hook, begin in hooks.beginning:
            try:
                begin(operation)
            except BaseException as error:
                if is_interrupt(error):
                    raise
                hooks.log_failure(hook, "begin", error)
        for hook in hooks.entering:
            try:
                context = hook.context(operation)
                context.__enter__()
            except BaseException as error:
                if is_interrupt(error):
                    raise
                hooks.log_failure(hook, "context", error)
            else:
                self._contexts.append((hook, context))
        return self._outcome

    def __exit__(self, kind: type[BaseException] | None, _error: object, _trace: object) -> None:
        hooks, outcome = self._hooks, self._outcome
        outcome.duration_s = hooks.clock() - self._started
        outcome.error = None if kind is None else kind.__name__
        try:
            for hook, context in reversed(self._contexts) if self._contexts else ():
                try:
                    context.__exit__(None, None, None)
                except BaseException as error:
                    if is_interrupt(error):
                        raise
                    hooks.log_failure(hook, "context", error)
            for hook, end in hooks.ending:
                try:
                    end(self._operation, outcome)
                except BaseException as error:
                    if is_interrupt(error):
                        raise
                    hooks.log_failure(hook, "end", error)
        finally:
            # Not with a context token: the block of an asynchronous generator may end in another context.
            current_operation.set(self._previous)
            if self._requests:
                current_requests.set(self._previous_requests)


def _overrides(hook: Hook, *methods: str) -> bool:
    """Return whether a hook overrides any of these methods."""
    base = vars(BaseHook)
    return any(getattr(getattr(hook, name), "__func__", None) is not base[name] for name in methods)


_ids = itertools.count(1)
#: Used without hooks: a shared outcome that is filled but never read.
_UNHEARD = contextlib.nullcontext(Outcome())
