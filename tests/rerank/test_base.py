"""Every reranker of an API against its own strict server with faults: one suite for all."""

import asyncio
import contextlib
import functools
import importlib.metadata
import logging
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api_misdeeds import INDEX, LIST, NO_INDEX, ORDERS, without_index
from api_servers import (
    KEY,
    CohereRerankServer,
    CompatibleRerankServer,
    JinaRerankServer,
    TeiRerankServer,
    VoyageRerankServer,
    score_of,
)
from embedway import Config
from embedway.errors import AuthenticationError, BadVectorsError, ConfigError, EmbedwayError, ProtocolError
from embedway.providers.base import Endpoint
from embedway.providers.registry import RERANKERS
from embedway.rerank.base import make_reranker
from provider_suite import FAILURES, all_said, assert_tells_no_secret, engine_over, timeout_for

QUERY = "which one?"
DOCUMENTS = ["the first text", "the second", "and a third one", "a fourth"]
#: Reranker and dialect: its server, and the path between the server's URL and the path that the reranker adds.
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


def test_cohere_reads_a_document_up_to_the_given_limit():
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


MODEL = "the-reranker"
#: Invalid scores.
SCORES = {
    "null": None,
    "text": "0.5",
    "NaN": math.nan,
    "infinity": math.inf,
    "a list": [0.5],
    "true": True,
}


def config_for(name, server, **settings):
    """Return settings in which `MODEL` is the model of a running server."""
    provider, _, dialect = name.partition(" ")
    overrides = {
        "models.m": {"name": MODEL, "task": "rerank", "max_tokens": 8192},
        "routes.r": {
            "model": MODEL,
            "provider": provider,
            "upstream_model": server.model,
            "base_url": server.url + APIS[name][1],
            "api_key": KEY,
            "options": {"dialect": dialect} if dialect else {},
        },
        "upstream.first_wait_s": 0.001,
        "upstream.longest_wait_s": 0.002,
        "ledger.backend": "none",
        **settings,
    }
    return Config.load(environ={}, overrides=overrides)


def embedder_for(name, server, **settings):
    """Return an embedder for a running server."""
    return engine_over(server, lambda: config_for(name, server, **settings))


def rerank(name, server, documents=DOCUMENTS, *, settings=None, **options):
    """Return the scores of documents through the complete engine."""

    async def main():
        async with embedder_for(name, server, **(settings or {})) as embedder:
            return await embedder.rerank(QUERY, documents, model=MODEL, **options)

    return asyncio.run(main())


def assert_tells_nothing(error, log):
    assert_tells_no_secret(all_said(error) + log.text, [QUERY, *DOCUMENTS])


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.DEBUG)
    return caplog


@pytest.mark.parametrize("order", ORDERS)
def test_the_index_decides_and_not_the_order(name, server, order):
    server.misdeeds = [order]
    assert_right(rerank(name, server))
    assert len(server.log) == 1


def first_score(value):
    def spoil(server, answer):
        rows = server.rows(answer)
        return server.with_rows(answer, [{**rows[0], server.score: value}, *rows[1:]])

    return spoil


@pytest.mark.parametrize("order", [None, *ORDERS])
def test_a_service_that_leaves_out_an_index_of_0_is_understood(name, server, order):
    def misdeed(answer):
        rows = server.rows(answer) if order is None else ORDERS[order](server.rows(answer))
        return server.with_rows(answer, NO_INDEX["no index of 0"](rows))

    server.misdeeds = [misdeed]
    assert_right(rerank(name, server))
    assert len(server.log) == 1


def test_another_missing_index_is_never_guessed(name, server):
    def misdeed(answer):
        rows = [without_index(row) if row["index"] == 1 else row for row in server.rows(answer)]
        return server.with_rows(answer, rows)

    server.misdeeds = [misdeed] * 2
    with pytest.raises(BadVectorsError, match="index"):
        rerank(name, server)


BAD_ANSWERS = {
    **{kind: kind for kind in (*LIST, *INDEX, "null indexes", "no indexes")},
    **{f"score {kind}": first_score(value) for kind, value in SCORES.items()},
}


@pytest.mark.parametrize("kind", BAD_ANSWERS)
def test_a_bad_answer_is_asked_for_again_once(name, server, kind, log):
    misdeed = BAD_ANSWERS[kind]
    if not isinstance(misdeed, str):
        misdeed = functools.partial(misdeed, server)

    async def main():
        async with embedder_for(name, server) as embedder:
            server.misdeeds = [misdeed]
            assert_right(await embedder.rerank(QUERY, DOCUMENTS, model=MODEL))
            assert len(server.log) == 2
            server.misdeeds = [misdeed] * 3
            with pytest.raises((BadVectorsError, ProtocolError), match=r"routes\.r: ") as caught:
                await embedder.rerank(QUERY, DOCUMENTS, model=MODEL)
            assert len(server.log) == 4
            assert_tells_nothing(caught.value, log)

    asyncio.run(main())


