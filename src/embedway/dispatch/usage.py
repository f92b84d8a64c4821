"""Usage of an answer as it is booked: reported by the service, counted here, or implausible and therefore unsure.

A report is plausible from a third of our count to ten times it. Short texts have an allowance, because our count may be
an estimate, and services add tokens of their own to a text or leave some uncounted.
"""

from __future__ import annotations

import itertools
import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from embedway.dispatch.billing import DOCUMENTS_A_SEARCH, searches_of
from embedway.providers.base import sum_of
from embedway.providers.usage import MOST_COUNT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from embedway.dispatch.billing import Charge
    from embedway.dispatch.probes import Probe
    from embedway.dispatch.request import Rows, ServiceRoute, UpstreamRequest, UpstreamResponse
    from embedway.providers.base import Answer, Declared

Source: TypeAlias = Literal["reported", "estimated", "unsure"]

_log = logging.getLogger("embedway.budget")

#: A report is implausible below our count divided by the first, and above our count times the second.
_LEAST_PART, _MOST_TIMES = 3, 10
#: Tokens of each text by which a plausible report may be lower or higher: special tokens, prompts of the service.
_FEWER_TOKENS, _MORE_TOKENS = 2, 16
#: Runs of digits, of letters, and of other characters. Some tokenizers read the last as one token.
_RUNS = re.compile(r"(\d+)|([^\W\d]+)|[^\w\s]+")
_DIGITS_A_TOKEN, _BYTES_A_TOKEN = 3, 3
_LONGEST_WORD = 100


@dataclass(frozen=True, slots=True)
class Count:
    """Tokens or searches of an answer: the service's report (None or 0 if there is none), and our own count."""

    reported: int | None
    own: int
    source: Source

    @property
    def booked(self) -> int:
        """Number to book. Of an implausible report and our count, the larger; a report of MOST_COUNT is no number."""
        if self.source == "reported":
            return self.reported or 0
        is_number = self.source == "unsure" and (self.reported or 0) < MOST_COUNT
        return max(self.reported or 0, self.own) if is_number else self.own

    @property
    def is_own(self) -> bool:
        """Whether our own count is booked."""
        return self.source != "reported" and self.booked == self.own


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens and searches of an answer. A service bills one of them."""

    tokens: Count
    searches: Count

    @property
    def reported_tokens(self) -> int | None:
        """Tokens to book if the service reported any; None for our own estimate."""
        return None if self.tokens.source == "estimated" else self.tokens.booked


def usage_of(answer: Answer, request: UpstreamRequest, rows: Rows, declared: Declared) -> Usage:
    """Return the usage of a provider's answer. Reports of a free provider are not checked."""
    own, searches = sum_of(request.lengths[rows]), 0
    if request.by_search:
        searches = searches_of(request.lengths[rows])
    if declared.free:
        return Usage(Count(answer.tokens, own, "reported"), Count(answer.searches, searches, "reported"))
    # A service with input types adds its prompt itself, and a reranker may count the query once.
    uncounted = request.uncounted if declared.input_type or request.by_search else 0
    return Usage(
        Count(answer.tokens, own, _source_of_tokens(answer.tokens, own, request, rows, uncounted)),
        Count(answer.searches, searches, _source_of_searches(answer.searches, searches, len(rows))),
    )


def usage_of_probe(answer: Answer, probe: Probe, searches: int, declared: Declared) -> Usage:
    """Return the usage of the answer to a probe. Our count of its tokens is up to twice too high."""

    def count(reported: int | None, own: int) -> Count:
        is_high = (reported or 0) > _MOST_TIMES * max(1, own) + _MORE_TOKENS * probe.texts
        is_low = own > _LEAST_PART * (reported or 0) + _FEWER_TOKENS * probe.texts
        source: Source = "estimated" if not reported else "unsure" if is_high or is_low else "reported"
        return Count(reported, own, "reported" if declared.free else source)

    return Usage(count(answer.tokens, probe.tokens), count(answer.searches, searches))


def _source_of_tokens(reported: int | None, own: int, request: UpstreamRequest, rows: Rows, uncounted: int) -> Source:
    if not reported:
        return "estimated"
    texts = len(rows)
    # Each text has a token.
    if reported < texts or reported > _MOST_TIMES * own + _MORE_TOKENS * texts:
        return "unsure"
    most = _LEAST_PART * reported + (_FEWER_TOKENS + uncounted) * texts
    return "unsure" if own > most and _has_more(request, rows, most) else "reported"


def _source_of_searches(reported: int | None, own: int, texts: int) -> Source:
    if not reported:
        return "estimated"
    # Our count is a maximum; the minimum is that of short documents.
    is_low = _LEAST_PART * reported < -(-texts // DOCUMENTS_A_SEARCH)
    return "unsure" if is_low or reported > _MOST_TIMES * max(1, own) else "reported"


def _has_more(request: UpstreamRequest, rows: Rows, tokens: int) -> bool:
    """Return whether texts have more tokens, even for a tokenizer that makes few of digits, emoji and blanks."""
    for count in _fewest(request, rows):
        tokens -= count
        if tokens < 0:
            return True
    return False


def _fewest(request: UpstreamRequest, rows: Rows) -> Iterator[int]:
    """Yield the minimum tokens of each run of characters in the texts."""
    for word in itertools.chain.from_iterable(request.texts[row].split() for row in rows.tolist()):
        # BERT's tokenizer makes one token of a longer word. Chinese characters are words of their own.
        if len(word) > _LONGEST_WORD and word.isascii():
            yield 1
            continue
        for digits, letters in _RUNS.findall(word):
            size, per_token = (
                (len(digits), _DIGITS_A_TOKEN) if digits else (len(letters.encode("utf-8", "replace")), _BYTES_A_TOKEN)
            )
            yield max(1, -(-size // per_token))


def record(usage: Usage, route: ServiceRoute, response: UpstreamResponse, charges: Sequence[Charge]) -> None:
    """Add the usage to the response. Note an implausible report of what is billed, and log it once for the route."""
    tokens, searches = usage.tokens, usage.searches
    if tokens.source != "estimated":
        response.billed_tokens += tokens.booked
    elif searches.source == "estimated":
        response.unreported_tokens += tokens.own
    if searches.source != "estimated":
        response.searches += searches.booked
    if not charges:
        return
    count, unit = (searches, "searches") if charges[0].account.prices(0, 1) else (tokens, "tokens")
    if count.source != "unsure":
        return
    how = "less than a third of embedway's own count"
    if (count.reported or 0) > count.own:
        how = "more than ten times embedway's own count"
    elif _LEAST_PART * (count.reported or 0) >= count.own:
        how = "fewer than its texts"
    note = f"{route.name}: its reported {unit} are {how}; the cost is booked as unsure"
    response.notes.append(note)
    if how not in route.logged:
        route.logged.add(how)
        _log.warning("%s (%s reported, %s counted)", note, f"{count.reported:,}", f"{count.own:,}")
