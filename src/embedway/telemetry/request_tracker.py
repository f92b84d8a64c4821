"""Model and attempts of each running request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from embedway.telemetry.operations import AttemptDetails, BatchDetails, CacheDetails, RequestDetails
from embedway.telemetry.route_facts import is_name

if TYPE_CHECKING:
    from embedway.telemetry.operations import Operation

#: Model name of a call that selects a model.
_AUTO = "auto"


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
class RequestAttempts:
    """Attempts of a request so far: their number, and their routes in order. `model` is known once it is open."""

    attempts: int = 0
    model: str | None = None
    routes: dict[str, None] = field(default_factory=dict)


class RequestTracker:
    """Tracks models and attempts of running requests: errors carry no receipt, which would name them."""

    def __init__(self) -> None:
        self._requests: dict[int, tuple[int, ...]] = {}
        self._attempts: dict[int, RequestAttempts] = {}

    def begin(self, operation: Operation) -> None:
        """Register an operation."""
        if isinstance(operation.details, RequestDetails):
            self._requests[operation.id] = (operation.id,)
            self._attempts[operation.id] = RequestAttempts()
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
            attempts = self._attempts.get(request)
            if attempts is None:
                continue
            attempts.model = operation.details.model
            if isinstance(operation.details, AttemptDetails):
                attempts.attempts += 1
                attempts.routes[operation.details.route] = None

    def end(self, operation: Operation) -> RequestAttempts | None:
        """Forget an operation; return the attempts of a request."""
        self._requests.pop(operation.id, None)
        return self._attempts.pop(operation.id, None)
