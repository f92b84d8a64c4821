"""Values of the recovery of a request: the routes left, the attempts so far, a failure, and the next step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from embedway.dispatch.halving import may_be_the_texts
from embedway.dispatch.waits import is_loading
from embedway.errors import BadVectorsError, EmbedwayError, ProtocolError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from embedway.dispatch.attempt import Attempt
    from embedway.dispatch.request import ServiceRoute


class LimitLearnedError(EmbedwayError):
    """Texts exceed a limit that the route learned while they waited. It is never passed on."""


@dataclass(frozen=True, slots=True)
class RoutePlan:
    """Routes that texts may still use, the current one first; the routes that failed before, and their reasons.

    `waiting` are the failed ones that may be used again after a wait, if no other route answers. `suspect` are those
    whose failure a text may have caused, with it: there, the texts may be sent again in halves.
    """

    routes: tuple[ServiceRoute, ...]
    failed: tuple[tuple[str, str], ...] = ()
    waiting: tuple[ServiceRoute, ...] = ()
    suspect: tuple[tuple[ServiceRoute, EmbedwayError], ...] = ()


def plan_of(routes: Sequence[ServiceRoute], quarantined: Mapping[str, str]) -> RoutePlan:
    """Return the first plan of a request. Routes in quarantine count as failed before it, with their reasons."""
    if not quarantined:
        return RoutePlan(tuple(routes))
    failed = tuple((route.name, quarantined[route.name]) for route in routes if route.name in quarantined)
    return RoutePlan(tuple(route for route in routes if route.name not in quarantined), failed)


@dataclass(slots=True)
class History:
    """Attempts that some texts were part of: in total, and on the current route."""

    attempts: int
    on_route: int = 0
    bad_answers: int = 0
    #: Answers that say that the model is loading; they are not attempts.
    loading: int = 0
    #: Failures whose reason may be a text.
    failures: int = 0
    #: Whether it is a text that is sent again alone: its vector was invalid in an answer with valid ones.
    is_asked_again: bool = False
    #: Whether they are a part of a failed request, which is halved to find the text at fault.
    is_searched: bool = False

    def count(self, attempt: Attempt, error: EmbedwayError) -> None:
        """Count a failed attempt."""
        loads = is_loading(error)
        self.attempts += attempt.is_sent and not loads
        self.on_route += not loads
        self.loading += loads
        self.bad_answers += isinstance(error, (BadVectorsError, ProtocolError))
        self.failures += may_be_the_texts(error)


@dataclass(frozen=True, slots=True)
class Failed:
    """A failed attempt."""

    attempt: Attempt
    error: EmbedwayError


@dataclass(frozen=True, slots=True)
class Decision:
    """Next step after a failed attempt, and the wait before it; None for no wait."""

    step: Literal["retry", "separate callers", "split", "halve", "fail over", "give up"]
    error: EmbedwayError
    wait_s: float | None = None
