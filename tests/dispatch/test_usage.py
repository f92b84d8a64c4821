"""Usage of an answer: reported, not reported, or implausible."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
from tokenizers import Tokenizer

from embedway.dispatch.request import ServiceRoute, UpstreamRequest, UpstreamResponse
from embedway.dispatch.usage import Count, Usage, record, usage_of
from embedway.providers.base import Answer, Declared
from embedway.providers.counting import EstimatingCounter, TiktokenCounter
from embedway.providers.fake import Fake
from embedway.providers.usage import MOST_COUNT
from failing_services import SPACE

TIKTOKEN = TiktokenCounter("cl100k_base", max_tokens=8191)
ESTIMATE = EstimatingCounter(max_tokens=100_000)
SENTENCE = "A budget holds for every process that shares its ledger, also after a crash."


def usage_for(texts, *, tokens=None, searches=None, counter=TIKTOKEN, declared=Declared(32), **more):  # noqa: B008
    request = UpstreamRequest(texts, counter.count(texts).lengths, "document", SPACE, 16, **more)
    answer = Answer(np.zeros((len(texts), 1), np.float32), tokens=tokens, searches=searches)
    return usage_of(answer, request, np.arange(len(texts)), declared)


def own(texts, counter=TIKTOKEN):
    return int(counter.count(texts).lengths.sum())


@pytest.mark.parametrize("reported", [None, 0])
def test_nothing_reported_for_texts_is_not_free(reported):
    tokens = usage_for([SENTENCE], tokens=reported).tokens
    assert (tokens.booked, tokens.source, tokens.is_own) == (own([SENTENCE]), "estimated", True)


@pytest.mark.parametrize("counter", [TIKTOKEN, ESTIMATE])
@pytest.mark.parametrize(
    ("part", "source", "booked"),
    [(1.0, "reported", 1.0), (0.4, "reported", 0.4), (9.0, "reported", 9.0), (0.25, "unsure", 1.0), (11, "unsure", 11)],
)
def test_a_report_far_from_our_count_is_unsure_and_the_larger_is_booked(counter, part, source, booked):
    texts = [SENTENCE * 20] * 10
    count = own(texts, counter)
    tokens = usage_for(texts, tokens=int(part * count), counter=counter).tokens
    assert (tokens.source, tokens.booked) == (source, int(booked * count))


@pytest.mark.parametrize("texts", [[SENTENCE], [SENTENCE] * 32, ["one short text"] * 32, ["yes"] * 4])
def test_always_one_token_is_implausible(texts):
    tokens = usage_for(texts, tokens=1).tokens
    assert (tokens.source, tokens.booked, tokens.is_own) == ("unsure", own(texts), True)


def test_a_number_that_no_request_can_have_is_unsure_and_our_count_is_booked():
    tokens = usage_for([SENTENCE], tokens=MOST_COUNT).tokens
    assert (tokens.source, tokens.booked) == ("unsure", own([SENTENCE]))


@pytest.mark.parametrize(
    ("text", "reported"),
    [("a", 1), ("a", 3), ("a", 9), ("hello world", 2), ("hello world", 4), ("of", 1), ("acknowledgement", 1)],
)
@pytest.mark.parametrize("counter", [TIKTOKEN, ESTIMATE])
@pytest.mark.parametrize("count", [1, 32])
def test_special_tokens_of_short_texts_are_plausible(counter, text, reported, count):
    assert usage_for([text] * count, tokens=reported * count, counter=counter).tokens.source == "reported"


KINDS = {
    "English": lambda chance, n: " ".join(chance.choices(SENTENCE.split(), k=n)),
    "Chinese": lambda chance, n: "".join(chance.choices("向量数据库是一种专门用于存储和检索高维的系统预算", k=n)),
    "Russian": lambda chance, n: " ".join(chance.choices(["Быстрая", "лиса", "перепрыгивает", "через", "собаку"], k=n)),
    "code": lambda _chance, n: "        if x is not None:\n                return {k: [v]}\n" * n,
    "emoji": lambda chance, n: "".join(chance.choices(["🎉", "👍🏽", "😀", "❤️", "👨‍👩‍👧"], k=n)),
    "numbers": lambda chance, n: " ".join(str(chance.randint(0, 10**6)) for _ in range(n)),
    "digits": lambda chance, n: "".join(chance.choices("0123456789", k=n)),
    "blanks": lambda _chance, n: "a" + " " * n + "b",
    "lines": lambda _chance, n: "-" * n + "\n| a | b |\n" + "=" * n,
    "base64": lambda chance, n: "".join(chance.choices("ABCDEFGHabcdefgh01234567+/", k=4 * n)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("special", [0, 2])
def test_counts_of_other_tokenizers_are_plausible(kind, special, tokenizer):
    """The server counts with its own tokenizer and special tokens, and embedway exactly or by an estimate."""
    chance, bert = random.Random(kind), Tokenizer.from_file(str(tokenizer))
    bert.no_truncation()
    bert.no_padding()
    servers = {
        "tiktoken": (lambda text: len(TIKTOKEN.plain.encode(text).ids), (TIKTOKEN, ESTIMATE)),
        "BERT": (lambda text: len(bert.encode(text, add_special_tokens=False).ids), (ESTIMATE,)),
    }
    for count, counters in servers.values():
        for n in (1, 2, 5, 20, 300):
            for texts in ([KINDS[kind](chance, n)], [KINDS[kind](chance, n) for _ in range(8)]):
                reported = sum(max(1, count(text)) + special for text in texts)
                for counter in counters:
                    assert usage_for(texts, tokens=reported, counter=counter).tokens.source == "reported", texts


def test_a_prompt_that_the_service_adds_may_be_left_uncounted():
    texts = ["short query"] * 4
    lengths = np.full(4, 22, np.int32)
    for declared, source in (Declared(32, input_type=True), "reported"), (Declared(32), "reported"):
        request = UpstreamRequest(texts, lengths, "query", SPACE, 16, uncounted=20)
        answer = Answer(np.zeros((4, 1), np.float32), tokens=8)
        assert usage_of(answer, request, np.arange(4), declared).tokens.source == source


def test_a_reranker_may_count_the_query_once():
    texts = ["a document of some words"] * 100
    lengths = np.full(100, 205, np.int32)
    request = UpstreamRequest(texts, lengths, "document", SPACE, 1, by_search=True, uncounted=200)
    answer = Answer(np.zeros((100, 1), np.float32), tokens=700)
    assert usage_of(answer, request, np.arange(100), Declared(1000)).tokens.source == "reported"


@pytest.mark.parametrize(
    ("reported", "source", "booked"),
    [
        *((nothing, "estimated", 3) for nothing in (None, 0)),
        *((some, "reported", some) for some in (1, 3, 9)),
        *((many, "unsure", booked) for many, booked in ((31, 31), (MOST_COUNT, 3))),
    ],
)
def test_searches_follow_the_same_rule(reported, source, booked):
    searches = usage_for(["short"] * 300, searches=reported, by_search=True).searches
    assert (searches.source, searches.booked) == (source, booked)


def test_one_search_for_many_requests_is_implausible():
    searches = usage_for(["short"] * 1000, searches=1, by_search=True).searches
    assert (searches.source, searches.booked) == ("unsure", 10)


def test_a_free_provider_bills_nothing():
    usage = usage_for([SENTENCE], tokens=0, declared=Declared(32, free=True))
    assert (usage.tokens.booked, usage.tokens.source) == (0, "reported")


def test_implausible_usage_is_noted_in_each_receipt_and_logged_once_for_a_route(caplog):
    charges = [SimpleNamespace(account=SimpleNamespace(prices=lambda tokens, searches: tokens))]
    none = Count(None, 0, "estimated")
    low, high = Usage(Count(1, 90, "unsure"), none), Usage(Count(900, 9, "unsure"), none)
    route = ServiceRoute("r", Fake())
    fewer = Usage(Count(5, 8, "unsure"), none)
    own = "embedway's own count"
    for usage, how in (
        (low, f"less than a third of {own}"),
        (high, f"more than ten times {own}"),
        (fewer, "fewer than its texts"),
    ) * 3:
        response = UpstreamResponse(np.zeros((1, 1), np.float32))
        record(usage, route, response, charges)
        (note,) = response.notes
        assert note == f"r: its reported tokens are {how}; the cost is booked as unsure"
    assert [line.levelname for line in caplog.records] == ["WARNING"] * 3
    assert "(1 reported, 90 counted)" in caplog.text
    assert "(900 reported, 9 counted)" in caplog.text


def test_what_is_not_billed_is_not_noted(caplog):
    response = UpstreamResponse(np.zeros((1, 1), np.float32))
    record(Usage(Count(1, 90, "unsure"), Count(None, 0, "estimated")), ServiceRoute("r", Fake()), response, [])
    assert not response.notes
    assert not caplog.records
