"""Judging of a server: discovery, then each check with a time limit."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from embedway.conformance.client import Client
from embedway.conformance.discovery import discover
from embedway.conformance.report import Report, Result
from embedway.conformance.server import Server
from embedway.conformance.table import CHECKS
from embedway.conformance.target import Target
from embedway.conformance.verdicts import CheckEndedError, Verdict
from embedway.errors import AuthenticationError, ProtocolError, UsageError
from embedway.text import shown_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from embedway.conformance.reference import Reference
    from embedway.conformance.table import Check
    from embedway.conformance.target import Place

_log = logging.getLogger(__name__)

#: Default time limit of a check, in time limits of an answer.
_ANSWERS = 4


def chosen_checks(names: Sequence[str], skipped: Sequence[str]) -> tuple[Check, ...]:
    """Return the named checks, or all, without the skipped ones. Raises UsageError for an unknown name."""
    known = [check.name for check in CHECKS]
    for name in (*names, *skipped):
        if name not in known:
            raise UsageError(f"no check is named {shown_name(name)}; the checks are {', '.join(known)}")
    chosen = tuple(check for check in CHECKS if check.name in (names or known) and check.name not in skipped)
    if not chosen:
        raise UsageError("no check is left to run")
    return chosen


async def judge(
    place: Place,
    *,
    model: str | None = None,
    rerank_model: str | None = None,
    checks: Sequence[Check] = CHECKS,
    find_reference: Callable[[str], Reference | None] = lambda model: None,  # noqa: ARG005
    max_tokens: int | None = None,
    check_limit_s: float | None = None,
    started: Callable[[Check], None] = lambda check: None,  # noqa: ARG005
) -> Report:
    """Run checks on a server, one after the other, and return all verdicts.

    `find_reference` returns the tokenizer of a served model, and may block. `check_limit_s` is the maximum time of a
    check; the default is four times that of an answer. Raises UpstreamErrors if the server cannot
    be judged, and UsageError if it has several models and none is named.
    """
    async with Client(place) as client:
        found = await discover(client, model)
        reference = await asyncio.to_thread(find_reference, found.model)
        known = reference.max_tokens if reference is not None else found.max_tokens
        target = Target(
            place,
            found.base_url,
            found.model,
            rerank_model,
            reference,
            max_tokens or known,
        )
        server = Server(target, client)
        await _try(server)
        results = []
        for check in checks:
            started(check)
            start = time.monotonic()
            verdict = await _verdict(check, server, check_limit_s or _ANSWERS * place.timeout_s)
            results.append(Result(check.name, check.why, verdict, time.monotonic() - start))
    return Report(target, tuple(results))


async def _try(server: Server) -> None:
    """Embed one text. Raises UpstreamErrors, because nothing can be judged without an answer."""
    route = server.target.base_url
    try:
        answer = await server.post(server.texts.known[0])
    except CheckEndedError as error:
        raise ProtocolError(f"a plain text has no answer: {error}", route=route) from None
    if answer.status in {401, 403}:
        given = "refuses the key" if server.target.place.key else "needs a key; use --api-key-env"
        raise AuthenticationError(f"the server {given}", route=route, status=answer.status)
    if not answer.is_ok:
        raise ProtocolError(f"a plain text is answered with {answer.shown}", route=route)


async def _verdict(check: Check, server: Server, limit_s: float) -> Verdict:
    try:
        async with asyncio.timeout(limit_s):
            return await check.run(server)
    except CheckEndedError as ended:
        return ended.verdict
    except TimeoutError:
        return Verdict("failed", f"the check did not end within {limit_s:g} s")
    except Exception as error:  # noqa: BLE001  last resort: no answer of a server may end the command
        _log.debug("the check %s failed by itself", check.name, exc_info=True)
        return Verdict("failed", f"an answer has values that cannot be read ({type(error).__name__})")
