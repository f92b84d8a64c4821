"""Billed tokens and searches in the answers of services.

Services name the same number differently, and gateways pass on the names of the service behind them. So all names are
read in every answer. Costs in headers, such as LiteLLM's `x-litellm-response-cost`, are not read: they are the
gateway's own price times the same count, and 0 where it knows no price.
"""

from __future__ import annotations

import re
from typing import Any

#: Maximum tokens or searches of one request. More is not plausible, and its cost would overflow the ledger.
MOST_COUNT = 10**9
#: Names of the number of tokens in objects of an answer: OpenAI's format and its variants, Gemini.
_TOKENS = {
    "usage": frozenset(
        (
            "total_tokens",
            "prompt_tokens",
            "input_tokens",
            "totalTokens",
            "promptTokens",
            "inputTokens",
            "inputTextTokenCount",
        )
    ),
    "usageMetadata": frozenset(("totalTokenCount", "promptTokenCount")),
}
#: The same in the answer itself: Amazon Bedrock, Ollama.
_TOP_TOKENS = frozenset(("inputTextTokenCount", "prompt_eval_count"))
#: Lists of rows, and the tokens of a row, as in the output of Amazon Titan.
_ROWS, _ROW_TOKENS = ("data", "embeddings", "results"), "inputTextTokenCount"
_WRITTEN = re.compile(r"(\d{1,32})(\.0{1,9})?", re.ASCII)


def read_tokens(body: Any) -> int | None:
    """Return the billed tokens of an answer; None if it reports none. It may be 0.

    If two names have different numbers, the larger one is returned, because some servers fill only one of them.
    Cohere's billed tokens precede those that its model has read.
    """
    found: int | None = None
    for read in (_billed_tokens, _named_tokens, _tokens_of_rows, _read_tokens):
        count = read(body)
        if count:
            return count
        found = count if found is None else found
    return found


def read_searches(body: Any) -> int | None:
    """Return the searches that a reranker bills; None if it reports none."""
    return count_of(body, "meta", "billed_units", "search_units")


def count_of(body: Any, *path: str) -> int | None:
    """Return the count at a path of keys: an integer from 0 to MOST_COUNT; None if there is none.

    Some services write it as text, or with a decimal point.
    """
    for key in path:
        if not isinstance(body, dict) or key not in body:
            return None
        body = body[key]
    return _count(body)


def _count(body: Any) -> int | None:
    if isinstance(body, str) and (written := _WRITTEN.fullmatch(body)):
        body = int(written[1])
    elif isinstance(body, float) and body.is_integer():
        body = int(body)
    return min(body, MOST_COUNT) if type(body) is int and body >= 0 else None


def _billed_tokens(body: Any) -> int | None:
    """Return Cohere's billed tokens."""
    return count_of(body, "meta", "billed_units", "input_tokens")


def _read_tokens(body: Any) -> int | None:
    """Return the tokens that Cohere's model read."""
    return count_of(body, "meta", "tokens", "input_tokens")


def _named_tokens(body: Any) -> int | None:
    if not isinstance(body, dict):
        return None
    places = [(body, _TOP_TOKENS), *((body.get(key), names) for key, names in _TOKENS.items())]
    counts = [
        _count(place[name]) for place, names in places if isinstance(place, dict) for name in names & place.keys()
    ]
    return max((count for count in counts if count is not None), default=None)


def _tokens_of_rows(body: Any) -> int | None:
    """Return the sum of the rows' tokens; None unless every row has a number."""
    if not isinstance(body, dict):
        return None
    rows = next((body[name] for name in _ROWS if isinstance(body.get(name), list)), ())
    counts = [count_of(row, _ROW_TOKENS) for row in rows]
    known = [count for count in counts if count is not None]
    return min(sum(known), MOST_COUNT) if known and len(known) == len(counts) else None
