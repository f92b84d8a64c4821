"""Probes: small fixed requests that show whether the answers of a route can be used.

A probe is a request of its own: it waits for the rate limit, counts as an attempt, and is reserved and booked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from embedway.dispatch.billing import Charge, book
from embedway.dispatch.usage import record, usage_of_probe
from embedway.errors import BadVectorsError, EmbedwayError, ProtocolError, RefusedInputError, UpstreamError
from embedway.providers.answers import checked_answer
from embedway.providers.delivery import record_attempt
from embedway.telemetry.operations import AttemptDetails
from embedway.third_party import must_pass, place_of
from embedway.types import NO_RATES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from embedway.dispatch.attempt import Attempt
    from embedway.dispatch.request import ServiceRoute
    from embedway.dispatch.usage import Usage
    from embedway.providers.base import Answer

V = TypeVar("V")

#: Sends a probe to a route and returns the answer.
SendProbe: TypeAlias = "Callable[[ServiceRoute, Probe], Awaitable[Answer]]"


@dataclass(frozen=True, slots=True)
class Probe:
    """A request of fixed texts: their number, our count of their tokens, and the call of the provider."""

    texts: int
    tokens: int
    call: Callable[[], Awaitable[Answer]]


async def send_probe(attempt: Attempt, route: ServiceRoute, probe: Probe) -> Answer:
    """Send a probe for an attempt, and book it for the caller of the attempt's first text.

    Raises BudgetExceededError and LedgerError before anything is sent, and the errors of the provider. A refusal
    becomes a ProtocolError, because no text of the caller is refused.
    """
    context, request = attempt.context, attempt.context.request
    await attempt.pass_limits(probe.tokens)
    charges: list[Charge] = []
    usage: Usage | None = None
    may_be_billed, searches = True, int(request.by_search)
    if request.accounts and not route.provider.declared.free:
        account = request.accounts[request.caller_of(attempt.rows[0])]
        charges = [Charge(account, await account.mark_sent(probe.tokens, searches), probe.tokens, searches)]
    facts = request.model, route.name, attempt.number, probe.texts, probe.tokens
    delivery = record_attempt()
    try:
        with context.hooks.operation(AttemptDetails, *facts) as outcome:
            attempt.is_sent, attempt.started_at = True, context.clock()
            context.response.attempts += 1
            answer = await with_own_errors(_answer(route, probe), route=route.name)
            usage = usage_of_probe(answer, probe, searches, route.provider.declared)
            record(usage, route, context.response, charges)
            outcome.billed_tokens = usage.reported_tokens
    except RefusedInputError as error:
        may_be_billed = error.billed
        refusal = ProtocolError("the service refused a probe of fixed texts", route=route.name, status=error.status)
        refusal.billed, refusal.rates, refusal.of_probe = error.billed, error.rates, True
        raise refusal from error
    except EmbedwayError as error:
        if isinstance(error, (BadVectorsError, UpstreamError)):
            may_be_billed, error.of_probe = error.billed, True
        raise
    finally:
        if charges:
            await book(charges, usage, billed=may_be_billed and delivery.may_have_begun)
    if answer.rates != NO_RATES:
        route.limiter.learn(answer.rates, probe.tokens)
    return answer


async def _answer(route: ServiceRoute, probe: Probe) -> Answer:
    return checked_answer(await probe.call(), route=route.name)


async def with_own_errors(work: Awaitable[V], *, route: str) -> V:
    """Await a provider's call. Raises only our own errors and TimeoutError, without any third-party text."""
    try:
        return await work
    except EmbedwayError:
        raise
    except TimeoutError:
        raise
    except BaseException as error:
        if must_pass(error):
            raise
        place = place_of(error)
    # Not raised above: a third-party error may repeat texts, and would be the context of this one.
    raise UpstreamError(f"its provider failed ({place})", route=route, billed=True)
