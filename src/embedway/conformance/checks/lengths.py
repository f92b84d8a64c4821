"""Checks of texts at and beyond the model's limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedway.conformance.rows import EQUAL, cosine, read_vectors
from embedway.conformance.verdicts import CheckFailedError, CheckSkippedError, Verdict, passed

if TYPE_CHECKING:
    from embedway.conformance.client import Answer
    from embedway.conformance.server import Server

#: Words at the end of a text that are replaced, to see whether the model reads them.
_LAST_WORDS = 8
#: Words of a long text if the limit is not known.
_MANY_WORDS = 10_000
_OTHER_WORDS = ("river", "stone", "cloud", "grass", "metal", "sugar", "paper", "glass")
#: Values of a header or a field that say that nothing was truncated.
_NOTHING = frozenset({"", "0", "false", "none", "null", "no"})


async def exact_limit(server: Server) -> Verdict:
    """Send a text of exactly the most tokens, and another one that differs at its end."""
    limit = server.max_tokens()
    words = _words_at_limit(server, limit)
    answer = await server.post(" ".join(words))
    if not answer.is_ok:
        raise CheckFailedError(f"a text of exactly {limit} tokens is answered with {answer.shown}")
    other = await server.post(" ".join([*words[:-_LAST_WORDS], *_OTHER_WORDS]))
    if cosine(read_vectors(answer, 1)[0], read_vectors(other, 1)[0]) >= EQUAL:
        raise CheckFailedError(f"the end of a text of exactly {limit} tokens is not read")
    return passed(f"{limit} tokens are read to the end")


async def over_limit(server: Server) -> Verdict:
    """Send a text that is longer than the limit: it is refused, or the answer tells that it was truncated."""
    if server.target.reference is None or server.target.max_tokens is None:
        return await _far_over_limit(server)
    limit = server.max_tokens()
    words = _words_at_limit(server, limit)
    answer = await server.post(" ".join([*words, _OTHER_WORDS[0]]))
    if answer.is_refusal:
        return passed(f"{limit + 1} tokens are refused with {answer.shown}")
    long = read_vectors(answer, 1)[0]
    if place := told_truncation(answer):
        return passed(f"{limit + 1} tokens are truncated, and {place} tells it")
    if cosine(long, await server.embed_one(" ".join(words))) >= EQUAL:
        raise CheckFailedError(f"a text of {limit + 1} tokens is truncated silently: its vector is that of {limit}")
    return passed(f"the vector of {limit + 1} tokens is not that of the first {limit}")


async def _far_over_limit(server: Server) -> Verdict:
    """Compare two long texts with the same beginning."""
    text = server.texts.long(4 * server.target.max_tokens if server.target.max_tokens else _MANY_WORDS)
    words = text.split()
    answer = await server.post(text)
    if answer.is_refusal:
        return passed(f"{len(words):,} words are refused with {answer.shown}")
    first = read_vectors(answer, 1)[0]
    if place := told_truncation(answer):
        return passed(f"{len(words):,} words are truncated, and {place} tells it")
    half = len(words) // 2
    other = await server.embed_one(" ".join([*words[:half], *(_OTHER_WORDS * half)[:half]]))
    if cosine(first, other) >= EQUAL:
        raise CheckFailedError(f"a text of {len(words):,} words is truncated silently: its second half changes nothing")
    return passed(f"{len(words):,} words are read")


def _words_at_limit(server: Server, limit: int) -> list[str]:
    words = server.reference().words_of(limit, server.texts.mark)
    if words is None or len(words) <= _LAST_WORDS:
        raise CheckSkippedError(f"no text of exactly {limit} tokens was found for this tokenizer")
    return words


def told_truncation(answer: Answer) -> str:
    """Return the header or the field that tells of a truncated text; empty if none does."""
    for name, value in answer.headers.items():
        if ("truncat" in name.lower() or name.lower() == "warning") and _tells(value):
            return f"the header {name.lower()}"
    body = answer.value if isinstance(answer.value, dict) else {}
    places: list[Any] = [body, body.get("usage"), body.get("meta")]
    data = body.get("data")
    places += data[:1] if isinstance(data, list) else []
    for place in places:
        for name, value in place.items() if isinstance(place, dict) else ():
            if ("truncat" in name.lower() or "warning" in name.lower()) and _tells(value):
                return f"the field {name}"
    return ""


def _tells(value: Any) -> bool:
    return bool(value) if isinstance(value, (list, dict)) else str(value).strip().lower() not in _NOTHING
