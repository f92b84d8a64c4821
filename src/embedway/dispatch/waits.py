"""Waits between requests to a route, and the errors for waits that are too long."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedway.dispatch.limits import with_advice
from embedway.dispatch.rate_limiter import utc_in
from embedway.errors import (
    BadVectorsError,
    DeadlineError,
    RateLimitedError,
    UnavailableError,
    UpstreamError,
    without_row,
)
from embedway.money import as_number
from embedway.providers.base import sum_of
from embedway.providers.delivery import of_attempt
from embedway.providers.http_headers import LONGEST_WAIT_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedway.dispatch.attempt import Attempt
    from embedway.dispatch.request import RetryPolicy, ServiceRoute
    from embedway.errors import EmbedwayError

#: Pauses between requests to a service that loads its model and does not say how long, in seconds, and their growth.
_FIRST_POLL_S, _LONGEST_POLL_S, _POLL_GROWTH = 1.0, 5.0, 1.5
#: Maximum doublings of a wait; more would overflow.
_MOST_DOUBLINGS = 100


def is_loading(error: EmbedwayError) -> bool:
    """Return whether the service says that it loads the model: it is healthy, and will answer later."""
    return isinstance(error, UnavailableError) and error.loading


def is_closed_by(error: EmbedwayError) -> bool:
    """Return whether an error applies to all requests to its route, and ends with time."""
    return isinstance(error, RateLimitedError) or is_loading(error)


def reason_of(error: EmbedwayError, route: ServiceRoute) -> str:
    """Return the message of an error without rows, with the end of the wait that it requires."""
    message = error.message if isinstance(error, BadVectorsError) else without_row(error)
    message = message.removeprefix(f"{route.name}: ")  # it is shown behind the route
    obstacle = route.limiter.obstacle(0) if is_closed_by(error) else None
    return message if obstacle is None or obstacle.reason in message else f"{message}; {obstacle}"


def waited_for(route: ServiceRoute, tokens: int) -> str:
    """Return the reason for which a request of `tokens` tokens still waits for a route, in words."""
    obstacle = route.limiter.obstacle(tokens)
    if obstacle is not None:
        return f"because {obstacle}"
    semaphore = route.semaphore
    return f"because {semaphore.limit} of its requests are under way" if semaphore.is_busy else "after a wait"


def back_off_s(
    policy: RetryPolicy, error: EmbedwayError, *, tries: int, polls: int, chance: Callable[[], float]
) -> float:
    """Return the seconds before the next try after `tries` tries (from 1) on a route, the last with this error.

    `polls` is the number of answers that the model is loading.
    """
    asked_s = as_number(error.retry_after_s) if isinstance(error, (RateLimitedError, UnavailableError)) else None
    if asked_s is not None and not 0 <= asked_s <= LONGEST_WAIT_S:
        asked_s = None
    if is_loading(error):
        poll_s = min(_LONGEST_POLL_S, _FIRST_POLL_S * _POLL_GROWTH ** min(polls - 1, _MOST_DOUBLINGS))
        return poll_s if asked_s is None else max(_FIRST_POLL_S, asked_s)
    wait_s = min(policy.longest_wait_s, policy.first_wait_s * 2.0 ** min(tries - 1, _MOST_DOUBLINGS))
    wait_s *= 1 - chance() / 2
    return wait_s if asked_s is None else max(wait_s, asked_s)


def too_late(error: UpstreamError, attempt: Attempt, wait_s: float) -> DeadlineError:
    """Return the error for a wait that would pass the deadline: the limit or reason, and when the wait ends."""
    context, route = attempt.context, attempt.route
    deadline = f"after the deadline of the request ({context.deadline_named})"
    if is_loading(error):
        message = f"{route.name} is still loading its model; it could be asked again in {wait_s:.1f} s, {deadline}; "
        message += f"its last answer: {error}"
    elif attempt.is_sent:
        limit = route.limiter.obstacle(sum_of(context.request.lengths[attempt.rows]))
        named = "" if limit is None else f"{limit}; "
        message = f"{route.name} could only be retried in {wait_s:.1f} s, at {utc_in(wait_s)}, {deadline}; {named}"
        message += f"its last answer: {error}"
    else:
        message = f"{error}, {deadline}"
    late = DeadlineError(message, attempts=context.response.attempts)
    late.route, late.retry_after_s, late.__cause__ = route.name, wait_s, error
    return late


def missed_deadline(attempt: Attempt, how: str) -> DeadlineError:
    """Return the error for the deadline of a request that ends `attempt`; `how` says what the route did not do."""
    context, route, awaited = attempt.context, attempt.route, of_attempt().awaited
    how = f"could not be asked, because {awaited} gave no token," if awaited else how
    late = DeadlineError(
        f"{route.name} {how} before the deadline of the request ({context.deadline_named}), "
        f"after {context.response.attempts} requests in all",
        attempts=context.response.attempts,
    )
    late.route = route.name
    return late


def skipped(route: ServiceRoute) -> UpstreamError:
    """Return the error for a route that is not asked, because its circuit is open, and count it for alerts."""
    if route.error_rate is not None:
        route.error_rate.record_skip()
    return UpstreamError(route.circuit.skipped, route=route.name)


def exhausted(policy: RetryPolicy, error: EmbedwayError, *, tries: int, passed_s: float) -> EmbedwayError:
    """Return the last error of exhausted tries, with their number, their time, and the settings to raise."""
    settings = f"upstream.max_attempts = {policy.max_attempts}, upstream.deadline_s = {policy.deadline_s:g}"
    times = "1 try" if tries == 1 else f"{tries} tries"
    return with_advice(error, f"; gave up after {times} in {passed_s:.1f} s (settings: {settings})")
