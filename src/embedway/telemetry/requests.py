"""Requests of operations: their ids in logs and spans, and the routes that were tried for them."""

from __future__ import annotations

import os
import re
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from embedway.forks import at_fork
from embedway.telemetry.operations import AttemptDetails, BatchDetails, CacheDetails, RequestDetails

if TYPE_CHECKING:
    from collections.abc import Mapping

    from embedway.telemetry.operations import Operation

#: Ids of the operations of the requests that the current task works for; several in a batch of several callers.
current_requests: ContextVar[tuple[int, ...]] = ContextVar("embedway_requests", default=())
#: Name of a model or a provider that is in no settings and no catalog.
OTHER = "other"
#: Names of models: `acme/m`, `fastembed:acme/m`, `hf:acme/m@main`.
_NAME = re.compile(r"\w[\w.+-]*(?:[/:@][\w.+-]+)*")
#: Model name of a call that selects a model.
_AUTO = "auto"


def _new_prefix() -> str:
    return os.urandom(6).hex()


class _Process:
    """Random prefix of the request ids of this process."""

    prefix = _new_prefix()


def _after_fork() -> None:
    _Process.prefix = _new_prefix()


at_fork(after_in_child=_after_fork)


def request_id(operation: int) -> str:
    """Return the unique id of a request from the id of its operation, which is unique only in this process."""
    return f"{_Process.prefix}-{operation:x}"


@dataclass(frozen=True, slots=True)
class RouteFacts:
    """Provider and server of a route, from the settings."""

    provider: str
    address: str = ""
    port: int = 0


def provider_of(route: str, routes: Mapping[str, RouteFacts]) -> str:
    """Return the name of the provider of a route: `openai`, `fastembed`, or `local` for the built-in runtime."""
    known = routes.get(route)
    if known is not None:
        return known.provider
    provider, separator, _ = route.partition(":")
    if separator:
        return provider
    return OTHER if route.startswith("routes.") else "local"


def is_name(model: str) -> bool:
    """Return whether a model is a name, and not the path of a folder."""
    return _NAME.fullmatch(model) is not None


def requested_model(details: RequestDetails, opened: str | None, models: frozenset[str]) -> str | None:
    """Return the model that a call named, or the one that was selected for it; None if it is not known.

    The name in a call may be anything, such as a text by mistake. It is a model if `models` has it in lower case,
    or if it led to the model `opened`. Instead of the path of a folder it is the canonical name: a path may name a user
    or a customer.
    """
    if details.model == _AUTO or not is_name(details.model):
        return opened
    return details.model if opened is not None or details.model.casefold() in models else None


@dataclass(slots=True)
class Tried:
    """Attempts of a request so far: their number, and their routes in order. `model` is known once it is open."""

    attempts: int = 0
    model: str | None = None
    routes: dict[str, None] = field(default_factory=dict)


class RequestTracker:
    """Tracks models and attempts of running requests: errors carry no receipt, which would name them."""

    def __init__(self) -> None:
        self._requests: dict[int, tuple[int, ...]] = {}
        self._tried: dict[int, Tried] = {}

    def begin(self, operation: Operation) -> None:
        """Register an operation."""
        if isinstance(operation.details, RequestDetails):
            self._requests[operation.id] = (operation.id,)
            self._tried[operation.id] = Tried()
            return
        parent = operation.parent
        requests = () if parent is None else self._requests.get(parent, ())
        if operation.links:
            requests += operation.links
        if not requests:
            return
        self._requests[operation.id] = requests
        if not isinstance(operation.details, (AttemptDetails, BatchDetails, CacheDetails)):
            return
        for request in requests:
            tried = self._tried.get(request)
            if tried is None:
                continue
            tried.model = operation.details.model
            if isinstance(operation.details, AttemptDetails):
                tried.attempts += 1
                tried.routes[operation.details.route] = None

    def end(self, operation: Operation) -> Tried | None:
        """Forget an operation; return the attempts of a request."""
        self._requests.pop(operation.id, None)
        return self._tried.pop(operation.id, None)
