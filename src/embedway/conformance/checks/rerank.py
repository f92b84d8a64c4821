"""Checks of reranking, if the server has it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from embedway.conformance.verdicts import CheckFailedError, CheckSkippedError, Verdict, passed

if TYPE_CHECKING:
    from embedway.conformance.client import Answer
    from embedway.conformance.server import Server

_QUERY = "How many strings does a violin have?"
_DOCUMENTS = (
    "Bread needs flour, water, salt and time.",
    "Interest rates rose this spring.",
    "The violin has four strings, which are tuned in fifths.",
    "Penguins cannot fly.",
    "A cello has strings too, and is larger than a viola.",
)


async def rerank_order(server: Server) -> Verdict:
    """Rank documents, and look at the order and the indexes."""
    results = _results(await _rerank(server), len(_DOCUMENTS))
    if sorted(index for index, _ in results) != list(range(len(_DOCUMENTS))):
        raise CheckFailedError("the indexes are not those of the documents, each once")
    scores = [score for _, score in results]
    if scores != sorted(scores, reverse=True):
        raise CheckFailedError("the results are not in the order of their scores")
    if results[0][0] != 2:
        raise CheckFailedError(f"document {results[0][0]} is first; only document 2 answers the query")
    return passed(f"{len(results)} results in the order of their scores, the best one first")


async def rerank_top_n(server: Server) -> Verdict:
    """Ask for the two best documents, and for more than there are."""
    every = _results(await _rerank(server), len(_DOCUMENTS))
    two = _results(await _rerank(server, top_n=2), 2)
    if [index for index, _ in two] != [index for index, _ in every[:2]]:
        raise CheckFailedError("top_n 2 does not return the two best documents")
    more = await _rerank(server, top_n=100)
    if not more.is_refusal:
        _results(more, len(_DOCUMENTS))
    return passed("top_n 2 returns the two best documents")


async def _rerank(server: Server, **fields: Any) -> Answer:
    """Send a request. Raises CheckSkippedError if the server does not rerank."""
    named = server.target.rerank_model
    body = {"model": named or server.target.model, "query": _QUERY, "documents": list(_DOCUMENTS), **fields}
    answer = await server.client.post(f"{server.target.base_url}/rerank", body, rows=len(_DOCUMENTS))
    if not answer.is_ok and not fields and named is None:
        raise CheckSkippedError(f"not supported for this model ({answer.status}); --rerank-model names a reranker")
    return answer


def _results(answer: Answer, count: int) -> list[tuple[int, float]]:
    """Return the index and the score of each result. Raises CheckFailedError."""
    if not answer.is_ok:
        raise CheckFailedError(f"answered with {answer.shown}")
    rows = answer.value.get("results") if isinstance(answer.value, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise CheckFailedError("the answer has no list results of objects")
    if len(rows) != count:
        raise CheckFailedError(f"{len(rows)} results in place of {count}")
    found = [(row.get("index"), row.get("relevance_score")) for row in rows]
    for index, score in found:
        if type(index) is not int or not isinstance(score, (int, float)) or not math.isfinite(score):
            raise CheckFailedError("a result has no integer index or no finite relevance_score")
    return [(index, float(score)) for index, score in found]
