"""Every reranker of an API against a strict server of its own that misbehaves: one suite."""

import asyncio
import importlib.metadata
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api_servers import (
    KEY,
    CohereRerankServer,
    CompatibleRerankServer,
    JinaRerankServer,
    TeiRerankServer,
    VoyageRerankServer,
    score_of,
)
from embedway.errors import (
    AuthenticationError,
    BadVectorsError,
    ConfigError,
    EmbedwayError,
    ProtocolError,
    QuotaExceededError,
    RateLimitedError,
    RefusedInputError,
    UnavailableError,
)
from embedway.providers.base import Endpoint
from embedway.providers.registry import RERANKERS, make_reranker

QUERY = "which one?"
DOCUMENTS = ["the first text", "the second", "and a third one", "a fourth"]
#: Reranker and dialect, its server, and what stands between the server's address and the path that it adds.
APIS = {
    "cohere": (CohereRerankServer, ""),
    "voyage": (VoyageRerankServer, "/v1"),
    "jina": (JinaRerankServer, "/v1"),
    "openai-compatible": (CompatibleRerankServer, "/v1"),
    "openai-compatible tei": (TeiRerankServer, "/v1"),
}
#: Tested with real models.
LIBRARIES = {"sentence-transformers"}


@pytest.fixture(params=sorted(APIS))
def name(request):
    return request.param


@pytest.fixture
def server(name):
    return APIS[name][0]()


def ask(name, server, documents=DOCUMENTS, *, secret=KEY, timeout_s=20.0, **options):
    provider_name, _, dialect = name.partition(" ")
    if dialect:
        options["dialect"] = dialect

    async def main():
        async with server.running():
            url = server.url + APIS[name][1]
            endpoint = Endpoint("r", server.model, url, secret=secret, timeout_s=timeout_s, options=options)
            reranker = make_reranker(provider_name, endpoint)
            try:
                return await reranker.rerank(QUERY, documents)
            finally:
                await reranker.aclose()

    return asyncio.run(main())


def assert_right(answer, documents=DOCUMENTS):
    np.testing.assert_allclose(answer.scores, [score_of(QUERY, text) for text in documents], atol=1e-6)
    assert answer.scores.dtype == np.float32


def test_every_reranker_is_in_this_suite():
    ours = {entry.name for entry in importlib.metadata.entry_points(group=RERANKERS) if "embedway." in entry.value}
    assert ours == {name.partition(" ")[0] for name in APIS} | LIBRARIES


def test_scores_by_document_and_what_they_cost(name, server):
    answer = ask(name, server)
    assert_right(answer)
    billed = {"cohere": (None, 1), "openai-compatible tei": (None, None)}
    assert (answer.tokens, answer.searches) == billed.get(name, (11, None))


def test_texts_go_as_they_are(name, server):
    documents = [" Polish ", "polish", "a\x00b", "漢字 😀", "\ttab\nline"]
    assert_right(ask(name, server, documents), documents)


def test_cohere_reads_as_much_of_a_document_as_it_is_told():
    server = CohereRerankServer()
    ask("cohere", server, max_tokens_per_doc="32768")
    assert server.bodies[0]["max_tokens_per_doc"] == 32768


def test_without_a_key_it_says_which_variable_to_set(name, server):
    if name.startswith("openai-compatible"):
        with pytest.raises(AuthenticationError):
            ask(name, server, secret="")
        return
    with pytest.raises(ConfigError, match=r"r: api_key: is not set; set \w+_API_KEY"):
        ask(name, server, secret="")
    assert server.bodies == []


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows[:-1],
        lambda rows: [*rows, rows[0]],
        lambda rows: [],
        lambda rows: [None, *rows[1:]],
        lambda rows: [*rows[:-1], {}],
        lambda rows: [*rows[:-1], rows[0]],
        lambda rows: [{**rows[0], "index": None}, *rows[1:]],
        lambda rows: [{**rows[0], "index": 17}, *rows[1:]],
        lambda rows: [{**rows[0], "index": -1}, *rows[1:]],
        lambda rows: [{**rows[0], "index": True}, *rows[1:]],
        lambda rows: [{"index": row["index"], "relevance_score": None, "score": "0.5"} for row in rows],
    ],
    ids=["short", "long", "empty", "null", "table", "repeated", "null index", "gap", "negative", "true", "no number"],
)
def test_a_bad_answer_is_an_error(name, server, change):
    server.misdeeds = [lambda answer: server.with_rows(answer, change(server.rows(answer)))]
    with pytest.raises((BadVectorsError, ProtocolError)):
        ask(name, server)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_json_cannot_hold_is_an_error(name, server, value):
    def spoil(answer):
        rows = [dict(row) for row in server.rows(answer)]
        rows[0][server.score] = value
        return server.with_rows(answer, rows)

    server.misdeeds = [spoil]
    with pytest.raises((BadVectorsError, ProtocolError)):
        ask(name, server)


@pytest.mark.parametrize(
    ("misdeed", "kind"),
    [
        ("reset", UnavailableError),
        ("hang up", UnavailableError),
        ("html", ProtocolError),
        ("html error", UnavailableError),
        ("redirect", ProtocolError),
        ("half json", ProtocolError),
        ("401", AuthenticationError),
        ("400", RefusedInputError),
        ("404", ProtocolError),
        ("429", RateLimitedError),
        ("429 quota", QuotaExceededError),
        ("503", UnavailableError),
    ],
)
def test_failures_have_their_kind_and_tell_no_secret(name, server, misdeed, kind):
    server.misdeeds = [misdeed]
    with pytest.raises(kind) as caught:
        ask(name, server)
    said = f"{caught.value!r} {caught.value}"
    assert KEY not in said
    assert not any(text in said for text in (QUERY, *DOCUMENTS))


def test_a_slow_body_ends_in_time(name, server):
    server.misdeeds = ["slow"]
    with pytest.raises(UnavailableError, match="in time"):
        ask(name, server, timeout_s=0.05)


@given(st.permutations(range(4)), st.sets(st.integers(0, 3), max_size=2), st.none() | st.integers(-1, 5))
@settings(deadline=None, max_examples=25)
def test_whatever_order_the_results_come_in_each_score_is_its_document_s(order, drop, index):
    server = VoyageRerankServer()
    clean = []

    def mix(answer):
        rows = sorted(server.rows(answer), key=lambda row: row["index"])
        mixed = [dict(rows[n]) for n in order if n not in drop]
        if index is not None and mixed:
            mixed[0]["index"] = index
        # A result whose index is another's is found out, unless it is its own after all.
        clean.append(sorted(row["index"] for row in mixed) == [0, 1, 2, 3])
        return server.with_rows(answer, mixed)

    server.misdeeds = [mix]
    try:
        answer = ask("voyage", server)
    except EmbedwayError:
        assert clean == [False]
        return
    assert_right(answer)
