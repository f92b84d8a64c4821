"""Checks that each text gets its own vector: in a batch, beside others, at once, and again."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np

from embedway.concurrency import run_together
from embedway.conformance.rows import EQUAL, NEAR, SAME, cosine, cosines, lowest, read_list, read_vectors, rounded
from embedway.conformance.server import largest_similarity
from embedway.conformance.verdicts import CheckFailedError, Verdict, passed, warned

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from embedway.conformance.server import Server
    from embedway.types import Vectors

#: Requests that are sent at once, and how often.
_AT_ONCE, _ROUNDS = 24, 2
#: Words of the long neighbours of a short text.
_LONG_WORDS = 150


async def distinct(server: Server) -> Verdict:
    """Compare the vectors of different texts."""
    similarity = largest_similarity(await server.known_vectors())
    if similarity >= EQUAL:
        raise CheckFailedError(f"two different texts have the same vector (cosine {rounded(similarity)})")
    return passed(f"{len(server.texts.known)} texts have different vectors; the closest cosine is {similarity:.2f}")


async def row_order(server: Server) -> Verdict:
    """Send known texts in another order as a batch, and look for each vector at its place."""
    known = await server.distinct_vectors()
    order = list(range(len(known)))
    random.Random(7).shuffle(order)  # noqa: S311  the same order in each run
    answer = await server.post([server.texts.known[n] for n in order], rows=len(order))
    data = read_list(answer, len(order))
    indexes = [row.get("index") for row in data]
    if indexes != list(range(len(order))) or any(type(index) is not int for index in indexes):
        kind = "in another order" if all(type(index) is int for index in indexes) else "missing or no integers"
        raise CheckFailedError(f"the indexes are {kind}; clients that read rows by position mix up texts")
    nearest = cosines(read_vectors(answer, len(order)), known).argmax(axis=1)
    wrong = [row for row, found in enumerate(nearest) if found != order[row]]
    if wrong:
        raise CheckFailedError(f"{len(wrong)} of {len(order)} rows are vectors of other texts, such as row {wrong[0]}")
    return passed(f"{len(order)} rows in the order of the texts, with index 0 to {len(order) - 1}")


async def batch_alone(server: Server) -> Verdict:
    """Compare the vectors of texts alone with those beside others, and beside long ones."""
    known = await server.known_vectors()
    batch = await server.embed(server.texts.known)
    # The nearest row, so that only row-order judges the order.
    worst = float(cosines(known, batch).max(axis=1).min())
    shorts = [server.texts.known[number] for number in (0, 2, 5)]
    longs = [server.long_text(_LONG_WORDS, number) for number in range(3)]
    mixed = await server.embed([text for pair in zip(longs, shorts, strict=True) for text in pair])
    beside = float(cosines(known[[0, 2, 5]], mixed).max(axis=1).min())
    seen = f"lowest cosine {rounded(worst)} in a batch of {len(known)}, {rounded(beside)} beside long texts"
    return _by_cosine(min(worst, beside), seen)


async def determinism(server: Server) -> Verdict:
    """Send the same texts again."""
    known = await server.known_vectors()
    again = [await server.embed_one(text) for text in server.texts.known[:4]]
    worst = lowest(list(zip(known[:4], again, strict=True)))
    return _by_cosine(worst, f"lowest cosine of the same text sent twice: {rounded(worst)}")


async def duplicates(server: Server) -> Verdict:
    """Send a text three times in one batch."""
    a, b, c = server.texts.known[:3]
    vectors = await server.embed([a, b, a, c, a])
    worst = lowest([(vectors[0], vectors[2]), (vectors[0], vectors[4])])
    if max(cosine(vectors[0], vectors[1]), cosine(vectors[0], vectors[3])) >= EQUAL:
        raise CheckFailedError("other texts between copies of a text have its vector")
    return _by_cosine(worst, f"lowest cosine of three copies in a batch of five: {rounded(worst)}")


async def concurrency(server: Server) -> Verdict:
    """Send many requests at once, each with known and new texts; then ask for the new ones alone."""
    known = await server.distinct_vectors()
    wrong, total, fresh = 0, 0, []
    for turn in range(_ROUNDS):
        numbers = range(turn * _AT_ONCE, (turn + 1) * _AT_ONCE)
        answers = await _together([_known_between_new(server, number) for number in numbers])
        for number, vectors in zip(numbers, answers, strict=True):
            total += 1
            wrong += int(cosines(vectors[1:2], known).argmax()) != number % len(known)
        fresh += [(number, vectors[0]) for number, vectors in zip(numbers, answers, strict=True)][:4]
    alone = [await server.embed_one(server.texts.fresh(number)) for number, _ in fresh]
    worst = lowest([(vector, other) for (_, vector), other in zip(fresh, alone, strict=True)])
    if wrong:
        raise CheckFailedError(f"{wrong} of {total} concurrent requests got vectors of other texts")
    return _by_cosine(worst, f"{total} requests, {_AT_ONCE} at once, got their own vectors; cosine {rounded(worst)}")


async def _known_between_new(server: Server, number: int) -> Vectors:
    known = server.texts.known
    texts = [server.texts.fresh(number), known[number % len(known)], server.texts.fresh(1000 + number)]
    return await server.embed(texts[: 2 + number % 2])


async def _together(requests: list[Coroutine[Any, Any, Vectors]]) -> list[Vectors]:
    """Send requests at once. The first error ends the others, which would disturb later checks."""
    answers: dict[int, Vectors] = {}

    async def keep(number: int, request: Coroutine[Any, Any, Vectors]) -> None:
        answers[number] = await request

    try:
        await run_together(keep(number, request) for number, request in enumerate(requests))
    except BaseExceptionGroup as group:
        first = group.exceptions[0]
    else:
        return [answers[number] for number in range(len(requests))]
    raise first


def _by_cosine(worst: float, seen: str) -> Verdict:
    if worst < NEAR:
        raise CheckFailedError(f"{seen}; below {NEAR} is another vector")
    return passed(seen) if worst >= SAME else warned(f"{seen}; {SAME} and more is rounding")


async def width(server: Server) -> Verdict:
    """Compare lengths and norms of all vectors of several calls."""
    one = [await server.embed_one(text) for text in server.texts.known[:4]]
    batch = await server.embed(server.texts.known[:8])
    lengths = sorted({len(vector) for vector in [*one, *batch]})
    if len(lengths) > 1:
        raise CheckFailedError(f"vectors have {lengths[0]} and {lengths[-1]} numbers")
    norms = np.linalg.norm(np.stack([*one, *batch]).astype(np.float64), axis=1)
    if norms.max() - norms.min() < 2e-2 and abs(norms.mean() - 1) < 1e-2:
        return passed(f"{len(norms)} vectors of {lengths[0]} numbers, all of length 1")
    if (np.abs(norms - 1) < 1e-2).any():
        raise CheckFailedError(f"some vectors have length 1, others not ({norms.min():.3g} to {norms.max():.3g})")
    return warned(f"vectors are not normalized: lengths {norms.min():.3g} to {norms.max():.3g}")