@pytest.mark.parametrize("misdeed", FAILURES)
def test_what_passes_is_tried_again_and_what_lasts_is_not(name, server, misdeed, log):
    kind, again = FAILURES[misdeed]
    server.misdeeds = [misdeed]
    settings = {"upstream.timeout_s": timeout_for(misdeed)}
    if again:
        assert_right(rerank(name, server, settings=settings))
        assert len(server.log) == 2
        return
    with pytest.raises(kind) as caught:
        rerank(name, server, DOCUMENTS[:1], settings=settings)
    assert len(server.log) == 1
    assert_tells_nothing(caught.value, log)


@pytest.mark.parametrize("misdeed", ["500", "429", "reset"])
def test_a_storm_ends_when_the_attempts_are_used_up(name, server, misdeed, log):
    server.misdeeds = [misdeed] * 20
    with pytest.raises(FAILURES[misdeed][0]) as caught:
        rerank(name, server, settings={"upstream.max_attempts": 4})
    # Requests that halve the documents do not count.
    assert 4 <= max(Counter(text for served in server.log for text in served.texts).values()) <= 4 + 2
    assert_tells_nothing(caught.value, log)


@pytest.mark.parametrize("misdeed", ["stall", "slow"])
def test_cancelling_ends_the_request_at_the_server(name, server, misdeed):
    async def main():
        server.misdeeds = [misdeed]
        async with embedder_for(name, server) as embedder:
            task = asyncio.create_task(embedder.rerank(QUERY, DOCUMENTS, model=MODEL))
            await server.arrived.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await server.deserted()
            assert_right(await embedder.rerank(QUERY, DOCUMENTS, model=MODEL))

    asyncio.run(main())
    assert server.cancelled == 1


def test_voyage_counts_the_query_with_each_document_and_takes_so_many_tokens():
    server = VoyageRerankServer()
    server.max_request_tokens = 600_000
    query, documents = "why " * 700, [f"{number:04} " + "word " * 1400 for number in range(240)]
    server.over_limits = lambda texts, **_: (
        "too many tokens" if sum(-(-len((query + text).encode()) // 3) for text in texts) > 600_000 else None
    )

    async def main():
        async with embedder_for("voyage", server) as embedder:
            return await embedder.rerank(query, documents, model=MODEL)

    result = asyncio.run(main())
    np.testing.assert_allclose(result.scores, [score_of(query, text) for text in documents], atol=1e-6)
    assert not server.refused
    assert len(server.log) >= 2


def test_failures_of_one_call_have_their_kind(name, server, log):
    for misdeed in ("html", "404", "401", "429 quota"):
        server.misdeeds = [misdeed]
        with pytest.raises(FAILURES[misdeed][0]) as caught:
            ask(name, server)
        assert str(caught.value).startswith("r: ")
        assert_tells_nothing(caught.value, log)


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
        # A result with another result's index is detected, unless the index is its own after all.
        clean.append(sorted(row["index"] for row in mixed) == [0, 1, 2, 3])
        return server.with_rows(answer, mixed)

    server.misdeeds = [mix]
    try:
        answer = ask("voyage", server)
    except EmbedwayError:
        assert clean == [False]
        return
    assert_right(answer)


def test_headers_and_a_key_that_is_read_again(name, server, tmp_path):
    """A refused key is read again from its file, and the request is sent once more, with the route's headers."""
    provider_name, _, dialect = name.partition(" ")
    path = tmp_path / "key"
    path.write_text(KEY)

    async def main():
        async with server.running():
            endpoint = Endpoint(
                "r",
                server.model,
                f"{server.url}{APIS[name][1]}",
                "sk-old",
                options={"dialect": dialect} if dialect else {},
                headers={"x-team": "search"},
                files={"": path},
            )
            reranker = make_reranker(provider_name, endpoint)
            try:
                path.write_text("sk-wrong")
                with contextlib.suppress(AuthenticationError):
                    await reranker.rerank(QUERY, DOCUMENTS)
                path.write_text(KEY)
                return await reranker.rerank(QUERY, DOCUMENTS)
            finally:
                await reranker.aclose()

    scores = asyncio.run(main())
    assert len(scores.scores) == len(DOCUMENTS)
    assert {headers["x-team"] for headers in server.headers} == {"search"}


@pytest.mark.parametrize("option", ["max_inputs", "batch_size"])
def test_an_option_limits_the_documents_of_a_request(name, server, option):
    assert_right(rerank(name, server, settings={f"routes.r.options.{option}": 3}))
    assert sorted(len(one.texts) for one in server.log) == [1, 3]


@pytest.mark.parametrize("option", ["max_inputs", "batch_size"])
def test_an_option_never_raises_the_limit_of_a_service(name, server, option):
    if name.startswith("openai-compatible"):  # the server's limit is not known here
        assert ask(name, server, **{option: "5000"}) is not None
        return
    with pytest.raises(ConfigError, match=rf"r: options\.{option}: must be at most \d+, the provider's limit"):
        ask(name, server, **{option: "5000"})
