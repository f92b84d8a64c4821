"""Checks of large, abandoned and unauthorized requests."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from embedway.conformance.checks.errors import shape_problem
from embedway.conformance.rows import cosines, read_vectors
from embedway.conformance.verdicts import (
    CheckFailedError,
    CheckSkippedError,
    NoAnswerError,
    NoAnswerInTimeError,
    Verdict,
    passed,
    warned,
)

if TYPE_CHECKING:
    from embedway.conformance.client import Answer
    from embedway.conformance.server import Server

#: Most texts of one request to OpenAI.
_HUGE = 2048
#: Rows of a huge batch with known texts: where servers that split batches join them.
_SAMPLED = (0, 1, 31, 32, 63, 127, 255, 256, 511, 1000, 1023, 1024, 1535, 2046, 2047)
#: Texts and words of a heavy request, and how many of them are abandoned.
_HEAVY_TEXTS, _HEAVY_WORDS, _ABANDONED = 64, 200, 4
_WRONG_KEY = "sk-wrong-key-of-a-conformance-check"


async def huge_batch(server: Server) -> Verdict:
    """Send as many texts as OpenAI accepts, and one more."""
    known = await server.distinct_vectors()
    texts = [server.texts.short(number) for number in range(_HUGE + 1)]
    for number, row in enumerate(_SAMPLED):
        texts[row] = server.texts.known[number]
    try:
        answer = await server.post(texts[:_HUGE], rows=_HUGE)
    except NoAnswerInTimeError as error:
        await server.embed_one(server.texts.known[0])
        return warned(f"too slow to judge: {error}; a short text is answered; raise --timeout")
    seen = _refused(answer, _HUGE)
    if not seen:
        vectors = read_vectors(answer, _HUGE)
        # The nearest known vector, so that only batch-alone judges how near it is.
        nearest = cosines(vectors[list(_SAMPLED)], known).argmax(axis=1)
        wrong = [row for number, row in enumerate(_SAMPLED) if nearest[number] != number]
        if wrong:
            raise CheckFailedError(
                f"{len(wrong)} of {len(_SAMPLED)} rows are vectors of other texts, such as row {wrong[0]} of {_HUGE}"
            )
        seen = f"{_HUGE:,} texts are answered in {answer.seconds:.1f} s"
    more = await server.post(texts, rows=_HUGE + 1)
    and_more = _refused(more, _HUGE + 1)
    if not and_more:
        read_vectors(more, _HUGE + 1)
        and_more = f"{_HUGE + 1:,} are answered"
    return passed(f"{seen}; {and_more}")


def _refused(answer: Answer, count: int) -> str:
    """Return the refusal of a batch; empty if it is answered. Raises CheckFailedError for any other answer."""
    if answer.is_ok:
        return ""
    if answer.is_refusal:
        return f"{count:,} texts are refused with {answer.shown}"
    raise CheckFailedError(f"{count:,} texts are answered with {answer.shown}")


async def cancelled(server: Server) -> Verdict:
    """Abandon heavy requests, and time a short one."""
    first = [server.long_text(_HEAVY_WORDS, number) for number in range(_HEAVY_TEXTS)]
    try:
        answer = await server.post(first, rows=len(first))
    except NoAnswerInTimeError as error:
        raise CheckSkippedError(f"too slow to judge: {error} to {len(first)} texts; raise --timeout") from None
    if not answer.is_ok:
        first = first[:8]
        answer = await server.post(first, rows=len(first))
    read_vectors(answer, len(first))
    heavy_s, size = answer.seconds, len(first)
    batches = [
        [server.long_text(_HEAVY_WORDS, size * turn + number) for number in range(size)]
        for turn in range(1, _ABANDONED + 1)
    ]
    await asyncio.gather(*(server.client.abandon(server.url, server.body(texts), rows=size) for texts in batches))
    limit_s = max(server.target.place.patience_s, heavy_s)
    try:
        short = await server.post(server.texts.fresh(5000), timeout_s=limit_s)
    except NoAnswerError:
        raise CheckFailedError(
            f"after {_ABANDONED} abandoned requests of {heavy_s:.1f} s, a short one has no answer in {limit_s:.1f} s"
        ) from None
    read_vectors(short, 1)
    return passed(f"a short request took {short.seconds:.2f} s after {_ABANDONED} abandoned ones of {heavy_s:.1f} s")


async def keys(server: Server) -> Verdict:
    """Send a request without a key, and one with a wrong key."""
    body = server.body(server.texts.known[0])
    without = await server.client.post_with_key(server.url, body, None)
    wrong = await server.client.post_with_key(server.url, body, _WRONG_KEY)
    if without.is_ok and wrong.is_ok:
        if server.target.place.key is not None:
            return warned("a key was given, but the server needs none")
        return passed("no key is needed; any key is accepted")
    if without.is_ok:
        raise CheckFailedError(f"no key is needed, but a key that clients always send is answered with {wrong.shown}")
    for name, answer in (("no key", without), ("a wrong key", wrong)):
        if answer.status not in {401, 403}:
            raise CheckFailedError(f"{name} is answered with {answer.shown}, not with 401")
        problem, _ = shape_problem(answer)
        if problem:
            raise CheckFailedError(f"{name}: {problem}")
    return passed(f"no key: {without.status}, a wrong key: {wrong.status}")


async def overload(server: Server) -> Verdict:
    """Look at the answers with 429 and 503 of the whole run."""
    busy = server.client.busy_answers
    await asyncio.sleep(0)
    if not busy:
        raise CheckSkippedError("no answer with 429 or 503 was seen")
    if not all(busy):
        raise CheckFailedError(f"{len(busy) - sum(busy)} of {len(busy)} answers with 429 or 503 have no Retry-After")
    return passed(f"{len(busy)} answers with 429 or 503 have a Retry-After")
